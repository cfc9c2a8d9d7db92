# Reports a boot id that differs after every boot. A container shares its host's kernel and so the kernel's boot id; the
# start time of its first process differs (proc(5), field 22 of stat: the 20th field after the name in parentheses).
report_boot() {
    if [ -n "${BERTH_BOOT_ID:-}" ]; then
        fact boot "$BERTH_BOOT_ID"
        return
    fi
    read -r boot </proc/sys/kernel/random/boot_id
    if read -r stat </proc/1/stat 2>/dev/null; then
        set -f
        # shellcheck disable=SC2086 # split into fields
        set -- ${stat##*) }
        set +f
        boot=$boot.${20}
    fi
    fact boot "$boot"
    if read -r uptime _ </proc/uptime; then fact uptime "${uptime%%.*}"; fi
}
