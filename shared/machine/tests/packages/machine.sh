# A Debian machine built from this host: the host's files under an overlay in memory, with its own processes, mounts and
# host name. It shares the host's network. Everything ends with the process that started it: the mounts are private to a
# namespace, and nothing is written outside of it.
# $1: the SSH server's address, $2: its port. Variables: HOST_KEY, AUTHORIZED_KEY.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
hostname debian
mount -t tmpfs -o mode=755,size=1g tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
for file in null zero full random urandom; do
    : >"dev/$file"
    mount --bind "/dev/$file" "dev/$file"
done
ln -s /proc/self/fd dev/fd
mkdir dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p run/sshd .host
pivot_root . .host
cd /
umount -l /.host
rmdir /.host
# This machine must not use the host's package sources and caches. The last line completes an installation that the host was
# in the middle of.
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/preferences.d /var/lib/apt/lists /var/cache/apt
mkdir -p /etc/apt/sources.list.d /var/lib/apt/lists/partial /var/cache/apt/archives/partial
rm -rf /etc/yum.repos.d /var/lib/rpm /var/cache/dnf /var/lib/dnf
mkdir -p /etc/yum.repos.d
dpkg --configure -a >/dev/null 2>&1
umask 077
printf '%s' "$HOST_KEY" >/run/host_key
printf '%s' "$AUTHORIZED_KEY" >/run/authorized
unset HOST_KEY AUTHORIZED_KEY
umask 022
exec /usr/sbin/sshd -D -e -f /dev/null -o ListenAddress="$1" -p "$2" -o UsePAM=no -o StrictModes=no -o PidFile=none \
    -o PermitRootLogin=prohibit-password -o HostKey=/run/host_key -o AuthorizedKeysFile=/run/authorized
