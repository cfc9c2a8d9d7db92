# A release that was brought to the machine ahead of its deployment: $home/staging/release, at most one. Whoever puts it there or deletes
# it has the lock $home/staging/.lock. A deployment takes it without that lock, by a rename: so it gets all of it or nothing.

# A program and an archive may be the same file, but not the same release.
marker="revision=$REVISION
sha256=$SHA256"
[ "$FORMAT" != Binary ] || marker="$marker
format=Binary"
is_release() { [ "$(cat "$1/.berth-release" 2>/dev/null || :)" = "$marker" ]; } # FOLDER
# Moves it to $tmp/content, if it is the release that is wanted. It is looked at again there, because another one may have come.
take_staged() {
    is_release "$home/staging/release" || return 1
    tmp=$(mktemp -d "$home/releases/.tmp.XXXXXX") || return 1
    cleanup='rm -rf "$tmp"'
    # Its age counts from now on.
    mv -T "$home/staging/release" "$tmp/content" 2>/dev/null && is_release "$tmp/content" && touch "$tmp/content" && return 0
    rm -rf "$tmp"
    return 1
}
# Deletes what was brought ahead and is deployed, or not any more, and what was left half done. What is being brought now stays.
drop_staged() {
    [ -d "$home/staging" ] || return 0
    (
        flock -n 8 || exit 0
        remove_leftovers "$home/staging"
        rm -rf "$home/staging/release"
    ) 8>>"$home/staging/.lock"
}
