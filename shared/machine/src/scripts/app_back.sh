# The way back to the application that ran before, if the new one does not start. The folder $service/good has what it was started
# with, from before its first change until the new one has started, and $home/replaced its release if it has the same revision.

# The last application that was started with success stays known, however often the next one is attempted.
keep_way_back() {
    is_deployed || return 0
    rm -rf "$service/good" "$service/.tmp.good"
    (umask 077 && mkdir "$service/.tmp.good")
    for file in $START_FILES $STOP_FILES started; do
        [ ! -e "$service/$file" ] || cp -pR "$service/$file" "$service/.tmp.good/$file"
    done
    mv "$service/.tmp.good" "$service/good"
    rm -rf "$home/replaced"
}
forget_way_back() { rm -rf "$service/good" "$home/replaced"; }

install_release() {
    [ "$content" != "$release" ] || return 0
    if [ -e "$release" ] && [ -e "$home/replaced" ]; then
        # Left by an attempt that was interrupted: what is kept is what ran.
        rm -rf "$release"
    elif [ -e "$release" ]; then
        mv -T "$release" "$home/replaced"
    fi
    mv -T "$content" "$release"
}

# What a release is, by the file that says with what it was started.
good_release() { sed '1,2d;/^run=/,$d' "$service/good/started"; }
is_good_release() { [ "$(cat "$1/.berth-release" 2>/dev/null || :)" = "$(good_release)" ]; } # FOLDER

# Ends the deployment: the application did not start. Starts the one before again, if it is known.
failed_start() { # PROBLEM OUTPUT
    say_problem "$1" "$2"
    go_back
    die 90 "$1"
}
go_back() {
    if [ ! -s "$service/good/started" ]; then
        back_to_others
        return 0
    fi
    link=$(sed -n 's/^link=//p' "$service/good/started")
    revision=${link#releases/}
    if ! is_good_release "$home/$link"; then
        is_good_release "$home/replaced" || return 0
        rm -rf "${home:?}/$link"
        mv -T "$home/replaced" "$home/$link"
    fi
    stop_service
    install_files "$service/good" $START_FILES $STOP_FILES
    place_files "$home/$link"
    switch_link "$link" "$home/current"
    if start_service && keeps_running; then fact back "$revision"; else fact lost "$revision"; fi
    mv "$service/good/started" "$service/started"
    forget_way_back
}
