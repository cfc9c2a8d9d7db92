# Prints what the service consists of: the release, and how it is started.
parts() {
    printf 'link=%s\n' "$(readlink "$home/current" 2>/dev/null || :)"
    cat "$home/current/.berth-release" 2>/dev/null || :
    start_parts "$service"
}
start_parts() { # FOLDER: how the service is started
    printf 'run=%s\n' "$(digest "$1/run" 2>/dev/null || :)"
    if [ -e "$1/secrets" ]; then printf 'secrets=%s\n' "$(digest "$1/secrets")"; fi
    if [ -d "$1/files" ]; then (cd "$1/files" && find . -type f | LC_ALL=C sort | while read -r file; do
        printf 'file=%s %s\n' "$file" "$(digest "$file")"
    done); fi
}
is_deployed() { [ -s "$service/started" ] && [ "$(started_parts)" = "$(parts)" ]; }
# The file $service/started holds the digest of the application that was started last, and the parts that it was started with. A
# deployment removes it before its first change and writes it after the start. So as long as it agrees with the parts, what runs
# is what was deployed.
started_parts() { sed 1d "$service/started" 2>/dev/null || :; }
# Reports what is deployed and whether it runs.
report_app() {
    revision=$(sed -n 's/^revision=//p' "$home/current/.berth-release" 2>/dev/null || :)
    if [ -n "$revision" ]; then
        fact revision "$revision"
        fact sha256 "$(sed -n 's/^sha256=//p' "$home/current/.berth-release")"
    fi
    if is_deployed; then
        fact digest "$(sed -n 's/^digest=//p' "$service/started")"
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
home=$root/apps/$NAME
service=$root/services/$NAME
