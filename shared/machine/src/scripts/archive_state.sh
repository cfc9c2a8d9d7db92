# The archives that are completely installed: the marker inside says what each is; see package_install.sh.
archives() { # FACT
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
        fact "$1" "$name" "$version" "$sha256"
    done
}
