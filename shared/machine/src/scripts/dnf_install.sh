have dnf && have rpm || die 81 "dnf and rpm: packages of kind dnf need a machine of the Fedora family"
begin dnf
printf '%s' "$PACKAGES" >"$tmp/wanted" # lines of name, version, and hold or free

offered() { # NAME: prints the versions that the repositories offer, one per line
    LC_ALL=C command dnf -q -C --disableplugin=versionlock --disableexcludes=all repoquery --qf 'berth %{epoch} %{version}-%{release}' "$1" 2>/dev/null 9>&- |
        sed -n 's/^berth 0 //p; s/^berth \([1-9][0-9]*\) /\1:/p' | sort -u
}
state_of() { # NAME VERSION: prints the state of this version, or else of the last of those that are installed
    dnf_state "$1" | awk -v version="$2" '{ last = $0 } $2 == version { print; found = 1; exit } END { if (!found && last != "") print last }'
}
# Sets $todo to the packages whose version differs, $names to their names, and $unknown to those of them that the
# repositories do not offer.
find_differences() {
    todo= names= unknown=
    while read -r name version hold; do
        set -- $(state_of "$name" "$version")
        if [ "${2:-}" = "$version" ]; then continue; fi
        todo="$todo $name=$version"
        names="$names $name"
        offered "$name" | grep -qxF "$version" || unknown="$unknown $name=$version"
    done <"$tmp/wanted"
}
refuse_unknown() {
    for one in $unknown; do
        [ "$stale" = no ] || { tail -n 6 "$tmp/update" >&2; die 87 "$one is not known to the machine, and not all of its repositories could be read"; }
        name=${one%%=*}
        fact package "$name" "${one#*=}"
        dnf -C --assumeno install "$name-${one#*=}" || tail -n 6 "$tmp/log" >&2
        die 86 "the machine's repositories offer: $(offered "$name" | tr '\n' ' ')"
    done
}
# Sets the holds as declared for packages that have their declared version, and restores those of the others. $held names the
# packages whose hold it changed.
set_holds() {
    held=
    while read -r name version hold; do
        set -- $(state_of "$name" "$version")
        [ -n "${3:-}" ] || continue
        if [ "$2" != "$version" ] && ! is_one_of "$name" "$was_held"; then continue; fi
        [ "$3" != "$hold" ] || continue
        held="$held $name"
        case $hold in
        hold) hold "$name" "$2" ;;
        free) free "$name" ;;
        esac
    done <"$tmp/wanted"
}

changed=no stale=no
find_differences
if [ -n "$unknown" ]; then
    dnf --refresh --setopt=skip_if_unavailable=0 makecache || stale=yes
    cp "$tmp/log" "$tmp/update"
    find_differences
    [ -z "$unknown" ] || refuse_unknown
fi
while read -r name version hold; do
    set -- $(state_of "$name" "$version")
    if [ -n "${1:-}" ]; then mark "$name" no; else mark "$name" yes; fi
done <"$tmp/wanted"
was_held=
if [ -n "$todo" ]; then
    changed=yes
    was_held=$(dnf_state $names | sed -n 's/ [^ ]* hold$//p' | tr '\n' ' ')
    free $names
    specs=
    for one in $todo; do specs="$specs ${one%%=*}-${one#*=}"; done
    if ! dnf install $specs; then
        cp "$tmp/log" "$tmp/failed"
        set_holds
        cp "$tmp/failed" "$tmp/log"
        fail_with_log 87
    fi
    for one in $todo; do
        name=${one%%=*}
        set -- $(state_of "$name" "${one#*=}")
        [ "${2:-}" = "${one#*=}" ] || { tail -n 6 "$tmp/log" >&2; die 87 "dnf succeeded, but rpm says that $name is ${2:-not installed}"; }
        fact installed "$name"
    done
fi
set_holds
[ -z "$held" ] || changed=yes
fact changed "$changed"
