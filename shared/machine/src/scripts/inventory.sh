# Reports what is installed, of all kinds at once: declared packages, and packages that Berth has left a mark for.
managed=$root/managed
report_boot

report_archives
i=0
while [ "$i" -lt "$ARCHIVES" ]; do
    eval "name=\$ARCHIVE_${i}_NAME marker=\$ARCHIVE_${i}_MARKER destination=\$ARCHIVE_${i}_DESTINATION remove=\$ARCHIVE_${i}_REMOVE"
    current=$root/packages/$name/current
    if [ "$(cat "$current/.berth-package" 2>/dev/null || :)" = "$marker" ] &&
        [ "$(cat "$current/.berth-remove" 2>/dev/null || :)" = "$remove" ] &&
        { [ -z "$destination" ] || [ "$(readlink "$(in_home "$destination")" 2>/dev/null || :)" = "$current" ]; }; then
        fact right "$name"
    fi
    i=$((i + 1))
done

# Packages of a package manager: declared ones, and those with a mark.
marked() { # KIND: prints the names of packages with a mark
    for mark in "$managed/$1"/*; do
        [ ! -f "$mark" ] || printf '%s\n' "${mark##*/}"
    done
}
own() { # KIND NAME: prints the mark, or - without one
    if [ -f "$managed/$1/$2" ]; then cat "$managed/$1/$2"; else echo -; fi
}
names=$({ printf '%s' "$APT"; marked apt; } | sort -u)
if [ -n "$names" ]; then
    have dpkg-query || [ -z "$APT" ] || die 81 "dpkg-query: packages of kind apt need a Debian machine"
    apt_state $names | while read -r name version want; do
        fact apt "$name" "$version" "$want" "$(own apt "$name")"
    done
    for name in $(marked apt); do fact mark apt "$name" "$(own apt "$name")"; done
fi
names=$({ printf '%s' "$DNF"; marked dnf; } | sort -u)
if [ -n "$names" ]; then
    have rpm || [ -z "$DNF" ] || die 81 "rpm: packages of kind dnf need a machine of the Fedora family"
    dnf_state $names | while read -r name version want; do
        fact dnf "$name" "$version" "$want" "$(own dnf "$name")"
    done
    for name in $(marked dnf); do fact mark dnf "$name" "$(own dnf "$name")"; done
fi

# Script packages: the check decides whether a version is installed; the mark says which one was installed last.
for mark in "$managed"/script/*; do
    [ -f "$mark/version" ] || continue
    fact mark script "${mark##*/}" "$(cat "$mark/version")"
done
i=0
while [ "$i" -lt "$SCRIPTS" ]; do
    eval "name=\$SCRIPT_${i}_NAME version=\$SCRIPT_${i}_VERSION check=\$SCRIPT_${i}_CHECK remove=\$SCRIPT_${i}_REMOVE"
    mark=$managed/script/$name
    if run_hook "$name" "$version" "$check" >/dev/null 2>&1; then
        fact script "$name" "$version"
        if [ ! -d "$mark" ] ||
            { [ "$(cat "$mark/version" 2>/dev/null || :)" = "$version" ] &&
                [ "$(cat "$mark/remove" 2>/dev/null || :)" = "$remove" ]; }; then
            fact right "$name"
        fi
    fi
    i=$((i + 1))
done
