begin apt
if [ ! -f "$marks/$NAME" ]; then
    fact removed no
    exit 0
fi
have apt-get && have dpkg-query || die 81 "apt-get and dpkg-query: packages of kind apt need a Debian machine"
complete_interrupted_run
removed=no
if apt_present "$NAME"; then
    # A hold would prevent the removal, and updates once Berth no longer manages the package.
    free "$NAME" $ALSO
    if [ "$(cat "$marks/$NAME")" = yes ]; then
        apt -s remove "$NAME" || fail_with_log 87
        needed_by=
        for one in $(sed -n 's/^Remv \([^ :]*\).*/\1/p' "$tmp/log"); do
            [ "$one" = "$NAME" ] || is_one_of "$one" "$ALSO" || needed_by="$needed_by $one"
        done
        if [ -n "$needed_by" ]; then
            # It is only a dependency now, and apt removes it together with the packages that need it.
            manager apt-mark auto "$NAME" || fail_with_log 87
            fact kept "needed by$needed_by"
        else
            apt remove "$NAME" || fail_with_log 87
            removed=yes
        fi
    else
        fact kept "Berth did not install it"
    fi
fi
rm -f "$marks/$NAME"
fact removed "$removed"
