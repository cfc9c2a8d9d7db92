#!/usr/bin/env bash
# Builds the image of a Debian machine for Incus, with systemd, logind and an SSH server, from the Debian mirror: what a virtual machine
# of a house usually is. `scripts/tools.sh systemd-image` calls it once and keeps the image.
# Usage: scripts/systemd_image.sh FOLDER
set -euo pipefail

folder=$1
if [ "${2:-}" != --in-memory ]; then
    [ "$(id -u)" = 0 ] || { echo "systemd-image: building a Debian system needs root" >&2; exit 1; }
    command -v mmdebstrap >/dev/null || { echo "systemd-image: mmdebstrap is missing: run scripts/packages.sh" >&2; exit 1; }
    mkdir -p "$folder"
    # In memory, because a package manager waits for the disk half of the time. The mount ends with the namespace.
    exec unshare --mount --propagation private "$0" "$folder" --in-memory
fi

mount -t tmpfs -o mode=1777 systemd-image /mnt
export TMPDIR=/mnt
root=/mnt/image/rootfs
mkdir /mnt/image

# busybox is the DHCP client, and the web server of the applications of tests.
mmdebstrap --quiet --mode=root --variant=essential --components=main \
    --include=systemd-sysv,libpam-systemd,dbus,openssh-server,procps,wget,busybox-static \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$root" http://deb.debian.org/debian

chroot "$root" useradd --create-home --shell /bin/sh web

# The network of a virtual machine comes up at its boot. systemd-networkd would wait for udev, which containers do not have.
cat >"$root/etc/address" <<'END'
#!/bin/sh
case $1 in bound | renew) busybox ip addr flush dev $interface && busybox ip addr add $ip/$mask dev $interface ;; esac
END
chmod +x "$root/etc/address"
cat >"$root/etc/systemd/system/address.service" <<'END'
[Unit]
Description=An address by DHCP
Before=network-online.target
[Service]
Type=forking
ExecStart=/bin/busybox udhcpc -i eth0 -b -t 100 -T 1 -s /etc/address
[Install]
WantedBy=multi-user.target network-online.target
END
chroot "$root" systemctl --quiet enable address.service

# Each machine makes its own.
: >"$root/etc/machine-id"
rm -rf "${root:?}"/dev/* "$root"/var/cache/* "$root"/var/log/*
printf 'architecture: %s\ncreation_date: 1\nproperties: {description: Debian with systemd}\n' "$(uname -m)" >/mnt/image/metadata.yaml
tar -C /mnt/image -cf - metadata.yaml rootfs | gzip -1 >"$folder/image.tar.gz"
