# Another value after every boot. A container has its host's kernel, and so its boot id: what differs is when its first
# process began (proc(5), field 22 of stat; the 20th after the name in brackets).
say_boot() {
    if [ -n "${BERTH_BOOT_ID:-}" ]; then
        fact boot "$BERTH_BOOT_ID"
        return
    fi
    read -r boot </proc/sys/kernel/random/boot_id
    if read -r stat </proc/1/stat 2>/dev/null; then
        set -f
        # shellcheck disable=SC2086 # the fields
        set -- ${stat##*) }
        set +f
        boot=$boot.${20}
    fi
    fact boot "$boot"
    if read -r up rest </proc/uptime; then fact uptime "${up%%.*}"; fi
}
