if [ -d "$home" ] || [ -d "$service" ]; then
    mkdir -p "$home"
    lock "$home/.lock"
    mkdir -p "$service"
    service=$(cd "$service" && pwd -P)
    service_down
    if uses_systemd && [ -f "/etc/systemd/system/$unit" ]; then
        rm -f "/etc/systemd/system/$unit"
        systemctl daemon-reload >&2
    fi
    rm -rf "$service"
    rm -rf "$home"
    fact changed yes
else
    fact changed no
fi
