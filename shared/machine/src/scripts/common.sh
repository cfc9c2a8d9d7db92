# Common to all operations. The exit statuses are those of operation.rs. The parameters are set already.
set -eu
umask 022

fact() { printf 'fact %s\n' "$*"; }
die() { # STATUS MESSAGE
    status=$1
    shift
    printf '%s\n' "$*" >&2
    exit "$status"
}
have() { command -v "$1" >/dev/null 2>&1; }
in_home() { # PATH: prints the absolute form of a path that may be relative to the home
    case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s/%s' "${HOME:?HOME is not set}" "$1" ;;
    esac
}

# Sets $found to the processes of this script's process group, the watchdog excepted. Without a subshell, which would be one.
find_processes() {
    found=
    for stat in /proc/[0-9]*/stat; do
        read -r line <"$stat" || continue
        pid=${stat#/proc/}
        pid=${pid%/stat}
        set -- ${line##*) } # state, parent, process group
        if [ "$3" = "$$" ] && [ "$1" != Z ] && [ "$pid" != "$own" ]; then found="$found $pid"; fi
    done
}
send() { # SIGNAL: to the processes found; those of sudo belong to root
    kill "-$1" $found || { have sudo && sudo -n kill "-$1" $found; }
}
# A script ends with its client: its standard input stays open until the connection has ended, and then nothing of the script may
# go on, because the next holder of the Server's lock may be at work. The watchdog holds the machine's lock, too, so that nobody
# else begins while anything of this script still runs.
watch() {
    set +e
    trap '' HUP INT TERM
    read -r own _ </proc/self/stat
    while read -r _; do :; done
    pauses='0.1 0.1 0.2 0.5 1 1 1'
    signal=TERM
    while find_processes && [ -n "$found" ]; do
        send "$signal"
        signal=0 # nothing but a look, until the time to end is over
        sleep "${pauses%% *}"
        case $pauses in
        *' '*) pauses=${pauses#* } ;;
        *) signal=KILL ;;
        esac
    done
}
cleanup=:
finish() {
    status=$?
    eval "$cleanup"
    # After a signal the watchdog has to end what else is left.
    if [ "$status" != 143 ]; then
        kill -KILL "$watchdog"
        wait "$watchdog"
    fi 2>/dev/null || :
    exit "$status"
}
read -r _ _ _ _ group _ </proc/$$/stat
[ "$group" = $$ ] || die 81 "setsid (util-linux or busybox), so that a script can be ended with all its processes"

# One lock for everything that changes the machine: file 9. What only reads takes it together with others, so that it sees nothing
# half done. It reads without the lock where nothing was ever changed.
case $LOCK in
exclusive | shared) root=$(in_home "$ROOT") ;;
esac
case $LOCK in
exclusive)
    have flock || die 81 "flock (util-linux or busybox), so that only one script at a time changes the machine"
    mkdir -p "$root"
    exec 9>>"$root/.lock"
    ;;
shared) if [ -e "$root/.lock" ]; then exec 9<"$root/.lock"; else LOCK=none; fi ;;
esac
exec 3<&0 </dev/null
watch <&3 >/dev/null 2>&1 &
watchdog=$!
exec 3<&-
trap finish EXIT
trap 'exit 143' HUP INT TERM
case $LOCK in
exclusive) flock -w "$LOCK_SECONDS" 9 || die 75 "$root/.lock" ;;
shared) flock -s -w "$LOCK_SECONDS" 9 || die 75 "$root/.lock" ;;
esac
