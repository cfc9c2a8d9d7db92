root=$(in_home "$ROOT")
home=$root/packages/$NAME
here=$home/$SHA256
mkdir -p "$home"
lock "$home/.lock"
sweep "$home"

marker=$MARKER
old_link=$(sed -n 's/^destination=//p' "$home/current/.berth-package" 2>/dev/null || :)

placed() { [ -z "$DESTINATION" ] || [ "$(readlink "$(in_home "$DESTINATION")" 2>/dev/null || :)" = "$home/current" ]; }
if [ "$(cat "$home/current/.berth-package" 2>/dev/null || :)" = "$marker" ] &&
    [ "$(readlink "$home/current")" = "$SHA256" ] && placed; then
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
    if [ -e "$link" ] && [ ! -L "$link" ]; then die 73 "$link exists and is no link of package $NAME"; fi
    if [ -L "$link" ] && ! placed; then die 73 "$link points to $(readlink "$link"), not to package $NAME"; fi
fi

# The marker is written last: a folder without one is a broken-off installation and is done again.
if [ "$(cat "$here/.berth-package" 2>/dev/null || :)" != "$marker" ]; then
    if [ ! -f "$here/.berth-package" ]; then
        rm -rf "$here"
        obtain "$home"
        mv -T "$tmp/content" "$here"
        if [ -n "$INSTALL" ]; then
            fact hook install
            (cd "$here" && sh -euc "$INSTALL" 9>&- >&2) || die 85 "$(printf 'status %s' $?)"
        fi
    fi
    printf '%s' "$REMOVE" >"$here/.berth-remove"
    printf '%s\n' "$marker" >"$here/.berth-package.new"
    mv "$here/.berth-package.new" "$here/.berth-package"
fi
point "$SHA256" "$home/current"
if [ -n "$DESTINATION" ]; then
    mkdir -p "$(dirname "$link")"
    point "$home/current" "$link"
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
