# Prints "NAME VERSION hold|free" for each of the packages that is completely installed.
apt_state() { # NAME...
    native=$(dpkg --print-architecture)
    dpkg-query -W -f '${Package} ${Architecture} ${db:Status-Status} ${db:Status-Eflag} ${db:Status-Want} ${Version}\n' "$@" 2>/dev/null |
        while read -r name arch status error want version; do
            case $arch in all | "$native") ;; *) continue ;; esac
            [ "$status $error" = "installed ok" ] || continue
            case $want in hold) ;; *) want=free ;; esac
            printf '%s %s %s\n' "$name" "$version" "$want"
        done
}
apt_present() { # NAME: whether more of it than its configuration is installed, completely or not
    case $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || :) in '' | not-installed | config-files) return 1 ;; esac
}
