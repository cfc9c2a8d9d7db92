# A supervisor for machines without systemd. A service is the folder $service with:
#   run        the program to run (written by the caller)
#   members    prints the process ids of the service
#   supervise  runs `run`, and again one second after each time it ends
#   start      starts the supervisor unless it runs; the machine calls it at boot
#   stop       ends all processes of the service and waits until they are gone
# All processes of a service carry BERTH_SERVICE in their environment. So an outdated or reused process id is never taken
# for the service, and a child that left the process group is found as well.
write_if_changed() { # FILE CONTENT MODE; sets $written
    if [ "$(cat "$1" 2>/dev/null || :)" = "$2" ]; then
        written=no
    else
        written=yes
        # What is secret must not be readable even for a moment.
        (umask 077 && printf '%s\n' "$2" >"$1.new")
        chmod "$3" "$1.new"
        mv "$1.new" "$1"
    fi
}
write_supervisor() {
    # The variables in an environment are separated by NUL: a grep without -z would find no process and so never stop one.
    printf 'a\0b\0' | grep -zqxF b || die 81 "a grep with the option -z, to find a service's processes"
    have setsid || die 81 "setsid (util-linux or busybox), to start services"
    write_if_changed "$service/members" '#!/bin/sh
# Prints the process ids of the service.
dir=$(cd "$(dirname "$0")" && pwd -P)
grep -zlsxF "BERTH_SERVICE=$dir" /proc/[0-9]*/environ | while IFS=/ read -r _ _ pid _; do echo "$pid"; done' 755
    write_if_changed "$service/supervise" '#!/bin/sh
dir=$(cd "$(dirname "$0")" && pwd -P)
cd "$dir" || exit 1
child=
terminate() {
    trap "" TERM
    [ -z "$child" ] || { kill -TERM "$child" 2>/dev/null; wait "$child"; }
    rm -f pid
    exit 0
}
trap terminate TERM
echo "$$" >supervise.pid.new && mv supervise.pid.new supervise.pid
while :; do
    sh ./run &
    child=$!
    echo "$child" >pid.new && mv pid.new pid
    wait "$child"
    echo "berth: the service ended with status $?; it restarts in one second"
    rm -f pid
    # In the background, so that TERM is handled at once.
    sleep 1 &
    child=$!
    wait "$child"
    child=
    # 4 MiB: with the older part, the log takes at most 8 MiB of a small disk.
    if [ "$(wc -c <log)" -gt 4194304 ]; then cp log log.old && : >log; fi
done' 755
    write_if_changed "$service/start" '#!/bin/sh
dir=$(cd "$(dirname "$0")" && pwd -P)
cd "$dir" || exit 1
if command -v flock >/dev/null 2>&1; then exec 8>>start.lock && flock -w 30 8 || exit 75; fi
if pid=$(cat supervise.pid 2>/dev/null) && ./members | grep -qx "$pid"; then exit 0; fi
./stop || exit 1 # processes that a killed supervisor left running
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
# Every 0.1 s: TERM first, KILL from 10 s on, and an error after 20 s.
tries=0
while pids=$(./members) && [ -n "$pids" ]; do
    case $tries in
    0) kill -TERM $pids 2>/dev/null ;;
    100 | 1[1-9]0) kill -KILL $pids 2>/dev/null ;;
    200) echo "these processes of $dir do not end:" $pids >&2; exit 1 ;;
    esac
    tries=$((tries + 1))
    sleep 0.1
done
rm -f pid supervise.pid' 755
}

# Whether systemd runs the service: yes where it runs the machine, unless BERTH_SERVICES says otherwise.
unit=berth-$NAME.service
uses_systemd() {
    case ${BERTH_SERVICES:-} in
    portable) return 1 ;;
    systemd) return 0 ;;
    *) [ -d /run/systemd/system ] && [ "$(id -u)" = 0 ] ;;
    esac
}
start_service() { # RESTART(yes|no): starts the service; sets $started to yes if it was not running or was restarted
    started=no
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
            started=yes
        elif ! systemctl --quiet is-active "$unit"; then
            systemctl start "$unit" >&2
            started=yes
        fi
    else
        write_supervisor
        if [ "$1" = yes ]; then "$service/stop" >&2; fi
        service_pid
        if [ -z "$pid" ]; then
            started=yes
            "$service/start" >&2
        fi
    fi
}
service_pid() { # sets $pid; empty if the program does not run
    if uses_systemd; then
        pid=$(systemctl show --property MainPID --value "$unit" 2>/dev/null || :)
        [ "$pid" != 0 ] || pid=
    else
        pid=$(cat "$service/pid" 2>/dev/null || :)
        if [ -n "$pid" ] && ! "$service/members" | grep -qx "$pid"; then pid=; fi
    fi
}
