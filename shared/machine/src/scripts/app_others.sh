# Applications with another name: one Server has one application, so these are what it declared before. They end when the new one
# begins, and run again if it does not start.

others() { # prints their names
    for folder in "$root/services"/*/; do
        other=${folder%/}
        other=${other##*/}
        if [ "$other" != "$NAME" ] && [ -d "$folder" ]; then echo "$other"; fi
    done
}
# In the place of the application itself.
as_other() { # NAME COMMAND...
    (
        NAME=$1 home=$root/apps/$1 service=$(cd -P "$root/services/$1" && pwd -P) unit=berth-$1.service
        shift
        "$@"
    )
}
stop_others() {
    for other in $(others); do
        as_other "$other" pre_stop
        as_other "$other" stop_service
    done
}
# The new one does not start: nothing is left of it but its release.
back_to_others() {
    for other in $(others); do
        # One that never ran well is nothing to go back to.
        [ -s "$root/services/$other/started" ] || continue
        forget_service
        # This script still needs a folder in it.
        cleanup=$cleanup'; rmdir "$service" 2>/dev/null || :'
        revision=$(as_other "$other" current_revision)
        if as_other "$other" start_and_look; then fact back "$other $revision"; else fact lost "$other $revision"; fi
    done
}
current_revision() { sed -n 's/^revision=//p' "$home/current/.berth-release" 2>/dev/null || :; }
start_and_look() { start_service && keeps_running; }
remove_others() {
    for other in $(others); do
        as_other "$other" forget_service
        rm -rf "${root:?}/apps/$other"
    done
}
forget_service() {
    stop_service
    remove_unit
    find "$service" -mindepth 1 -maxdepth 1 ! -name '.tmp.*' -exec rm -rf {} +
    rmdir "$service" 2>/dev/null || :
}
