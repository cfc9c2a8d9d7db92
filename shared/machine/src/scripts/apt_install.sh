have apt-get && have dpkg-query || die 81 "apt-get and dpkg-query: packages of kind apt need a Debian machine"
begin apt
printf '%s' "$PACKAGES" >"$tmp/wanted" # lines of name, version, and hold or free

# Prints the versions of a package that the repositories offer, one per line. An installed version that no repository offers
# is not among them.
offered() { apt-cache madison "$1" 2>/dev/null | awk -F'|' '$3 !~ / Sources *$/ { gsub(/ /, "", $2); print $2 }' | sort -u; }
state_of() { apt_state "$1" | head -n 1; }
# Sets $todo to the packages whose version differs, as arguments for apt-get, $names to their names, and $unknown to those of
# them that the repositories do not offer.
find_differences() {
    todo= names= unknown=
    while read -r name version hold; do
        set -- $(state_of "$name")
        if [ "${2:-}" = "$version" ]; then continue; fi
        todo="$todo $name=$version"
        names="$names $name"
        offered "$name" | grep -qxF "$version" || unknown="$unknown $name=$version"
    done <"$tmp/wanted"
}
updated=no
update() { # refreshes the index; sets $stale to yes if not all repositories could be read
    updated=yes stale=no
    apt update || stale=yes
    if grep -qE '^(W|E): (Failed to fetch|Some index files failed|The repository)' "$tmp/log"; then stale=yes; fi
    cp "$tmp/log" "$tmp/update"
}
refuse_unknown() {
    for one in $unknown; do
        [ "$stale" = no ] || { tail -n 6 "$tmp/update" >&2; die 87 "$one is not known to the machine, and not all of its repositories could be read"; }
        name=${one%%=*}
        fact package "$name" "${one#*=}"
        apt -s install "$one" || tail -n 6 "$tmp/log" >&2
        die 86 "the machine's repositories offer: $(offered "$name" | tr '\n' ' ')"
    done
}
# Sets the holds as declared for packages that have their declared version, and restores those of the others.
set_holds() {
    to_hold= to_free=
    while read -r name version hold; do
        set -- $(state_of "$name")
        [ -n "${3:-}" ] || continue
        if [ "$2" != "$version" ] && ! is_one_of "$name" "$was_held"; then continue; fi
        [ "$3" = "$hold" ] || case $hold in
        hold) to_hold="$to_hold $name" ;;
        free) to_free="$to_free $name" ;;
        esac
    done <"$tmp/wanted"
    [ -z "$to_hold" ] || { manager apt-mark hold $to_hold || fail_with_log 87; }
    [ -z "$to_free" ] || { manager apt-mark unhold $to_free || fail_with_log 87; }
}

changed=no
complete_interrupted_run
find_differences
[ -z "$unknown" ] || { update; find_differences; [ -z "$unknown" ] || refuse_unknown; }
fresh=
while read -r name version hold; do
    [ ! -f "$marks/$name" ] || continue
    # Before the installation: a machine that crashes meanwhile must still know whether the package is Berth's.
    if apt_present "$name"; then mark "$name" no; else mark "$name" yes && fresh="$fresh $name"; fi
done <"$tmp/wanted"
fail() { # restores holds and marks, and exits with the last lines of the package manager
    cp "$tmp/log" "$tmp/failed"
    set_holds
    for name in $fresh; do apt_present "$name" || rm -f "$marks/$name"; done
    cp "$tmp/failed" "$tmp/log"
    fail_with_log 87
}
# Installs $todo. Other broken packages make apt-get fail although it has installed everything: what is installed decides.
install_todo() {
    apt --allow-downgrades install $todo && return 0
    cp "$tmp/log" "$tmp/install"
    wanted=$todo
    find_differences
    [ -n "$todo" ] || { todo=$wanted; return 0; }
    cp "$tmp/install" "$tmp/log"
    return 1
}
was_held=
if [ -n "$todo" ]; then
    changed=yes
    was_held=$(apt_state $names | sed -n 's/ [^ ]* hold$//p' | tr '\n' ' ')
    free $names
    if ! install_todo; then
        # An outdated index names files that are gone.
        [ "$updated" = no ] && grep -qE '^(E|W): (Failed to fetch|Unable to fetch)' "$tmp/log" || fail
        update
        find_differences
        [ -z "$unknown" ] || { set_holds; refuse_unknown; }
        install_todo || fail
    fi
    for one in $todo; do
        name=${one%%=*}
        set -- $(state_of "$name")
        [ "${2:-}" = "${one#*=}" ] || die 87 "apt-get succeeded, but dpkg-query says that $name is ${2:-not installed}"
        fact installed "$name"
    done
fi
set_holds
[ -z "$to_hold$to_free" ] || changed=yes
fact changed "$changed"
