root=$(in_home "$ROOT")
managed=$root/managed
home=$managed/script/$NAME
mkdir -p "$managed/script"
lock "$managed/.lock"
put() { # FILE CONTENT
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}
remember() {
    mkdir -p "$home"
    put "$home/remove" "$REMOVE"
    put "$home/version" "$VERSION"
}
changed=no
if run_hook "$NAME" "$VERSION" "$CHECK" >/dev/null 2>&1; then
    # What somebody else has installed is not Berth's to remove.
    [ ! -d "$home" ] || remember
else
    changed=yes
    # Before it is installed: what broke off half-way can be removed.
    remember
    fact hook install
    run_hook "$NAME" "$VERSION" "$INSTALL" >&2 || die 85 "$(printf 'status %s' $?)"
    run_hook "$NAME" "$VERSION" "$CHECK" >&2 || die 89 "the check fails with status $? after the install command has succeeded"
fi
fact changed "$changed"
