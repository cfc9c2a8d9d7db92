# An incusd in namespaces of its own: processes, network, mounts, host name, control groups. It ends with this program,
# and this program ends with its standard input, that is, when the tests end in whatever way. Nothing stays behind: the
# kernel ends all processes of a process namespace with its first one, and with them go network, bridge, mounts and
# files; the control groups are removed here.
# Arguments: the name of the control groups, and inner.sh. Prints the id of the namespaces' first process.
name=$1
inner=$2
trap '' HUP INT TERM PIPE
cd /

# Version 1 has a tree per controller, version 2 has one.
trees() {
    for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ ! -e "$tree/cgroup.procs" ] || echo "$tree"
    done
}

for tree in $(trees); do
    mkdir "$tree/$name" || exit 1
    if [ -e "$tree/$name/cpuset.mems" ] && [ -e "$tree/cgroup.clone_children" ]; then
        # A new group of version 1 has neither processors nor memory.
        echo 1 >"$tree/$name/cgroup.clone_children"
        cat "$tree/cpuset.cpus" >"$tree/$name/cpuset.cpus"
        cat "$tree/cpuset.mems" >"$tree/$name/cpuset.mems"
    fi
done
all=$(trees)
(
    for tree in $all; do echo 0 >"$tree/$name/cgroup.procs" || exit 1; done
    exec unshare --net --mount --uts --ipc --cgroup --pid --fork --kill-child --mount-proc --propagation private \
        /bin/sh -e "$inner" "$name" </dev/null
) &
outer=$!
first=
while [ -z "$first" ] && kill -0 $outer 2>/dev/null; do
    # Before, it is this program still.
    [ "$(cat /proc/$outer/comm 2>/dev/null)" != unshare ] || first=$(cat /proc/$outer/task/$outer/children 2>/dev/null)
    sleep 0.01
done
echo ${first:-failed}
cat >/dev/null

[ -z "$first" ] || kill -KILL $first 2>/dev/null
wait $outer 2>/dev/null
round=0
while [ $round -lt 100 ]; do
    left=
    for tree in $(trees); do
        # Only folders can be removed there, the inner ones first.
        [ ! -d "$tree/$name" ] || find "$tree/$name" -depth -type d -exec rmdir {} + 2>/dev/null
        [ ! -d "$tree/$name" ] || left=1
    done
    [ -n "$left" ] || exit 0
    round=$((round + 1))
    sleep 0.05
done
exit 1
