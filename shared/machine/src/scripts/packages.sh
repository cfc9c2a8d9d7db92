# Common to packages that are not archives. Marks: $managed/apt/NAME and $managed/dnf/NAME say with "yes" that Berth
# installed the package and with "no" that it was there before; $managed/script/NAME/ keeps version and remove command.
run_hook() { # NAME VERSION COMMAND
    BERTH_PACKAGE_NAME=$1 BERTH_PACKAGE_VERSION=$2 sh -euc "$3" </dev/null 9>&-
}
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@" </dev/null
    else
        have sudo || die 81 "sudo: the login is not root, and only root may install packages"
        sudo -n "$@" </dev/null
    fi
}
# A machine that is a process on its host (provider local) must not touch the host's packages.
no_guest() {
    [ -z "${BERTH_MACHINE_ID:-}" ] || die 88 "the machine is a process that shares its host's packages"
}
begin() { # KIND
    no_guest
    root=$(in_home "$ROOT")
    managed=$root/managed
    marks=$managed/$1
    mkdir -p "$marks"
    lock "$managed/.lock"
    tmp=$(mktemp -d "$managed/.tmp.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 143' HUP INT TERM
    give_up=$(($(date +%s) + LOCK_WAIT))
}
last_lines() { # STATUS: ends the step with the last lines of the package manager
    tail -n 12 "$tmp/log" >&2
    exit "$1"
}
# Runs a package manager as root; what it says is in $tmp/log. Waits for others who hold its locks: the programs' own
# waiting covers not all of their locks. File 9 is not passed on: a service that a package starts would keep it.
manager() {
    while :; do
        result=0
        as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive DEBIAN_PRIORITY=critical UCF_FORCE_CONFFOLD=1 \
            NEEDRESTART_MODE=l "$@" >"$tmp/log" 2>&1 9>&- || result=$?
        [ "$result" != 0 ] || return 0
        grep -qiE "$LOCKED" "$tmp/log" || return "$result"
        [ "$(date +%s)" -lt "$give_up" ] || last_lines 75
        sleep 1
    done
}
mark() { # NAME yes|no: only when there is none yet
    if [ ! -f "$marks/$1" ]; then
        printf '%s\n' "$2" >"$tmp/mark"
        mv "$tmp/mark" "$marks/$1"
    fi
}
is_one_of() { # NAME LIST
    case " $2 " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}
