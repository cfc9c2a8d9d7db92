# What dnf and rpm say when another process holds a lock.
LOCKED='waiting for process with pid|another instance of|is currently locked by another|transaction lock|resource temporarily unavailable'
conf=/etc/dnf/dnf.conf
dnf() { manager dnf -y -q --setopt=exit_on_lock=1 --setopt=install_weak_deps=0 "$@"; }
write_as_root() { # FILE SOURCE
    as_root cp "$2" "$1.berth" && as_root mv "$1.berth" "$1"
}
# Without the plugin a package is held by excluding it. Berth writes the list on one line; a list over several lines was
# written by a person.
set_excluded() { # NAMES
    awk -v names="$1" '
        /^[[:space:]]*excludepkgs[[:space:]]*=/ { next }
        { print }
        /^[[:space:]]*\[main\]/ { main = 1; if (names != "") print "excludepkgs=" names }
        END { if (!main && names != "") { print "[main]"; print "excludepkgs=" names } }' "$conf" 2>/dev/null >"$tmp/conf" || :
    write_as_root "$conf" "$tmp/conf"
}
excluded() { # prints the excluded names
    sed -n 's/^[[:space:]]*excludepkgs[[:space:]]*=//p' "$conf" 2>/dev/null | tr ',\n' '  ' || :
}
free() { # NAME...: removes their holds
    list=$(lock_list)
    for name in "$@"; do
        if [ -n "$list" ] && [ -f "$list" ]; then
            # An entry is NAME-EPOCH:VERSION-RELEASE.ARCH
            awk -v name="$name" '
                { rest = substr($0, length(name) + 1) }
                index($0, name "-") == 1 && rest ~ /^-[0-9]+:[^:-]+-[^:-]+\.[^.-]+$/ { next }
                { print }' "$list" >"$tmp/list"
            cmp -s "$tmp/list" "$list" || write_as_root "$list" "$tmp/list"
        fi
        others= found=no
        for one in $(excluded); do
            if [ "$one" = "$name" ]; then found=yes; else others="$others${others:+ }$one"; fi
        done
        [ "$found" = no ] || set_excluded "$others"
    done
}
hold() { # NAME [EPOCH:]VERSION: holds it at this version
    list=$(lock_list)
    case $2 in *:*) full=$2 ;; *) full=0:$2 ;; esac
    if [ -n "$list" ]; then
        { cat "$list" 2>/dev/null || :; printf '%s-%s.*\n' "$1" "$full"; } >"$tmp/list"
        write_as_root "$list" "$tmp/list"
    else
        set_excluded "$(printf '%s %s' "$(excluded)" "$1" | tr -s ' ' | sed 's/^ //; s/ $//')"
    fi
}
