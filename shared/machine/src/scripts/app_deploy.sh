mkdir -p "$home/releases" "$service"
# The physical path: the supervisor identifies its processes by it.
service=$(cd "$service" && pwd -P)
remove_leftovers "$home/releases"
release=$home/releases/$REVISION
changed=no
restart() { # before each change of what is started: until the restart, nobody may take it for what runs
    rm -f "$service/started"
    changed=yes
}
[ -s "$service/started" ] && [ "$(started_parts)" = "$(parts)" ] || restart

marker="revision=$REVISION
sha256=$SHA256"
if [ "$(cat "$release/.berth-release" 2>/dev/null || :)" != "$marker" ]; then
    fetch "$home/releases"
    restart
    printf '%s\n' "$marker" >"$tmp/content/.berth-release"
    if [ -d "$release" ]; then
        # The same revision with another artifact. The old files are moved aside: they may be in use until the restart.
        mv -T "$release" "$tmp/replaced"
    fi
    mv -T "$tmp/content" "$release"
fi

# The address under which others reach this machine: the one in the environment, else the one that this session came in on.
address=${BERTH_MACHINE_ADDRESS:-}
if [ -z "$address" ] && [ -n "${SSH_CONNECTION:-}" ]; then
    address=${SSH_CONNECTION% *}
    address=${address##* }
fi
run="#!/bin/sh
# Written by Berth; changes are overwritten.
PATH=\${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
BERTH_MACHINE_ADDRESS='$address'
BERTH_APP_REVISION='$REVISION'
export PATH BERTH_MACHINE_ADDRESS BERTH_APP_REVISION
$ENVIRONMENT
cd -P '$home/current' || exit 1
exec $COMMAND"
if [ "$(cat "$service/run" 2>/dev/null || :)" != "$run" ]; then
    restart
    write_if_changed "$service/run" "$run" 700
fi

if [ "$(readlink "$home/current" 2>/dev/null || :)" != "releases/$REVISION" ]; then
    restart
    switch_link "releases/$REVISION" "$home/current"
fi
start_service "$changed"
[ "$started" = no ] || changed=yes
write_if_changed "$service/started" "digest=$DIGEST
$(parts)" 600

# Keeps the newest releases for a rollback, and always the current one.
kept=0
for old in $(ls -1t "$home/releases"); do
    [ "$old" != "$REVISION" ] || continue
    kept=$((kept + 1))
    [ "$kept" -le "$KEEP" ] || rm -rf "$home/releases/$old"
done
fact changed "$changed"
report_app
