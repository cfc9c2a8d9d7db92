# Download, verification and unpacking, for archives and applications.
download() { # URL FILE
    if [ -n "${AUTHORIZATION:-}" ]; then
        download_authorized "$1" "$2"
    elif have curl; then
        curl --fail --silent --show-error --location --proto '=http,https' --connect-timeout 10 \
            --max-time "$FETCH_SECONDS" --output "$2" --url "$1" >&2
    elif have wget; then
        if have timeout; then timeout "$FETCH_SECONDS" wget -q -T 30 -O "$2" "$1" >&2; else wget -q -T 30 -O "$2" "$1" >&2; fi
    elif have python3; then
        download_by_python "$1" "$2"
    else
        die 81 "curl, wget or python3, to download artifacts"
    fi
}
# Credentials are on no command line, which other users of the machine could read, and follow no redirection to another server.
download_authorized() { # URL FILE
    if have curl; then
        printf 'header = "Authorization: %s"\n' "$AUTHORIZATION" | curl --config - --fail --silent --show-error \
            --location --proto '=http,https' --connect-timeout 10 --max-time "$FETCH_SECONDS" --output "$2" --url "$1" >&2
    elif have python3; then
        download_by_python "$1" "$2"
    else
        die 81 "curl or python3, to download artifacts with credentials"
    fi
}
download_by_python() { # URL FILE
    BERTH_AUTHORIZATION=${AUTHORIZATION:-} python3 - "$1" "$2" "$FETCH_SECONDS" >&2 <<'PY'
import os, shutil, signal, sys, urllib.request
signal.alarm(int(sys.argv[3]))
request = urllib.request.Request(sys.argv[1])
if os.environ["BERTH_AUTHORIZATION"]:
    request.add_unredirected_header("Authorization", os.environ["BERTH_AUTHORIZATION"])
with urllib.request.urlopen(request, timeout=30) as answer, open(sys.argv[2], "wb") as file:
    shutil.copyfileobj(answer, file)
    length = answer.headers.get("Content-Length")
    if length is not None and file.tell() != int(length):
        sys.exit("the answer was cut off after %d of %s bytes" % (file.tell(), length))
PY
}
digest() { # FILE: prints its SHA-256
    if have sha256sum; then
        sum=$(sha256sum <"$1")
    elif have shasum; then
        sum=$(shasum -a 256 <"$1")
    else
        die 81 "sha256sum or shasum, to verify artifacts"
    fi
    printf '%s' "${sum%% *}"
}
# What a file is, by its first bytes.
format_of() { # FILE
    case $(od -An -tx1 -N4 "$1" | tr -d ' \n') in
    1f8b*) echo TarGz ;;
    28b52ffd) echo TarZst ;;
    504b0304 | 504b0506) echo Zip ;;
    7f454c46) echo Binary ;;
    *) echo Tar ;;
    esac
}
how_to_get() { # TOOL
    echo "declare the package $1 in spec.template.spec.packages, put it into the machine's image, or publish the artifact as tar.gz"
}
unpack() { # FILE FOLDER
    found=$(format_of "$1")
    case ${FORMAT:-} in
    Binary)
        # The one file of the release, named after the application.
        mv "$1" "$2/$NAME" && chmod 755 "$2/$NAME"
        return
        ;;
    '')
        # FORMAT is unset for packages.
        if [ "$found" = Binary ]; then die 84 "it is a program and no archive${FORMAT+; declare spec.app.artifact.format: Binary}"; fi
        ;;
    *) [ "$found" = "$FORMAT" ] || die 84 "it is declared as $FORMAT (spec.app.artifact.format), but its content is $found" ;;
    esac
    # -o: the files belong to the user who unpacks them, not to the user ids in the archive.
    case $found in
    TarGz) tar -xzof "$1" -C "$2" >&2 ;;
    TarZst)
        have zstd || die 81 "zstd, to unpack a tar.zst: $(how_to_get zstd)"
        # Not through a pipe, whose first part could fail unseen.
        zstd -dqf "$1" -o "$1.tar" >&2 && rm "$1" && tar -xof "$1.tar" -C "$2" >&2 && rm "$1.tar"
        ;;
    Zip) unzip_into "$1" "$2" ;;
    *) tar -xof "$1" -C "$2" >&2 ;;
    esac
}
unzip_into() { # FILE FOLDER
    if have unzip; then
        # Status 1: unpacked with warnings.
        unzip -q -o "$1" -d "$2" >&2 || [ $? = 1 ]
    elif have python3; then
        python3 - "$1" "$2" >&2 <<'PY'
import os, stat, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    for entry in archive.infolist():
        mode = entry.external_attr >> 16
        if stat.S_ISLNK(mode):
            sys.exit("%s is a link, which needs the program unzip" % entry.filename)
        path = archive.extract(entry, sys.argv[2])
        if mode & 0o777 and not entry.is_dir():
            os.chmod(path, mode & 0o777)
PY
    else
        die 81 "unzip or python3, to unpack a zip: $(how_to_get unzip)"
    fi
}
# Downloads, verifies and unpacks the artifact into $tmp/content. $tmp is inside the given folder, so that the content can be
# moved into place by a rename.
fetch() { # FOLDER
    tmp=$(mktemp -d "$1/.tmp.XXXXXX")
    cleanup='rm -rf "$tmp"'
    download "$URL" "$tmp/artifact" || die 82 "the download program ended with status $?"
    actual=$(digest "$tmp/artifact")
    if [ "$actual" != "$SHA256" ]; then
        fact expected "$SHA256"
        fact actual "$actual"
        die 83 "wrong digest"
    fi
    mkdir "$tmp/content"
    chmod 755 "$tmp/content"
    unpack "$tmp/artifact" "$tmp/content" || die 84 "the unpacking program ended with status $?"
    rm -f "$tmp/artifact"
}
# Creates or changes a symbolic link atomically: readers see the old target or the new one, never none.
switch_link() { # TARGET LINK
    if [ "$(readlink "$2" 2>/dev/null || :)" = "$1" ]; then return 0; fi
    rm -f "$2.new.$$"
    ln -s "$1" "$2.new.$$"
    mv -T "$2.new.$$" "$2"
}
# Removes what interrupted runs left behind. The caller must hold the lock.
remove_leftovers() { # FOLDER
    for left in "$1"/.tmp.*; do
        [ ! -d "$left" ] || rm -rf "$left"
    done
}
