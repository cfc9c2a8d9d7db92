mkdir -p "$home/releases" "$service"
# The physical path: the supervisor identifies its processes by it.
service=$(cd "$service" && pwd -P)
remove_leftovers "$home/releases"
release=$home/releases/$REVISION

# $home/proven lists the releases that ran well here, as revision and SHA-256, the latest last. A release whose files were replaced
# under the same revision has another SHA-256.
sha256_of() { sed -n 's/^sha256=//p' "$home/releases/$1/.berth-release" 2>/dev/null || :; } # REVISION
list_proven() {
    [ -f "$home/proven" ] || return 0
    while read -r known sum; do
        if [ "$(sha256_of "$known")" = "$sum" ]; then printf '%s %s\n' "$known" "$sum"; fi
    done <"$home/proven"
}
is_proven() { list_proven | grep -qxF "$1 $(sha256_of "$1")"; } # REVISION
if [ -n "$PROVEN" ] && [ "$(readlink "$home/current" 2>/dev/null || :)" = "releases/$PROVEN" ]; then
    proven="$PROVEN $(sha256_of "$PROVEN")"
    others=$(list_proven | grep -vxF "$proven" || :)
    write_if_changed "$home/proven" "${others:+$others
}$proven" 644
fi

changed=no
restart() { # before each change of what is started: until the restart, nobody may take it for what runs
    rm -f "$service/started"
    changed=yes
}
[ -s "$service/started" ] && [ "$(started_parts)" = "$(parts)" ] || restart

# A program and an archive may be the same file, but not the same release.
marker="revision=$REVISION
sha256=$SHA256"
[ "$FORMAT" != Binary ] || marker="$marker
format=Binary"
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
# Secret variables are in a file that only the user who runs the application may read. An application without them starts as
# it always did, so that an upgrade of Berth restarts nothing.
secrets=
if [ -n "$SECRETS" ]; then
    secrets="
. '$service/secrets'"
    if [ "$(cat "$service/secrets" 2>/dev/null || :)" != "$SECRETS" ]; then
        restart
        write_if_changed "$service/secrets" "$SECRETS" 600
    fi
elif [ -e "$service/secrets" ]; then
    restart
    rm -f "$service/secrets"
fi
run="#!/bin/sh
# Written by Berth; changes are overwritten.
PATH=\${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
BERTH_MACHINE_ADDRESS='$address'
BERTH_APP_REVISION='$REVISION'
export PATH BERTH_MACHINE_ADDRESS BERTH_APP_REVISION
$ENVIRONMENT$secrets
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

# Keeps earlier releases for a rollback: those that ran well, the latest first, then others. The last one that ran well stays always.
earlier() {
    list_proven | cut -d ' ' -f 1 | sed '1!G;h;$!d'
    for old in $(ls -1t "$home/releases"); do
        if ! is_proven "$old"; then printf '%s\n' "$old"; fi
    done
}
kept=0
for old in $(earlier); do
    if [ "$old" = "$REVISION" ]; then continue; fi
    kept=$((kept + 1))
    if [ "$kept" -gt "$KEEP" ] && { [ "$kept" -gt 1 ] || ! is_proven "$old"; }; then rm -rf "$home/releases/$old"; fi
done
fact changed "$changed"
report_app
