boot=${BERTH_BOOT_ID:-}
if [ -z "$boot" ]; then
    read -r boot </proc/sys/kernel/random/boot_id
    if read -r up rest </proc/uptime; then fact uptime "${up%%.*}"; fi
fi
fact boot "$boot"
