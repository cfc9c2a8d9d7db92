//! Packages of kind apt, on a Debian machine with a repository of its own.

use crate::debian::{Debian, LIMIT, Mirror, MirrorFiles};
use berth_machine::{
    MachineChange, MachineError, Removal, apt,
    inventory::{self, DeclaredPackage, FoundPackage, PackageKind},
    package_manager::ManagedPackage,
};

const ROOT: &str = "opt/berth";

/// Builds the packages of the repository.
const BUILD: &str = r#"
set -eu
build() { # NAME VERSION DEPENDS POSTINST
    rm -rf /tmp/build
    mkdir -p /tmp/build/DEBIAN /tmp/build/usr/share/berth-test /tmp/build/etc
    echo "$2" >"/tmp/build/usr/share/berth-test/$1"
    echo "setting=$2" >"/tmp/build/etc/$1.conf"
    echo "/etc/$1.conf" >/tmp/build/DEBIAN/conffiles
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: T <t@localhost>\nDepends: %s\nDescription: test\n' \
        "$1" "$2" "$3" | sed '/^Depends: $/d' >/tmp/build/DEBIAN/control
    if [ -n "$4" ]; then
        printf '#!/bin/sh\nset -e\n%s\n' "$4" >/tmp/build/DEBIAN/postinst
        chmod 755 /tmp/build/DEBIAN/postinst
    fi
    dpkg-deb -Znone --root-owner-group --build /tmp/build "/srv/repo/$1_$(echo "$2" | tr : .)_all.deb" >/dev/null
}
mkdir -p /srv/repo
build berth-one 1.0 '' ''
build berth-one 1:2.0-1 '' ''
build berth-lib 1.0 '' ''
build berth-lib 2.0 '' ''
build berth-user 1.0 'berth-lib (= 1.0)' ''
build berth-user 2.0 'berth-lib (= 2.0)' ''
build berth-slow 1.0 '' ''
build berth-slow 2.0 '' 'echo started >/run/slow; while [ -e /run/block ]; do sleep 0.1; done'
build berth-broken 1.0 '' 'echo "no licence found" >&2; exit 3'
cd /srv/repo
for deb in *.deb; do
    dpkg-deb -f "$deb"
    printf 'Filename: %s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum <"$deb" | cut -d' ' -f1)"
done >Packages
ls
"#;

struct AptLab {
    debian: Debian,
    mirror: Mirror,
    files: MirrorFiles,
}

impl AptLab {
    /// A machine that is configured with the repository and has not read it yet.
    async fn start() -> Self {
        let (debian, mirror) = (Debian::start().await, Mirror::start());
        let mut files = MirrorFiles::new();
        for name in debian.run(BUILD).await.lines() {
            files.insert(name.to_owned(), debian.bytes(&format!("cat /srv/repo/{name}")).await);
        }
        mirror.publish(Some(files.clone()));
        let source = format!("deb [trusted=yes] http://{}/ ./", mirror.address);
        debian.run(&format!("echo '{source}' >/etc/apt/sources.list")).await;
        Self { debian, mirror, files }
    }

    async fn install(&self, packages: &[ManagedPackage]) -> Result<MachineChange, MachineError> {
        apt::MANAGER.install(&self.debian.machine, ROOT, packages, LIMIT).await
    }

    async fn remove(&self, name: &str, also: &[&str]) -> Removal {
        apt::MANAGER.remove(&self.debian.machine, ROOT, name, also, LIMIT).await.unwrap()
    }

    /// The entry of a declared package in the inventory.
    async fn found(&self, package: &ManagedPackage) -> Option<FoundPackage> {
        let declared = [DeclaredPackage::Apt(package.clone())];
        let inventory = inventory::read(&self.debian.machine, ROOT, &declared, LIMIT).await.unwrap();
        inventory.get(PackageKind::Apt, &package.name).cloned()
    }

    /// Status and version as dpkg reports them, such as `hi 1.0`; empty if the package is not installed.
    async fn dpkg(&self, name: &str) -> String {
        let query = format!("dpkg-query -W -f '${{db:Status-Abbrev}}${{Version}}' {name} 2>/dev/null || :");
        self.debian.run(&query).await.trim().to_owned()
    }
}

fn held(name: &str, version: &str) -> ManagedPackage {
    ManagedPackage { name: name.into(), version: version.into(), hold: true }
}

