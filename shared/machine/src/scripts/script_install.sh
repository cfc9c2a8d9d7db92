managed=$root/managed
home=$managed/script/$NAME
mkdir -p "$managed/script"
write() { # FILE CONTENT
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}
write_mark() {
    mkdir -p "$home"
    write "$home/remove" "$REMOVE"
    write "$home/version" "$VERSION"
}
changed=no
if run_hook "$NAME" "$VERSION" "$CHECK" >/dev/null 2>&1; then
    # Without a mark somebody else has installed it, so Berth must not remove it.
    [ ! -d "$home" ] || write_mark
else
    changed=yes
    # Before the installation, so that an interrupted one can be removed.
    write_mark
    fact hook install
    run_hook "$NAME" "$VERSION" "$INSTALL" >&2 || die 85 "$(printf 'status %s' $?)"
    run_hook "$NAME" "$VERSION" "$CHECK" >&2 || die 89 "the check failed with status $? although the install command succeeded"
fi
fact changed "$changed"
