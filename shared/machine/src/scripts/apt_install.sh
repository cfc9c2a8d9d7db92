have apt-get && have dpkg-query || die 81 "apt-get and dpkg-query: packages of kind apt need a Debian machine"
begin apt
printf '%s' "$PACKAGES" >"$tmp/wanted" # lines of name, version, and hold or free

# What the sources offer of a package, one version a line; what is only installed is not among it.
offered() { apt-cache madison "$1" 2>/dev/null | awk -F'|' '$3 !~ / Sources *$/ { gsub(/ /, "", $2); print $2 }' | sort -u; }
state_of() { apt_state "$1" | head -n 1; }
# Sets $todo to what differs in its version, as apt-get wants it, and $unknown to what the sources do not offer.
look() {
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
update() { # sets $stale to yes when not all sources could be read
    updated=yes stale=no
    apt update || stale=yes
    if grep -qE '^(W|E): (Failed to fetch|Some index files failed|The repository)' "$tmp/log"; then stale=yes; fi
    cp "$tmp/log" "$tmp/update"
}
refuse_unknown() {
    for one in $unknown; do
        [ "$stale" = no ] || { tail -n 6 "$tmp/update" >&2; die 87 "$one is not known to the machine, and not all of its sources could be read"; }
        name=${one%%=*}
        fact package "$name" "${one#*=}"
        apt -s install "$one" || tail -n 6 "$tmp/log" >&2
        die 86 "the machine's sources offer: $(offered "$name" | tr '\n' ' ')"
    done
}
# The holds are as declared, for what is installed in its version; the rest is as it was.
settle() {
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
    [ -z "$to_hold" ] || { manager apt-mark hold $to_hold || last_lines 87; }
    [ -z "$to_free" ] || { manager apt-mark unhold $to_free || last_lines 87; }
}

changed=no
heal
look
[ -z "$unknown" ] || { update; look; [ -z "$unknown" ] || refuse_unknown; }
fresh=
while read -r name version hold; do
    [ ! -f "$marks/$name" ] || continue
    # Written before it is installed: a machine that dies meanwhile must still know whose it is.
    if apt_present "$name"; then mark "$name" no; else mark "$name" yes && fresh="$fresh $name"; fi
done <"$tmp/wanted"
fail() { # with the last lines of the package manager, and everything else as it was
    cp "$tmp/log" "$tmp/failed"
    settle
    for name in $fresh; do apt_present "$name" || rm -f "$marks/$name"; done
    cp "$tmp/failed" "$tmp/log"
    last_lines 87
}
# Packages that others broke make apt-get fail after it has done all that was asked for: what is installed decides.
bring() {
    apt --allow-downgrades install $todo && return 0
    cp "$tmp/log" "$tmp/said"
    wanted=$todo
    look
    [ -n "$todo" ] || { todo=$wanted; return 0; }
    cp "$tmp/said" "$tmp/log"
    return 1
}
was_held=
if [ -n "$todo" ]; then
    changed=yes
    was_held=$(apt_state $names | sed -n 's/ [^ ]* hold$//p' | tr '\n' ' ')
    free $names
    if ! bring; then
        # An index that is out of date names files that are gone.
        [ "$updated" = no ] && grep -qE '^(E|W): (Failed to fetch|Unable to fetch)' "$tmp/log" || fail
        update
        look
        [ -z "$unknown" ] || { settle; refuse_unknown; }
        bring || fail
    fi
    for one in $todo; do
        name=${one%%=*}
        set -- $(state_of "$name")
        [ "${2:-}" = "${one#*=}" ] || die 87 "apt-get succeeded, but dpkg-query says that $name is ${2:-not installed}"
        fact installed "$name"
    done
fi
settle
[ -z "$to_hold$to_free" ] || changed=yes
fact changed "$changed"
