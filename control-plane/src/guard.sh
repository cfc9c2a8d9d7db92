# Guardian of one folder and of the processes that belong to it.
# Arguments: the folder (created here), and the token that marks its processes' environment.
# Waits until its standard input closes, which happens however its parent ends. Then kills the processes and removes the
# folder.
dir=$1
mark="BERTH_GUARD=$2"
trap '' HUP INT TERM PIPE # PIPE: the parent may end before it reads the line below
cd /
umask 077
mkdir -- "$dir" && mkdir -- "$dir/.guard" || exit 1
echo ready
cat >/dev/null

# Field 22 of /proc/PID/stat: pid and start time together identify a process, even when another one reuses the pid.
start_time() {
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    set -- ${stat##*) }
    shift 19
    echo "$1"
}
# A zombie has no exe, and PID 1 may reap it late, so a process without exe counts as dead.
alive() { [ -e "/proc/$1/exe" ] && [ "$(start_time "$1")" = "$2" ]; }

# After this rename, a process that was started but has not registered yet fails to register, and ends before it runs its
# program.
register="$dir/.closing"
mv -- "$dir/.guard" "$register" 2>/dev/null
round=0
# 500 rounds of 20 ms: a little longer than the parent waits.
while [ $round -lt 500 ]; do
    left=
    for entry in "$register"/*; do
        name=${entry##*/}
        if alive "${name%.*}" "${name#*.}"; then
            kill -KILL "${name%.*}" 2>/dev/null
            left=yes
        fi
    done
    # Descendants inherit the mark, whether or not they are registered, and also after their parent has ended.
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
