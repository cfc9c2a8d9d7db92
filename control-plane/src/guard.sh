# Guardian of one folder and of the processes that belong to it.
# Arguments: the folder (created here), and the token that marks its processes' environment.
# Lives until its standard input ends, which happens however its parent dies; then kills the processes and removes the
# folder.
dir=$1
mark="BERTH_GUARD=$2"
trap '' HUP INT TERM PIPE # PIPE: the parent may die before it reads the answer below
cd /
umask 077
mkdir -- "$dir" && mkdir -- "$dir/.guard" || exit 1
echo ready
cat >/dev/null

# Field 22 of /proc/PID/stat: together with the pid it names a process for good, also after the pid is used again.
start_time() {
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    set -- ${stat##*) }
    shift 19
    echo "$1"
}
# A zombie has no exe, and PID 1 may reap late: what has no exe is dead.
alive() { [ -e "/proc/$1/exe" ] && [ "$(start_time "$1")" = "$2" ]; }

# Once the register is renamed, a process that was started but has not registered yet cannot register any more, and
# ends before it runs its program.
register="$dir/.closing"
mv -- "$dir/.guard" "$register" 2>/dev/null
round=0
while [ $round -lt 500 ]; do
    left=
    for entry in "$register"/*; do
        name=${entry##*/}
        if alive "${name%.*}" "${name#*.}"; then
            kill -KILL "${name%.*}" 2>/dev/null
            left=yes
        fi
    done
    # Descendants inherit the mark, whether or not they were registered and whoever their parent is now.
    for file in $(grep -ls -- "$mark" /proc/[0-9]*/environ 2>/dev/null); do
        pid=${file#/proc/}
        kill -KILL "${pid%/environ}" 2>/dev/null
        left=yes
    done
    [ -z "$left" ] && rm -rf -- "$dir" 2>/dev/null && exit 0
    round=$((round + 1))
    sleep 0.02
done
exit 1
