home=$root/packages/$NAME
if [ ! -d "$home" ]; then
    fact changed no
    exit 0
fi
current=$home/current
if [ -f "$current/.berth-package" ]; then
    if [ -s "$current/.berth-remove" ]; then
        fact hook remove
        (cd -P "$current" && sh -eu ./.berth-remove 9>&- >&2) || die 85 "$(printf 'status %s' $?)"
    fi
    link=$(sed -n 's/^destination=//p' "$current/.berth-package")
    if [ -n "$link" ]; then
        link=$(in_home "$link")
        [ "$(readlink "$link" 2>/dev/null || :)" != "$current" ] || rm -f "$link"
    fi
fi
rm -f "$current"
rm -rf "$home"
fact changed yes
