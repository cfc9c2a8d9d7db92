# How the application is started, as files in the folder of its service.

# The address under which others reach this machine: the one in the environment, else the one that this session came in on.
machine_address() {
    address=${BERTH_MACHINE_ADDRESS:-}
    if [ -z "$address" ] && [ -n "${SSH_CONNECTION:-}" ]; then
        address=${SSH_CONNECTION% *}
        address=${address##* }
    fi
}
# Prints a script that runs a command as the application runs. Its text is the same as ever for an application that uses nothing
# new, so that an upgrade of Berth restarts nothing.
launcher() { # COMMAND, quoted for a shell
    secrets=
    [ -z "$SECRETS" ] || secrets="
. '$service/secrets'"
    identity=
    [ -z "$USER_NAME" ] || identity="
USER='$USER_NAME'
LOGNAME='$USER_NAME'
HOME=~$USER_NAME
export USER LOGNAME HOME"
    printf '%s\n' "#!/bin/sh
# Written by Berth; changes are overwritten.
PATH=\${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
BERTH_MACHINE_ADDRESS='$address'
BERTH_APP_REVISION='$REVISION'
export PATH BERTH_MACHINE_ADDRESS BERTH_APP_REVISION$identity
$ENVIRONMENT$secrets
cd -P '$home/current' || exit 1
exec $(as_user "$1")"
}
# Writes all files that say how the application is started.
write_start() { # FOLDER
    machine_address
    # Secret variables are in a file that only the user who runs the application may read.
    [ -z "$SECRETS" ] || write_if_changed "$1/secrets" "$SECRETS" 600
    write_if_changed "$1/run" "$(launcher "$COMMAND")" 700
    write_files "$1"
    write_hook "$1/pre-stop" "$PRE_STOP" "$PRE_STOP_SECONDS"
    write_hook "$1/pre-start" "$PRE_START" "$PRE_START_SECONDS"
    write_hook "$1/post-start" "$POST_START" "$POST_START_SECONDS"
    # The supervisor's own time is in no file.
    [ "$STOP_SECONDS" = 10 ] || write_if_changed "$1/stop-seconds" "$STOP_SECONDS" 644
}
# What the application is started with, and what only its end depends on.
START_FILES='run secrets files'
STOP_FILES='stop-seconds pre-stop'
# Puts these files into the place of those that are there.
install_files() { # FOLDER NAME...
    from=$1
    shift
    for file in "$@"; do
        rm -rf "${service:?}/$file"
        [ ! -e "$from/$file" ] || mv "$from/$file" "$service/$file"
    done
}
