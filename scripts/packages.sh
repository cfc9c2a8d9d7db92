#!/usr/bin/env bash
# Installs the Debian packages that the tests need: their machines are containers of a real Incus, and Debian machines with real
# package managers. Does nothing when all packages are installed.
set -euo pipefail

# Each entry names a program and the Debian package that contains it.
packages() {
    local missing=() entry
    for entry in dnf:dnf dnf:dnf-plugins-core rpmbuild:rpm createrepo_c:createrepo-c sshd:openssh-server ssh-keygen:openssh-client curl:curl cc:gcc make:make git:git \
        ip:iproute2 nft:nftables dnsmasq:dnsmasq-base busybox:busybox-static dropbear:dropbear-bin mmdebstrap:mmdebstrap prometheus:prometheus haproxy:haproxy; do
        PATH=$PATH:/usr/sbin command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
    done
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || { echo "packages: install these by hand: ${missing[*]}" >&2; return 1; }
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq
    # Debian starts the service of a package when it is installed, unless a policy forbids it. The tests start their own.
    local policy=/usr/sbin/policy-rc.d own=
    if [ ! -e "$policy" ]; then
        own=yes
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" install -m 755 /dev/stdin "$policy"
    fi
    local status=0
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" || status=$?
    [ -z "$own" ] || "${root[@]}" rm -f "$policy"
    return "$status"
}

# Incus, for the provider `incus`. For Debian 12 it comes from bookworm-backports.
incus() {
    [ ! -x /usr/libexec/incus/incusd ] || return 0
    local root=() from=() release=
    [ "$(id -u)" = 0 ] || root=(sudo)
    release=$(. /etc/os-release && echo "${ID:-}${VERSION_ID:-}")
    case $release in
    debian12)
        from=(-t bookworm-backports)
        if ! apt-cache policy | grep -q 'n=bookworm-backports'; then
            printf '%s\n' 'Types: deb' 'URIs: http://deb.debian.org/debian' 'Suites: bookworm-backports' 'Components: main' \
                'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' |
                "${root[@]}" tee /etc/apt/sources.list.d/berth-backports.sources >/dev/null
        fi
        ;;
    debian1[3-9]) ;;
    *)
        echo "packages: install Incus 6.0 or newer by hand, so that /usr/libexec/incus/incusd exists (package incus-base on Debian); this is ${release:-not Debian}" >&2
        return 1
        ;;
    esac
    "${root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "${from[@]}" incus-base
}

packages
incus