fn free(name: &str, version: &str) -> ManagedPackage {
    ManagedPackage { hold: false, ..held(name, version) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_installed_held_upgraded_downgraded_unheld_and_removed() {
    let lab = AptLab::start().await;
    let (one, two) = (held("berth-one", "1.0"), held("berth-one", "1:2.0-1"));
    assert_eq!(lab.found(&one).await, None);
    assert_eq!(lab.install(std::slice::from_ref(&one)).await, Ok(MachineChange::Done));
    assert_eq!(lab.dpkg("berth-one").await, "hi 1.0");
    let found = lab.found(&one).await.unwrap();
    assert!(found.own && found.right && found.version.as_deref() == Some("1.0"), "{found:?}");
    assert!(!lab.mirror.requests().is_empty());

    // Nothing to do: neither the repository nor dpkg is used.
    let log = lab.debian.run("sha256sum /var/log/dpkg.log").await;
    assert_eq!(lab.install(std::slice::from_ref(&one)).await, Ok(MachineChange::None));
    assert_eq!((lab.mirror.requests(), lab.debian.run("sha256sum /var/log/dpkg.log").await), (vec![], log));

    // Upgrade and downgrade in spite of the hold, without another read of the index, with a changed configuration file kept.
    lab.debian.run("echo mine >/etc/berth-one.conf").await;
    assert_eq!(lab.install(std::slice::from_ref(&two)).await, Ok(MachineChange::Done));
    assert_eq!(lab.dpkg("berth-one").await, "hi 1:2.0-1");
    assert_eq!(lab.install(std::slice::from_ref(&one)).await, Ok(MachineChange::Done));
    assert_eq!(lab.dpkg("berth-one").await, "hi 1.0");
    assert!(!lab.mirror.requests().iter().any(|path| path.contains("Packages") || path.contains("Release")));
    assert_eq!(lab.debian.run("cat /etc/berth-one.conf").await, "mine\n");

    // Only the hold changes. A hold that a person removed is set again.
    let unheld = free("berth-one", "1.0");
    assert!(!lab.found(&unheld).await.unwrap().right);
    assert_eq!(lab.install(std::slice::from_ref(&unheld)).await, Ok(MachineChange::Done));
    assert_eq!(lab.dpkg("berth-one").await, "ii 1.0");
    assert_eq!(lab.install(std::slice::from_ref(&unheld)).await, Ok(MachineChange::None));
    assert!(!lab.found(&one).await.unwrap().right);
    assert_eq!(lab.install(std::slice::from_ref(&one)).await, Ok(MachineChange::Done));
    assert_eq!(lab.dpkg("berth-one").await, "hi 1.0");

    assert_eq!(lab.remove("berth-one", &[]).await, Removal::Removed);
    assert_eq!(lab.debian.run("test -e /usr/share/berth-test/berth-one || echo gone").await, "gone\n");
    assert_eq!(lab.found(&one).await, None);
    assert_eq!(lab.remove("berth-one", &[]).await, Removal::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_berth_did_not_install_or_that_others_need_are_not_removed() {
    let lab = AptLab::start().await;
    lab.debian.run("apt-get -qq update && apt-get -qq install berth-one=1.0 >/dev/null 2>&1").await;
    // Installed before Berth, and changed by Berth.
    assert_eq!(lab.install(&[held("berth-one", "1:2.0-1")]).await, Ok(MachineChange::Done));
    let found = lab.found(&held("berth-one", "1:2.0-1")).await.unwrap();
    assert!(found.marked && !found.own, "{found:?}");
    assert!(matches!(lab.remove("berth-one", &[]).await, Removal::Kept(_)));
    assert_eq!(lab.dpkg("berth-one").await, "ii 1:2.0-1");

    // Installed by Berth, but needed by a package that a person installed later.
    assert_eq!(lab.install(&[held("berth-lib", "1.0")]).await, Ok(MachineChange::Done));
    lab.debian.run("apt-get -qq install berth-user=1.0 >/dev/null 2>&1").await;
    let Removal::Kept(reason) = lab.remove("berth-lib", &[]).await else { panic!("it was removed") };
    assert_eq!(reason, "needed by berth-user");
    assert_eq!(lab.dpkg("berth-lib").await, "ii 1.0");
    assert_eq!(lab.debian.run("apt-mark showauto berth-lib").await, "berth-lib\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_depend_on_each_other_are_changed_and_removed_together() {
    let lab = AptLab::start().await;
    for version in ["1.0", "2.0"] {
        // In an order in which they could not be installed one by one.
        let both = [held("berth-user", version), held("berth-lib", version)];
        assert_eq!(lab.install(&both).await, Ok(MachineChange::Done));
        assert_eq!(lab.dpkg("berth-user").await, format!("hi {version}"));
        assert_eq!(lab.dpkg("berth-lib").await, format!("hi {version}"));
    }
    assert_eq!(lab.remove("berth-lib", &["berth-user"]).await, Removal::Removed);
    assert_eq!(lab.dpkg("berth-user").await, "rc 2.0");
    assert_eq!(lab.remove("berth-user", &["berth-lib"]).await, Removal::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_errors_are_distinguished_from_temporary_ones() {
    let lab = AptLab::start().await;
    lab.mirror.publish(None);
    let error = lab.install(&[held("berth-one", "1.0")]).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::PackageManager { name, reason } if name == "apt" && reason.contains("Failed to fetch")),
        "{error}"
    );
    assert!(!error.is_permanent());
    lab.mirror.publish(Some(lab.files.clone()));

    assert_eq!(lab.install(&[held("berth-one", "1.0")]).await, Ok(MachineChange::Done));
    let error = lab.install(&[held("berth-one", "9.9")]).await.unwrap_err();
    assert!(error.is_permanent(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("berth-one 9.9 does not exist") && text.contains("Version '9.9' for 'berth-one' was not found"),
        "{text}"
    );
    assert!(text.contains("1.0 1:2.0-1"), "{text}");
    let error = lab.install(&[held("berth-nothing", "1")]).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("Unable to locate package berth-nothing"), "{error}");
    assert_eq!(lab.dpkg("berth-one").await, "hi 1.0", "a failure leaves version and hold as they were");

    // The machine's index names a version whose file is gone and that the newer index lacks.
    let mut newer = lab.files.clone();
    let index = String::from_utf8(newer["Packages"].clone()).unwrap();
    let kept = index.split("\n\n").filter(|entry| !entry.contains("Version: 1:2.0-1")).collect::<Vec<_>>().join("\n\n");
    newer.insert("Packages".into(), kept.into_bytes());
    newer.remove("berth-one_1.2.0-1_all.deb").unwrap();
    lab.mirror.publish(Some(newer));
    let error = lab.install(&[held("berth-one", "1:2.0-1")]).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("does not exist"), "{error}");
    assert_eq!(lab.dpkg("berth-one").await, "hi 1.0");

    let error = lab.install(&[held("berth-broken", "1.0")]).await.unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("no licence found"), "{error}");
    // A half-installed package counts as not installed, does not prevent other changes, and can be removed.
    assert_eq!(lab.found(&held("berth-broken", "1.0")).await.unwrap().version, None);
    assert_eq!(lab.install(&[held("berth-lib", "1.0")]).await, Ok(MachineChange::Done));
    assert_eq!(lab.remove("berth-broken", &[]).await, Removal::Removed);
    assert_eq!(lab.dpkg("berth-broken").await, "rc 1.0", "its configuration files stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_waits_for_locks_and_completes_an_interrupted_run() {
    let lab = AptLab::start().await;
    assert_eq!(lab.install(&[held("berth-slow", "1.0")]).await, Ok(MachineChange::Done));
    // Another process runs apt-get and holds its locks.
    lab.debian
        .run("touch /run/block; (apt-get -qq --allow-change-held-packages install berth-slow=2.0 >/dev/null 2>&1 &)")
        .await;
    lab.debian.until("test -e /run/slow").await;
    let other = [held("berth-one", "1.0")];
    let (installed, ()) = tokio::join!(lab.install(&other), async {
        // Wait until Berth's operation has begun.
        lab.debian.until("test -e opt/berth/.lock && ! flock -n opt/berth/.lock true").await;
        assert_eq!(lab.dpkg("berth-one").await, "");
        lab.debian.run("rm /run/block").await;
    });
    assert_eq!(installed, Ok(MachineChange::Done));
    assert_eq!(lab.dpkg("berth-slow").await, "ii 2.0");

    // The power fails in the middle of Berth's own run.
    assert_eq!(lab.install(&[held("berth-slow", "1.0")]).await, Ok(MachineChange::Done));
    lab.debian.run("rm -f /run/slow; touch /run/block").await;
    let wanted = [held("berth-slow", "2.0")];
    let (broken, ()) = tokio::join!(lab.install(&wanted), async {
        lab.debian.until("test -e /run/slow").await;
        lab.debian.cut_power().await;
    });
    assert!(matches!(broken, Err(MachineError::ConnectionLost { .. })), "{broken:?}");
    lab.debian.await_power().await;
    assert!(!lab.dpkg("berth-slow").await.ends_with("i 2.0"));
    assert_eq!(lab.found(&wanted[0]).await.unwrap().version, None);
    lab.debian.run("rm /run/block").await;
    assert_eq!(lab.install(&[held("berth-one", "1:2.0-1"), wanted[0].clone()]).await, Ok(MachineChange::Done));
    assert_eq!((lab.dpkg("berth-slow").await.as_str(), lab.debian.run("dpkg --audit").await.as_str()), ("hi 2.0", ""));
}
