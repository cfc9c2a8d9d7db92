# Reports the archives that are completely installed, by their markers (see archive_install.sh).
report_archives() {
    for marker in "$root"/packages/*/current/.berth-package; do
        [ -f "$marker" ] || continue
        name= version= sha256=
        while IFS='=' read -r key value; do
            case $key in
            name) name=$value ;;
            version) version=$value ;;
            sha256) sha256=$value ;;
            esac
        done <"$marker"
        fact archive "$name" "$version" "$sha256"
    done
}
