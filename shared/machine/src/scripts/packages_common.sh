# Common to packages of package managers and script packages. Marks: $managed/apt/NAME and $managed/dnf/NAME contain "yes" if
# Berth installed the package, and "no" if it was already installed. $managed/script/NAME/ contains version and remove command.
run_hook() { # NAME VERSION COMMAND
    BERTH_PACKAGE_NAME=$1 BERTH_PACKAGE_VERSION=$2 sh -euc "$3" </dev/null 9>&-
}
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@" </dev/null
    else
        have sudo || die 81 "sudo: the login user is not root, and only root can install packages"
        sudo -n "$@" </dev/null
    fi
}
# A machine that is a process on its host (provider local) must not change the host's packages.
refuse_process() {
    [ -z "${BERTH_MACHINE_ID:-}" ] || die 88 "the machine is a process that shares its host's packages"
}
begin() { # KIND: sets $marks, $tmp and $deadline
    refuse_process
    managed=$root/managed
    marks=$managed/$1
    mkdir -p "$marks"
    tmp=$(mktemp -d "$managed/.tmp.XXXXXX")
    cleanup='rm -rf "$tmp"'
    deadline=$(($(date +%s) + LOCK_WAIT))
}
fail_with_log() { # STATUS: exits with the last lines of the package manager as the message
    tail -n 12 "$tmp/log" >&2
    exit "$1"
}
# Runs a package manager as root, with its output in $tmp/log. Waits while another process holds its locks, because the
# programs' own waiting does not cover all of them. File 9 is closed: a service that a package starts would keep it open,
# and with it the lock.
manager() {
    while :; do
        result=0
        as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive DEBIAN_PRIORITY=critical UCF_FORCE_CONFFOLD=1 \
            NEEDRESTART_MODE=l "$@" >"$tmp/log" 2>&1 9>&- || result=$?
        [ "$result" != 0 ] || return 0
        grep -qiE "$LOCKED" "$tmp/log" || return "$result"
        [ "$(date +%s)" -lt "$deadline" ] || fail_with_log 75
        sleep 1
    done
}
mark() { # NAME yes|no: writes the mark unless there is one
    if [ ! -f "$marks/$1" ]; then
        printf '%s\n' "$2" >"$tmp/mark"
        mv "$tmp/mark" "$marks/$1"
    fi
}
is_one_of() { # NAME LIST
    case " $2 " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}
