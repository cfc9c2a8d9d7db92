begin dnf
if [ ! -f "$marks/$NAME" ]; then
    fact removed no
    exit 0
fi
have dnf && have rpm || die 81 "dnf and rpm: packages of kind dnf need a machine of the Fedora family"
removed=no
free "$NAME" $ALSO
if [ -n "$(dnf_state "$NAME")" ]; then
    if [ "$(cat "$marks/$NAME")" = yes ]; then
        dnf -C --disableplugin=versionlock repoquery --installed --whatrequires "$NAME" --recursive --qf 'berth %{name}' || fail_with_log 87
        needed_by=
        for one in $(sed -n 's/^berth //p' "$tmp/log" | sort -u); do
            [ "$one" = "$NAME" ] || is_one_of "$one" "$ALSO" || needed_by="$needed_by $one"
        done
        if [ -n "$needed_by" ]; then
            dnf -C mark remove "$NAME" || fail_with_log 87
            fact kept "needed by$needed_by"
        else
            dnf -C --noautoremove remove "$NAME" || fail_with_log 87
            removed=yes
        fi
    else
        fact kept "Berth did not install it"
    fi
fi
rm -f "$marks/$NAME"
fact removed "$removed"
