# Files with content from elsewhere. They are in the folder $service/files, and the release has links to them: so their content
# changes with the start of the service, and the files of a release that is kept for a roll-back stay as they were.
write_files() { # FOLDER
    number=0
    while [ "$number" -lt "$FILES" ]; do
        eval "path=\$FILE_${number}_PATH mode=\$FILE_${number}_MODE"
        have base64 || die 81 "base64 (coreutils or busybox), to write the files of the application"
        mkdir -p "$1/files/$(dirname "$path")" 2>/dev/null && [ ! -e "$1/files/$path" ] ||
            die 91 "$path (spec.app.files) is a file and a folder at once: rename one of the files"
        eval "printf '%s' \"\$FILE_${number}_CONTENT\"" | base64 -d >"$1/files/$path"
        chmod "$mode" "$1/files/$path"
        # What is secret belongs to the user who runs the application.
        if [ "$mode" = 600 ] && [ -n "$USER_NAME" ]; then chown "$USER_NAME" "$1/files/$path"; fi
        number=$((number + 1))
    done
}
list_files() { # FOLDER
    [ ! -d "$1/files" ] || (cd "$1/files" && find . -type f | sed 's|^\./||' | LC_ALL=C sort)
}
# Whether the release has room for the files: before any service is touched.
check_files() { # RELEASE FOLDER
    list_files "$2" | while read -r path; do
        folder=$1/$(dirname "$path")
        mkdir -p "$folder" 2>/dev/null && [ ! -d "$1/$path" ] ||
            die 91 "$path (spec.app.files) cannot be a file, because of what the artifact has there: declare another path"
        case $(cd -P "$folder" && pwd -P)/ in
        "$(cd -P "$1" && pwd -P)"/*) ;;
        *) die 91 "$path (spec.app.files) is behind a link that leads out of the artifact: declare another path" ;;
        esac
    done
}
# Links to the files, in the place of what the artifact has there. What a file covered comes back when it is declared no longer.
place_files() { # RELEASE
    if [ -f "$1/.berth-files" ]; then
        while read -r path; do
            [ ! -f "$service/files/$path" ] || continue
            rm -f "$1/$path"
            [ ! -e "$1/.berth-covered/$path" ] || mv "$1/.berth-covered/$path" "$1/$path"
        done <"$1/.berth-files"
        rm -f "$1/.berth-files"
    fi
    [ -d "$service/files" ] || return 0
    list_files "$service" >"$1/.berth-files"
    while read -r path; do
        [ "$(readlink "$1/$path" 2>/dev/null || :)" != "$service/files/$path" ] || continue
        mkdir -p "$1/$(dirname "$path")"
        if [ -e "$1/$path" ] || [ -L "$1/$path" ]; then
            mkdir -p "$1/.berth-covered/$(dirname "$path")"
            mv "$1/$path" "$1/.berth-covered/$path"
        fi
        ln -s "$service/files/$path" "$1/$path"
    done <"$1/.berth-files"
}
