# Common to all operations. The exit statuses are those of operation.rs.
set -eu
umask 022
eval "$(cat)" # standard input holds the parameters, as assignments
exec </dev/null

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
# One run at a time: a run whose connection broke may still be working here. File 9 holds the lock until the script ends.
lock() { # FILE
    have flock || return 0
    exec 9>>"$1"
    flock -w "$LOCK_SECONDS" 9 || die 75 "$1 is locked by another run"
}
