mkdir -p "$home/releases" "$service"
# The physical path: the supervisor identifies its processes by it.
service=$(cd "$service" && pwd -P)
remove_leftovers "$home/releases"
remove_leftovers "$service"
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

# First everything is made ready beside what runs, so that an artifact or a declaration that cannot be used touches no service.
content=$release
if ! is_release "$release"; then
    if ! take_staged; then
        fetch "$home/releases"
        printf '%s\n' "$marker" >"$tmp/content/.berth-release"
    fi
    # The same revision with another artifact has its turn when the service is stopped.
    content=$tmp/content
fi
check_user
check_program "$content"
next=$(mktemp -d "$service/.tmp.XXXXXX")
cleanup='rm -rf "${tmp:-}" "$next"'
write_start "$next"
check_files "$content" "$next"

changed=yes
if is_deployed && [ "$content" = "$release" ] && [ "$(readlink "$home/current")" = "releases/$REVISION" ] &&
    [ "$(start_parts "$next")" = "$(start_parts "$service")" ]; then
    changed=no
fi
if [ "$changed" = yes ]; then
    pre_stop
    stop_others
    keep_way_back
    # Before the first change of what is started: until the start, nobody may take it for what runs.
    rm -f "$service/started"
    stop_service
    install_release
    install_files "$next" $START_FILES
    place_files "$release"
    switch_link "releases/$REVISION" "$home/current"
fi
install_files "$next" $STOP_FILES
service_pid
if [ "$changed" = yes ] || [ -z "$pid" ]; then
    changed=yes
    run_hook preStart "$next/pre-start" || failed_start "$hook_problem" "$hook_output"
    start_service
    keeps_running || failed_start "its command does not keep running" "$(last_output)"
    run_hook postStart "$next/post-start" || failed_start "$hook_problem" "$hook_output"
else
    write_service
fi
write_if_changed "$service/started" "digest=$DIGEST
$(parts)" 600
forget_way_back
remove_others

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
[ "$changed" = no ] || drop_staged
fact changed "$changed"
report_app
