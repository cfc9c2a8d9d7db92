managed=$root/managed
home=$managed/script/$NAME
if [ ! -d "$home" ]; then
    fact removed no
    exit 0
fi
version=$(cat "$home/version" 2>/dev/null || :)
remove=$(cat "$home/remove" 2>/dev/null || :)
removed=no
if [ -n "$remove" ]; then
    fact hook remove
    run_hook "$NAME" "$version" "$remove" >&2 || die 85 "$(printf 'status %s' $?)"
    removed=yes
else
    fact kept "it has no remove command"
fi
rm -rf "$home"
fact removed "$removed"
