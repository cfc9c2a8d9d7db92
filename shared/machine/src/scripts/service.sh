# A supervisor for machines without systemd. A service is the folder $service with:
#   run        the program to run (written by the caller)
#   stop-seconds  how long it may take to end (written by the caller; 10 without it)
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
    : >begun
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
rm -f pid supervise.pid begun
BERTH_SERVICE=$dir setsid sh "$dir/supervise" </dev/null >>log 2>&1 8>&- 9>&- &
tries=0
until [ -e begun ]; do # not pid, which is gone at once when the program ends at once
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ]; then echo "the supervisor of $dir did not start within 10 s; see $dir/log" >&2; exit 1; fi
    sleep 0.1
done' 755
    write_if_changed "$service/stop" '#!/bin/sh
dir=$(cd "$(dirname "$0")" && pwd -P)
cd "$dir" || exit 1
# Every 0.1 s: TERM first, KILL when the time to end is over, then once a second, and an error 10 s later.
limit=$(($(cat stop-seconds 2>/dev/null || echo 10) * 10))
tries=0
while pids=$(./members) && [ -n "$pids" ]; do
    if [ "$tries" = 0 ]; then
        kill -TERM $pids 2>/dev/null
    elif [ "$tries" -ge $((limit + 100)) ]; then
        echo "these processes of $dir do not end:" $pids >&2
        exit 1
    elif [ "$tries" -ge "$limit" ] && [ $(((tries - limit) % 10)) = 0 ]; then
        kill -KILL $pids 2>/dev/null
    fi
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
# What the unit runs when it is stopped, or when its program has ended and left others. It has the unit's control group.
write_end() {
    write_if_changed "$service/end" '#!/bin/sh
# Asks the processes of the unit to end, once, and kills those that have not ended in time. Left to itself, systemd sends TERM
# again as soon as the shell that runs the command has ended, and many programs take a second TERM for an order to end at once.
trap "" TERM
dir=$(cd "$(dirname "$0")" && pwd -P)
list=
while IFS=: read -r _ kind path; do
    case $kind:$path in
    name=systemd:*/berth-*.service) tree=/sys/fs/cgroup/systemd ;;
    :*/berth-*.service) tree=/sys/fs/cgroup ;;
    *) continue ;;
    esac
    [ -n "$list" ] || [ ! -e "$tree$path/cgroup.procs" ] || list=$tree$path/cgroup.procs
done </proc/self/cgroup
[ -n "$list" ] || exit 0 # systemd ends them
# Every 0.1 s, as the stop of machines without systemd.
limit=$(($(cat "$dir/stop-seconds" 2>/dev/null || echo 10) * 10))
tries=0
while :; do
    pids=
    while read -r pid; do [ "$pid" = "$$" ] || pids="$pids $pid"; done <"$list"
    [ -n "$pids" ] || exit 0
    if [ "$tries" = 0 ]; then
        kill -TERM $pids 2>/dev/null
    elif [ "$tries" -ge "$limit" ]; then
        kill -KILL $pids 2>/dev/null
    fi
    tries=$((tries + 1))
    sleep 0.1
done' 755
}
# Brings what manages the service up to date. Neither starts nor stops anything.
write_service() {
    if uses_systemd; then
        write_end
        # systemd kills what is left 10 s after the time to end: then something is wrong with the script.
        write_if_changed "/etc/systemd/system/$unit" "[Unit]
Description=$NAME, deployed by Berth
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh $service/run
ExecStop=/bin/sh $service/end
Restart=always
RestartSec=1
TimeoutStopSec=$(($(cat "$service/stop-seconds" 2>/dev/null || echo 10) + 10))

[Install]
WantedBy=multi-user.target" 644
        [ "$written" = no ] || systemctl daemon-reload >&2
        systemctl --quiet is-enabled "$unit" 2>/dev/null || systemctl --quiet enable "$unit" >&2
    else
        write_supervisor
    fi
}
stop_service() { # stops the service, which may not run or not exist
    if uses_systemd; then
        [ -e "/etc/systemd/system/$unit" ] || return 0
        # A version of Berth before this one may have written the unit.
        write_service
        systemctl stop "$unit" >&2
    else
        write_supervisor
        "$service/stop" >&2
    fi
}
remove_unit() { # of a service that is stopped
    [ -e "/etc/systemd/system/$unit" ] && uses_systemd || return 0
    systemctl --quiet disable "$unit" >&2
    rm -f "/etc/systemd/system/$unit"
    systemctl daemon-reload >&2
    systemctl reset-failed "$unit" >/dev/null 2>&1 || :
}
start_service() { # starts the service, which does not run
    write_service
    if uses_systemd; then
        # What was printed before is in the journal with an earlier time.
        journalctl --sync 2>/dev/null || :
        log_from=$(date +%s.%6N)
        systemctl start "$unit" >&2
    else
        log_from=$(wc -c 2>/dev/null <"$service/log" || echo 0)
        "$service/start" >&2
    fi
}
# Whether the service that was just started keeps running: its program must not end for two seconds. What ends later is for a
# health check to find.
keeps_running() {
    service_pid
    first=$pid
    ticks=20
    while [ -n "$pid" ] && [ "$pid" = "$first" ] && [ "$ticks" -gt 0 ]; do
        sleep 0.1
        ticks=$((ticks - 1))
        if uses_systemd; then service_pid; else pid=$(cat "$service/pid" 2>/dev/null || :); fi
    done
    [ -n "$pid" ] && [ "$pid" = "$first" ]
}
last_output() { # prints the last lines that the service has printed since it was started, and how it has ended
    if uses_systemd; then
        journalctl --sync 2>/dev/null || :
        # With `--lines` it would print the first lines since then.
        journalctl --quiet --no-pager --output cat --since "@$log_from" "_SYSTEMD_UNIT=$unit" 2>/dev/null | tail -n 9 || :
        how_it_ended
    else
        tail -c "+$((log_from + 1))" "$service/log" 2>/dev/null || :
    fi
}
how_it_ended() { # says it in the words of the supervisor
    result= code= status=
    eval "$(systemctl show --property Result,ExecMainCode,ExecMainStatus "$unit" 2>/dev/null |
        sed -n 's/^Result=\([a-z-]*\)$/result=\1/p; s/^ExecMainCode=\([0-9]*\)$/code=\1/p; s/^ExecMainStatus=\([0-9]*\)$/status=\1/p')"
    # CLD_EXITED, CLD_KILLED and CLD_DUMPED of sigaction(2).
    case $code in
    1) echo "berth: the service ended with status $status" ;;
    2 | 3) echo "berth: the service ended by signal $status ($result)" ;;
    esac
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
