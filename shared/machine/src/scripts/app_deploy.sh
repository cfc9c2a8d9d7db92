mkdir -p "$home/releases" "$service"
# The physical path: the supervisor identifies its processes by it.
service=$(cd "$service" && pwd -P)
lock "$home/.lock"
remove_leftovers "$home/releases"
release=$home/releases/$REVISION
changed=no

marker="revision=$REVISION
sha256=$SHA256"
if [ "$(cat "$release/.berth-release" 2>/dev/null || :)" != "$marker" ]; then
    fetch "$home/releases"
    printf '%s\n' "$marker" >"$tmp/content/.berth-release"
    if [ -d "$release" ]; then
        # The same revision with another artifact. The old files are moved aside: they may be in use until the restart.
        mv -T "$release" "$tmp/replaced"
    fi
    mv -T "$tmp/content" "$release"
    changed=yes
fi

# The address under which others reach this machine: the one in the environment, else the one that this session came in on.
address=${BERTH_MACHINE_ADDRESS:-}
if [ -z "$address" ] && [ -n "${SSH_CONNECTION:-}" ]; then
    address=${SSH_CONNECTION% *}
    address=${address##* }
fi
write_if_changed "$service/run" "#!/bin/sh
# Written by Berth; changes are overwritten.
PATH=\${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
BERTH_MACHINE_ADDRESS='$address'
BERTH_APP_REVISION='$REVISION'
export PATH BERTH_MACHINE_ADDRESS BERTH_APP_REVISION
$ENVIRONMENT
cd -P '$home/current' || exit 1
exec $COMMAND" 700
[ "$written" = no ] || changed=yes

if [ "$(readlink "$home/current" 2>/dev/null || :)" != "releases/$REVISION" ]; then
    switch_link "releases/$REVISION" "$home/current"
    changed=yes
fi
start_service "$changed"
[ "$started" = no ] || changed=yes

# Keeps the newest releases for a rollback, and always the current one.
kept=0
for old in $(ls -1t "$home/releases"); do
    [ "$old" != "$REVISION" ] || continue
    kept=$((kept + 1))
    [ "$kept" -le "$KEEP" ] || rm -rf "$home/releases/$old"
done
fact changed "$changed"
report_app
