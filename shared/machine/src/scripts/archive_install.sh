home=$root/packages/$NAME
here=$home/$SHA256
mkdir -p "$home"
remove_leftovers "$home"

old_link=$(sed -n 's/^destination=//p' "$home/current/.berth-package" 2>/dev/null || :)

is_linked() { [ -z "$DESTINATION" ] || [ "$(readlink "$(in_home "$DESTINATION")" 2>/dev/null || :)" = "$home/current" ]; }
if [ "$(cat "$home/current/.berth-package" 2>/dev/null || :)" = "$MARKER" ] &&
    [ "$(readlink "$home/current")" = "$SHA256" ] && is_linked; then
    if [ "$(cat "$here/.berth-remove" 2>/dev/null || :)" = "$REMOVE" ]; then
        fact changed no
    else
        printf '%s' "$REMOVE" >"$here/.berth-remove.new"
        mv "$here/.berth-remove.new" "$here/.berth-remove"
        fact changed yes
    fi
    exit 0
fi

if [ -n "$DESTINATION" ]; then
    link=$(in_home "$DESTINATION")
    if [ -e "$link" ] && [ ! -L "$link" ]; then die 73 "$link exists and is not a link of package $NAME; remove it, or declare another destination"; fi
    if [ -L "$link" ] && ! is_linked; then die 73 "$link points to $(readlink "$link"), not to package $NAME; remove it, or declare another destination"; fi
fi

# The marker is written last: a folder without it is an interrupted installation and is installed again.
if [ "$(cat "$here/.berth-package" 2>/dev/null || :)" != "$MARKER" ]; then
    if [ ! -f "$here/.berth-package" ]; then
        rm -rf "$here"
        fetch "$home"
        mv -T "$tmp/content" "$here"
        if [ -n "$INSTALL" ]; then
            fact hook install
            (cd "$here" && sh -euc "$INSTALL" 9>&- >&2) || die 85 "$(printf 'status %s' $?)"
        fi
    fi
    printf '%s' "$REMOVE" >"$here/.berth-remove"
    printf '%s\n' "$MARKER" >"$here/.berth-package.new"
    mv "$here/.berth-package.new" "$here/.berth-package"
fi
switch_link "$SHA256" "$home/current"
if [ -n "$DESTINATION" ]; then
    mkdir -p "$(dirname "$link")"
    switch_link "$home/current" "$link"
fi
if [ -n "$old_link" ] && [ "$old_link" != "$DESTINATION" ]; then
    old_link=$(in_home "$old_link")
    [ "$(readlink "$old_link" 2>/dev/null || :)" != "$home/current" ] || rm -f "$old_link"
fi
for other in "$home"/*; do
    case $other in
    "$here" | "$home/current") ;;
    *) rm -rf "$other" ;;
    esac
done
fact changed yes
