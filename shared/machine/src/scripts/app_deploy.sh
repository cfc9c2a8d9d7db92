mkdir -p "$home/releases" "$service"
# The folder's physical path: the supervisor knows its processes by it.
service=$(cd "$service" && pwd -P)
lock "$home/.lock"
sweep "$home/releases"
release=$home/releases/$REVISION
changed=no

marker="revision=$REVISION
sha256=$SHA256"
if [ "$(cat "$release/.berth-release" 2>/dev/null || :)" != "$marker" ]; then
    obtain "$home/releases"
    printf '%s\n' "$marker" >"$tmp/content/.berth-release"
    if [ -d "$release" ]; then
        # The same revision with another artifact: the old one makes way, and may still be in use until the restart.
        mv -T "$release" "$tmp/replaced"
    fi
    mv -T "$tmp/content" "$release"
    changed=yes
fi

# Where people and other machines reach this one: what the machine says, else the address this session came in by.
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
    point "releases/$REVISION" "$home/current"
    changed=yes
fi
service_up "$changed"
[ "$acted" = no ] || changed=yes

# The newest releases stay for a way back; the current one always does.
kept=0
for old in $(ls -1t "$home/releases"); do
    [ "$old" != "$REVISION" ] || continue
    kept=$((kept + 1))
    [ "$kept" -le "$KEEP" ] || rm -rf "$home/releases/$old"
done
fact changed "$changed"
report
