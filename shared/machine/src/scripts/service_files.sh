# A portable supervisor for machines without systemd. A service is the folder $service with:
#   run        what is started (written by the caller)
#   supervise  keeps run alive, one second after each end
#   start      starts the supervisor unless it is there or the service is down on purpose; also run at boot
#   stop       ends everything that belongs to the service and waits until it is gone
#   down       exists while the service is stopped on purpose
# All processes of a service are known by BERTH_SERVICE in their environment: a stale or reused process id is
# never taken for the service, and a child that left the process group is found too.
write_if_changed() { # FILE CONTENT MODE; sets $written
    if [ "$(cat "$1" 2>/dev/null || :)" = "$2" ]; then
        written=no
    else
        written=yes
        printf '%s\n' "$2" >"$1.new"
        chmod "$3" "$1.new"
        mv "$1.new" "$1"
    fi
}
write_supervisor() {
    # Environments are separated by NUL; a grep without -z would find no process and so never stop one.
    printf 'a\0b\0' | grep -zqxF b || die 81 "a grep that knows -z, to find a service's processes"
    have setsid || die 81 "setsid (util-linux or busybox), to start services"
    write_if_changed "$service/members" '#!/bin/sh
# Prints the process ids of the service.
dir=$(cd "$(dirname "$0")" && pwd -P)
grep -zlsxF "BERTH_SERVICE=$dir" /proc/[0-9]*/environ | while IFS=/ read -r _ _ pid _; do echo "$pid"; done' 755
    write_if_changed "$service/supervise" '#!/bin/sh
dir=$(cd "$(dirname "$0")" && pwd -P)
cd "$dir" || exit 1
child=
ended() {
    trap "" TERM
    [ -z "$child" ] || { kill -TERM "$child" 2>/dev/null; wait "$child"; }
    rm -f pid
    exit 0
}
trap ended TERM
echo "$$" >supervise.pid.new && mv supervise.pid.new supervise.pid
while :; do
    sh ./run &
    child=$!
    echo "$child" >pid.new && mv pid.new pid
    wait "$child"
    echo "berth: the service ended with status $?; it is started again in one second"
    rm -f pid
    # In the background, so that a TERM is not kept waiting.
    sleep 1 &
    child=$!
    wait "$child"
    child=
    if [ "$(wc -c <log)" -gt 4194304 ]; then cp log log.old && : >log; fi
done' 755
    write_if_changed "$service/start" '#!/bin/sh
dir=$(cd "$(dirname "$0")" && pwd -P)
cd "$dir" || exit 1
[ ! -e down ] || exit 0
if command -v flock >/dev/null 2>&1; then exec 8>>start.lock && flock -w 30 8 || exit 75; fi
if pid=$(cat supervise.pid 2>/dev/null) && ./members | grep -qx "$pid"; then exit 0; fi
./stop || exit 1 # what a killed supervisor left running
rm -f pid supervise.pid
BERTH_SERVICE=$dir setsid sh "$dir/supervise" </dev/null >>log 2>&1 8>&- 9>&- &
tries=0
until [ -s pid ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ]; then echo "the supervisor of $dir did not start within 10 s; see $dir/log" >&2; exit 1; fi
    sleep 0.1
done' 755
    write_if_changed "$service/stop" '#!/bin/sh
dir=$(cd "$(dirname "$0")" && pwd -P)
cd "$dir" || exit 1
tries=0
while pids=$(./members) && [ -n "$pids" ]; do
    case $tries in
    0) kill -TERM $pids 2>/dev/null ;;
    100 | 1[1-9]0) kill -KILL $pids 2>/dev/null ;;
    200) echo "processes of $dir do not end:" $pids >&2; exit 1 ;;
    esac
    tries=$((tries + 1))
    sleep 0.1
done
rm -f pid supervise.pid' 755
}

# Which of the two ways: systemd where it runs the machine, unless the machine says otherwise.
unit=berth-$NAME.service
uses_systemd() {
    case ${BERTH_SERVICES:-} in
    portable) return 1 ;;
    systemd) return 0 ;;
    *) [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ] ;;
    esac
}
service_up() { # RESTART(yes|no): starts the service; sets $acted when it had to
    acted=no
    rm -f "$service/down"
    if uses_systemd; then
        write_if_changed "/etc/systemd/system/$unit" "[Unit]
Description=$NAME, deployed by Berth
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh $service/run
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target" 644
        [ "$written" = no ] || systemctl daemon-reload >&2
        systemctl --quiet is-enabled "$unit" 2>/dev/null || systemctl --quiet enable "$unit" >&2
        if [ "$1" = yes ] || [ "$written" = yes ]; then
            systemctl restart "$unit" >&2
            acted=yes
        elif ! systemctl --quiet is-active "$unit"; then
            systemctl start "$unit" >&2
            acted=yes
        fi
    else
        write_supervisor
        if [ "$1" = yes ]; then "$service/stop" >&2; fi
        service_pid
        if [ -z "$pid" ]; then
            acted=yes
            "$service/start" >&2
        fi
    fi
}
service_down() {
    mkdir -p "$service"
    : >"$service/down"
    if uses_systemd; then
        [ ! -f "/etc/systemd/system/$unit" ] || systemctl --quiet disable --now "$unit" >&2
    else
        [ ! -x "$service/stop" ] || "$service/stop" >&2
    fi
}
service_pid() { # sets $pid, empty when the program does not run
    if uses_systemd; then
        pid=$(systemctl show --property MainPID --value "$unit" 2>/dev/null || :)
        [ "$pid" != 0 ] || pid=
    else
        pid=$(cat "$service/pid" 2>/dev/null || :)
        if [ -n "$pid" ] && ! "$service/members" | grep -qx "$pid"; then pid=; fi
    fi
}
