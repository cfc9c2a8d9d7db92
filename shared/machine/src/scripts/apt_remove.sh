begin apt
if [ ! -f "$marks/$NAME" ]; then
    fact removed no
    exit 0
fi
have apt-get && have dpkg-query || die 81 "apt-get and dpkg-query: packages of kind apt need a Debian machine"
heal
removed=no
if apt_present "$NAME"; then
    # Held packages would stand in the way of the removal, and of updates once Berth does not care any more.
    free "$NAME" $ALSO
    if [ "$(cat "$marks/$NAME")" = yes ]; then
        apt -s remove "$NAME" || last_lines 87
        needed_by=
        for one in $(sed -n 's/^Remv \([^ :]*\).*/\1/p' "$tmp/log"); do
            [ "$one" = "$NAME" ] || is_one_of "$one" "$ALSO" || needed_by="$needed_by $one"
        done
        if [ -n "$needed_by" ]; then
            # It is somebody's dependency now, and goes with them.
            manager apt-mark auto "$NAME" || last_lines 87
            fact kept "needed by$needed_by"
        else
            apt remove "$NAME" || last_lines 87
            removed=yes
        fi
    else
        fact kept "it was there before Berth"
    fi
fi
rm -f "$marks/$NAME"
fact removed "$removed"
