# Reports what is deployed and whether it runs.
report_app() {
    revision=$(sed -n 's/^revision=//p' "$home/current/.berth-release" 2>/dev/null || :)
    if [ -n "$revision" ]; then
        fact revision "$revision"
        fact sha256 "$(sed -n 's/^sha256=//p' "$home/current/.berth-release")"
    fi
    pid=
    [ ! -d "$service" ] || service_pid
    if [ -n "$pid" ]; then
        fact running yes
        fact pid "$pid"
    else
        fact running no
    fi
}
root=$(in_home "$ROOT")
home=$root/apps/$NAME
service=$root/services/$NAME
