# What apt-get and dpkg say when another process holds a lock.
LOCKED='could not get lock|unable to (acquire|lock)|lock was locked by|is locked by another|frontend lock'
admin=/var/lib/dpkg
apt() {
    manager apt-get -qq -y -o "DPkg::Lock::Timeout=$LOCK_WAIT" -o Dpkg::Use-Pty=0 -o APT::Update::Error-Mode=any \
        -o APT::Get::List-Cleanup=true -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}
# Completes an interrupted run of dpkg, no matter which process started it. A package that cannot be configured
# is not an error here: the requested change may repair it.
complete_interrupted_run() {
    if [ -n "$(ls -A "$admin/updates" 2>/dev/null)" ] || [ -n "$(dpkg --audit 2>&1)" ]; then
        manager dpkg --configure -a --force-confdef --force-confold || :
    fi
}
free() { # NAME...: removes their holds
    held=$(apt_state "$@" | sed -n 's/ [^ ]* hold$//p')
    [ -z "$held" ] || manager apt-mark unhold $held || fail_with_log 87
}
