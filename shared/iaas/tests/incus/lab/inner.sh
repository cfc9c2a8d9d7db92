# The first process of the namespaces that lab.sh makes: brings incusd up, and starts it again when it dies.
# Argument: the name of the control groups. Environment: BERTH_CRT and BERTH_KEY, the server's certificate and key; BERTH_UNIFIED.
name=$1

# Nothing of the computer is written to.
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=711 incus /var/lib/incus
mount -t tmpfs incus-log /var/log/incus
exec >/run/lab.log 2>&1

ip link set lo up
# /sys shows the network of who mounted it; the control groups are taken over, and only the own ones.
mkdir /run/groups
for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -e "$tree/cgroup.procs" ] || continue
    mkdir -p "/run/groups/${tree#/sys/fs/cgroup}"
    mount --bind "$tree/$name" "/run/groups/${tree#/sys/fs/cgroup}"
done
mount -t sysfs sysfs /sys
if [ -n "${BERTH_UNIFIED:-}" ] && [ -e /run/groups/unified ]; then
    # A computer with both versions: the machines get version 2 alone, as machines of today have.
    mkdir /run/unified
    mount --move /run/groups/unified /run/unified
    umount -l /run/groups/* /run/groups 2>/dev/null || true
    mount --bind /run/unified /run/groups
fi
if [ -e /run/groups/cgroup.procs ]; then
    # Version 2: a group with processes in it has no groups below that are limited. LXC knows this name.
    mkdir /run/groups/init.scope
    echo 1 >/run/groups/init.scope/cgroup.procs
    mount --move /run/groups /sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 groups /sys/fs/cgroup
    for tree in /run/groups/*; do
        mkdir "/sys/fs/cgroup/${tree#/run/groups/}"
        mount --move "$tree" "/sys/fs/cgroup/${tree#/run/groups/}"
    done
fi

umask 077
printf %s "$BERTH_CRT" >/var/lib/incus/server.crt
printf %s "$BERTH_KEY" >/var/lib/incus/server.key
umask 022
export INCUS_LXC_TEMPLATE_CONFIG=/usr/share/lxc/config INCUS_DOCUMENTATION=/usr/share/doc/incus \
    INCUS_HOOK=/usr/share/lxc/hooks/incus-hook HOME=/run INCUS_CONF=/run/incus-client
# What looks for other servers at its start is not kept waiting: there is no network beyond this one.
(
    while :; do
        /usr/libexec/incus/incusd --group root --logfile=/var/log/incus/incusd.log || true
    done
) &
/usr/libexec/incus/incusd waitready --timeout=60
incus admin init --preseed <<'END'
config: {core.https_address: "127.0.0.1:8443"}
networks:
- name: incusbr0
  type: bridge
  config: {ipv4.address: 10.88.0.1/24, ipv4.nat: "false", ipv6.address: none}
- name: incusbr1
  type: bridge
  config: {ipv4.address: 10.89.0.1/24, ipv4.nat: "false", ipv6.address: none}
storage_pools:
- name: default
  driver: dir
profiles:
- name: default
  devices:
    root: {path: /, pool: default, type: disk}
    eth0: {name: eth0, network: incusbr0, type: nic}
END
echo ready >/run/ready
# Takes in whoever loses its parent, for ever.
while :; do wait; sleep 1; done
