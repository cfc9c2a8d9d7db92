# Builds the image of a machine for Incus and imports it: busybox, dropbear, and what starts them. Runs inside of the
# lab. Arguments: the image's alias, and the size of a file of zeros in it (which makes unpacking slow).
set -e
alias=$1
ballast=$2
dir=$(mktemp -d -p /run)
root=$dir/rootfs
mkdir -p $root/bin $root/usr/bin $root/usr/sbin $root/etc/dropbear $root/etc/ssh $root/root $root/proc $root/sys \
    $root/dev $root/run $root/tmp $root/var $root/sbin
chmod 1777 $root/tmp
chmod 700 $root/root
cp "$(command -v busybox)" $root/bin/busybox
for applet in $(busybox --list); do
    [ $applet = busybox ] || ln -s busybox $root/bin/$applet
done
ln -s ../bin/busybox $root/sbin/init
for program in /usr/sbin/dropbear /usr/bin/dropbearkey; do
    cp $program $root$program
    ldd $program | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p $root${library%/*}
        cp -L $library $root$library
    done
done
printf 'root:x:0:0:root:/root:/bin/sh\nberth:x:1000:1000::/home/berth:/bin/sh\n' >$root/etc/passwd
printf 'root:x:0:\nberth:x:1000:\n' >$root/etc/group
printf 'root:*:19000::::::\nberth:*:19000::::::\n' >$root/etc/shadow
mkdir -p $root/home/berth
chown 1000:1000 $root/home/berth
echo /bin/sh >$root/etc/shells
cat >$root/etc/inittab <<'END'
::sysinit:/etc/boot
::respawn:/usr/sbin/dropbear -F -E -s -r /etc/dropbear/key
END
cat >$root/etc/boot <<'END'
#!/bin/sh
ip link set lo up
udhcpc -i eth0 -b -s /etc/address
[ -e /etc/dropbear/key ] || dropbearkey -t ed25519 -f /etc/dropbear/key | grep ^ssh- >/etc/ssh/ssh_host_ed25519_key.pub
END
cat >$root/etc/address <<'END'
#!/bin/sh
case $1 in bound|renew) ip addr flush dev $interface; ip addr add $ip/$mask dev $interface ;; esac
END
chmod +x $root/etc/boot $root/etc/address
[ "$ballast" = 0 ] || truncate -s $ballast $root/ballast
cat >$dir/metadata.yaml <<END
architecture: $(uname -m)
creation_date: 1
properties: {description: $alias}
END
tar -C $dir -czf $dir.tar.gz metadata.yaml rootfs
incus image import $dir.tar.gz --alias $alias
rm -rf $dir $dir.tar.gz
