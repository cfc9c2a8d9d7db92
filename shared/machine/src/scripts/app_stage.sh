# Brings a release to the machine ahead of its deployment, while the application serves. Its lock is not that of what changes the
# machine but one of its own, and $root is its folder, $home/staging: nothing outside of it is changed, so it may run whatever else does.
home=${root%/staging}
# When the client is gone, what the shell says about that must not end it before it has deleted what was downloaded.
trap '' PIPE
remove_leftovers "$root"
is_there() { is_release "$home/releases/$REVISION" || is_release "$root/release"; }
changed=no
if ! is_there; then
    # The application goes first.
    { renice -n 19 -p $$ && ionice -c 3 -p $$; } >/dev/null 2>&1 || :
    fetch "$root"
    printf '%s\n' "$marker" >"$tmp/content/.berth-release"
    # It may have been deployed meanwhile.
    if ! is_there; then
        # By renames, because a deployment may take either of them at any moment, and must not get a part of it.
        mv -T "$root/release" "$tmp/earlier" 2>/dev/null || :
        mv -T "$tmp/content" "$root/release"
        changed=yes
    fi
fi
fact changed "$changed"
