# What the machine must be able to do before any service is touched.

# Prints a command that runs another one as the application's user: with setpriv, which becomes the program, or else with su.
as_user() { # COMMAND, quoted for a shell
    if [ -z "$USER_NAME" ] || [ "$USER_NAME" = "$(id -un)" ]; then
        printf '%s' "$1"
    elif setpriv --help 2>&1 | grep -q -- --reuid; then
        printf '%s' "setpriv --reuid '$USER_NAME' --regid $(id -g "$USER_NAME") --init-groups $1"
    else
        printf '%s' "su -m -s /bin/sh '$USER_NAME' -c '$(printf '%s\n' "exec $1" | sed "s/'/'\\\\''/g")'"
    fi
}
check_user() {
    [ -n "$USER_NAME" ] || return 0
    id -u "$USER_NAME" >/dev/null 2>&1 ||
        die 91 "there is no user $USER_NAME on the machine (spec.app.user): let a package or the machine's image create it, or declare another user"
    [ "$USER_NAME" != "$(id -un)" ] || return 0
    [ "$(id -u)" = 0 ] ||
        die 91 "Berth logs in to the machine as $(id -un), who cannot run the application as $USER_NAME (spec.app.user): leave the user out, or log in as root (spec.access.user of the MachineClass)"
    eval "$(as_user "/bin/sh -c 'cd \"\$0\"' '$home/releases'")" >/dev/null 2>&1 ||
        die 91 "user $USER_NAME (spec.app.user) may not enter $home/releases: let Berth keep its files where every user may go (spec.access.root of the MachineClass)"
}
machine_of() { # FILE: prints for which kind of machine a program is made; nothing if it is no program
    bytes=$(od -An -tx1 -N20 "$1" 2>/dev/null | tr -d ' \n')
    case $bytes in 7f454c46*) ;; *) return 0 ;; esac
    code=${bytes#????????????????????????????????????}
    case $code in
    0300) echo i386 ;;
    3e00) echo x86_64 ;;
    2800) echo arm ;;
    b700) echo aarch64 ;;
    f300) echo riscv64 ;;
    1500) echo ppc64le ;;
    0015) echo ppc64 ;;
    0016) echo s390x ;;
    *) echo "machine 0x$code" ;;
    esac
}
check_program() { # RELEASE: the program that the command names must be made for machines like this one
    [ -n "$PROGRAM" ] && [ -f "$1/$PROGRAM" ] || return 0
    made_for=$(machine_of "$1/$PROGRAM")
    here=$(machine_of /proc/self/exe)
    # Many machines run the programs of their 32-bit predecessors as well.
    case $made_for:$here in
    : | "$here:$here" | *: | :* | i386:x86_64 | arm:aarch64) ;;
    *) die 91 "$PROGRAM is a program for $made_for, and the machine is $here: declare an artifact that is built for $here" ;;
    esac
}
