# Prints the path of the list of dnf's plugin versionlock; nothing if the machine does not have the plugin.
lock_list() {
    [ -f /etc/dnf/plugins/versionlock.conf ] || return 0
    list=$(sed -n 's/^[[:space:]]*locklist[[:space:]]*=[[:space:]]*//p' /etc/dnf/plugins/versionlock.conf | tail -n 1)
    printf '%s' "${list:-/etc/dnf/plugins/versionlock.list}"
}
# Prints "NAME VERSION hold|free" for each of the packages that is installed. Epoch 0 is left out.
dnf_state() { # NAME...
    list=$(lock_list)
    locks=$([ -z "$list" ] || cat "$list" 2>/dev/null || :)
    excludes=" $(sed -n 's/^[[:space:]]*excludepkgs[[:space:]]*=//p' /etc/dnf/dnf.conf 2>/dev/null | tr ',\n' '  ' || :) "
    LC_ALL=C rpm -q --qf 'berth %{NAME} %|EPOCH?{%{EPOCH}}:{0}| %{VERSION}-%{RELEASE}\n' "$@" 2>/dev/null |
        while read -r tag name epoch version; do
            [ "$tag" = berth ] || continue
            want=free
            if printf '%s\n' "$locks" | grep -qxF "$name-$epoch:$version.*"; then want=hold; fi
            case $excludes in *" $name "*) want=hold ;; esac
            [ "$epoch" = 0 ] || version=$epoch:$version
            printf '%s %s %s\n' "$name" "$version" "$want"
        done
}
