[ ! -d "$home" ] || { lock "$home/.lock"; [ ! -d "$service" ] || service=$(cd "$service" && pwd -P); service_down; }
report
