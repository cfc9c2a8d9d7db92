# The application's own commands around its start and end. All their processes carry BERTH_HOOK in their environment, so that a hook
# which takes too long is ended with its children.
hook_pids() { grep -zlsxF "BERTH_HOOK=$service" /proc/[0-9]*/environ | cut -d / -f 3 || :; }
end_hook() {
    for attempt in 'TERM 0.2' 'TERM 0.8' 'KILL 0.2' 'KILL 1' 'KILL 1'; do
        pids=$(hook_pids)
        [ -n "$pids" ] || return 0
        kill "-${attempt% *}" $pids 2>/dev/null || :
        sleep "${attempt#* }"
    done
}
# The script of a hook. Its last line says which hook it is, whatever the revision.
write_hook() { # FILE COMMAND SECONDS
    [ -n "$2" ] || return 0
    write_if_changed "$1" "$(launcher "$2")
# $3 $(printf '%s' "$2" | digest /dev/stdin)" 700
}
# Runs a hook if there is one. If it fails, $hook_problem and $hook_output say how.
run_hook() { # NAME SCRIPT
    [ -e "$2" ] || return 0
    set -- "$1" "$2" "$(sed -n '$s/^# \([0-9]*\) .*/\1/p' "$2")"
    rm -f "$next/hook.status"
    (
        code=0
        BERTH_HOOK=$service sh "$2" >"$next/hook.output" 2>&1 </dev/null || code=$?
        echo "$code" >"$next/hook.status"
    ) 9>&- &
    deadline=$(($(date +%s) + $3))
    while code=$(cat "$next/hook.status" 2>/dev/null || :) && [ -z "$code" ]; do
        if [ "$(date +%s)" -gt "$deadline" ]; then break; fi
        sleep 0.1
    done
    [ "$code" != 0 ] || return 0
    # Before it is ended, which its shell would remark on.
    hook_output=$(cat "$next/hook.output" 2>/dev/null || :)
    hook_problem="its $1 hook ended with status $code"
    if [ -z "$code" ]; then
        end_hook
        hook_problem="its $1 hook did not end within $3 s (timeoutSeconds), and was ended"
    fi
    return 1
}
# Before the application is stopped: the hook that it was deployed with.
pre_stop() {
    service_pid
    if [ -z "$pid" ] || run_hook preStop "$service/pre-stop"; then return 0; fi
    # A hook that does not work must not keep its successor from being deployed.
    if [ "$(tail -n 1 "$service/pre-stop")" = "$(tail -n 1 "$next/pre-stop" 2>/dev/null || :)" ]; then
        fact hook preStop
        say_problem "$hook_problem" "$hook_output"
        die 85 "$hook_problem"
    fi
    printf '%s\n' "$hook_problem" >&2
}
say_problem() { # PROBLEM OUTPUT: tells the caller of this script, who hides what is secret
    fact problem "$1"
    fact printed "$(printf '%s\n' "$2" | tail -n 10 | tail -c 8192 | od -An -v -tx1 | tr -d ' \n')"
}
