LOCKED='could not get lock|unable to (acquire|lock)|lock was locked by|is locked by another|frontend lock'
admin=/var/lib/dpkg
apt() {
    manager apt-get -qq -y -o "DPkg::Lock::Timeout=$LOCK_WAIT" -o Dpkg::Use-Pty=0 -o APT::Update::Error-Mode=any \
        -o APT::Get::List-Cleanup=true -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}
# A run that broke off, of whomever, is finished first. A package that cannot be is no reason to stop here: the very
# change that is asked for may mend it.
heal() {
    if [ -n "$(ls -A "$admin/updates" 2>/dev/null)" ] || [ -n "$(dpkg --audit 2>&1)" ]; then
        manager dpkg --configure -a --force-confdef --force-confold || :
    fi
}
free() { # NAME...: takes the hold off where there is one
    held=$(apt_state "$@" | sed -n 's/ [^ ]* hold$//p')
    [ -z "$held" ] || manager apt-mark unhold $held || last_lines 87
}
