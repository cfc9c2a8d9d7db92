//! Packages of kind dnf, with Debian's dnf and rpm on a machine with an empty rpm database and a repository of its own.

use std::path::Path;

use crate::debian::{Debian, LIMIT, Mirror, MirrorFiles};
use berth_machine::{
    MachineChange, MachineError, Removal, dnf,
    inventory::{self, DeclaredPackage, FoundPackage, PackageKind},
    package_manager::ManagedPackage,
};

const ROOT: &str = "opt/berth";

const BUILD: &str = r#"
set -eu
build() { # NAME EPOCH VERSION REQUIRES
    printf 'Name: %s\nEpoch: %s\nVersion: %s\nRelease: 1\nSummary: test\nLicense: X\nBuildArch: noarch\nRequires: %s\n' \
        "$1" "$2" "$3" "$4" | sed '/^Requires: $/d' >/tmp/build.spec
    printf '%%description\ntest\n%%install\nmkdir -p %%{buildroot}/usr/share/berth-test\n' >>/tmp/build.spec
    printf 'echo %s >%%{buildroot}/usr/share/berth-test/%s\n%%files\n/usr/share/berth-test/%s\n' "$3" "$1" "$1" >>/tmp/build.spec
    rpmbuild --quiet -bb --define '_rpmdir /srv/repo' --define '_topdir /tmp/rpm' --define '_rpmfilename %{NAME}-%{VERSION}.rpm' /tmp/build.spec
}
mkdir -p /srv/repo
build berth-one 0 1.0 ''
build berth-one 1 0.9 ''
build berth-lib 0 1.0 ''
build berth-user 0 1.0 'berth-lib = 1.0'
cd /srv/repo
createrepo_c --quiet --no-database .
find . -type f -printf '%P\n'
"#;

struct DnfLab {
    debian: Debian,
    mirror: Mirror,
    files: MirrorFiles,
}

impl DnfLab {
    async fn start() -> Self {
        for (program, package) in [("dnf", "dnf"), ("rpmbuild", "rpm"), ("createrepo_c", "createrepo-c")] {
            assert!(Path::new("/usr/bin").join(program).exists(), "{program} is missing: install Debian's {package}");
        }
        let (debian, mirror) = (Debian::start().await, Mirror::start());
        let mut files = MirrorFiles::new();
        for name in debian.run(BUILD).await.lines() {
            files.insert(name.to_owned(), debian.bytes(&format!("cat /srv/repo/{name}")).await);
        }
        mirror.publish(Some(files.clone()));
        let repo = format!("[test]\nname=test\nbaseurl=http://{}/\ngpgcheck=0\nretries=1\n", mirror.address);
        debian.run(&format!("printf '{repo}' >/etc/yum.repos.d/test.repo")).await;
        // Debian's plugin for local files requires signatures, and there is no Fedora whose release could be detected.
        debian.run("rm -f /etc/dnf/plugins/local.conf; printf '[main]\n' >/etc/dnf/dnf.conf; echo 1 >/etc/dnf/vars/releasever").await;
        Self { debian, mirror, files }
    }

    async fn install(&self, packages: &[ManagedPackage]) -> Result<MachineChange, MachineError> {
        dnf::MANAGER.install(&self.debian.machine, ROOT, packages, LIMIT).await
    }

    async fn remove(&self, name: &str, also: &[&str]) -> Removal {
        dnf::MANAGER.remove(&self.debian.machine, ROOT, name, also, LIMIT).await.unwrap()
    }

    async fn found(&self, package: &ManagedPackage) -> Option<FoundPackage> {
        let declared = [DeclaredPackage::Dnf(package.clone())];
        let inventory = inventory::read(&self.debian.machine, ROOT, &declared, LIMIT).await.unwrap();
        inventory.get(PackageKind::Dnf, &package.name).cloned()
    }

    async fn is_right(&self, package: &ManagedPackage) -> bool {
        self.found(package).await.is_some_and(|found| found.right)
    }

    /// The packages that a person's `dnf upgrade` would change.
    async fn upgradable(&self) -> String {
        self.debian.run("dnf -q check-update 2>/dev/null | sed -n 's/ .*//p'").await
    }
}

fn held(name: &str, version: &str) -> ManagedPackage {
    ManagedPackage { name: name.into(), version: version.into(), hold: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_installed_locked_upgraded_downgraded_unlocked_and_removed() {
    let lab = DnfLab::start().await;
    let (one, two) = (held("berth-one", "1.0-1"), held("berth-one", "1:0.9-1"));
    let unheld = ManagedPackage { hold: false, ..one.clone() };
    assert_eq!(lab.found(&one).await, None);
    assert_eq!(lab.install(std::slice::from_ref(&one)).await, Ok(MachineChange::Done));
    let found = lab.found(&one).await.unwrap();
    assert!(found.own && found.right && found.version.as_deref() == Some("1.0-1"), "{found:?}");
    assert_eq!(lab.upgradable().await, "", "the lock prevents an upgrade");

    lab.mirror.requests();
    assert_eq!(lab.install(std::slice::from_ref(&one)).await, Ok(MachineChange::None));
    assert_eq!(lab.mirror.requests(), Vec::<String>::new());

    assert_eq!(lab.install(std::slice::from_ref(&two)).await, Ok(MachineChange::Done));
    assert!(lab.is_right(&two).await && !lab.is_right(&one).await);
    assert_eq!(lab.install(std::slice::from_ref(&one)).await, Ok(MachineChange::Done));
    assert!(lab.is_right(&one).await);

    assert_eq!(lab.install(std::slice::from_ref(&unheld)).await, Ok(MachineChange::Done));
    assert!(lab.is_right(&unheld).await);
    assert_eq!(lab.upgradable().await, "berth-one.noarch\n");

    // On a machine without the plugin the package is excluded instead.
    lab.debian.run("rm /etc/dnf/plugins/versionlock.* /usr/lib/python3/dist-packages/dnf-plugins/versionlock.py").await;
    assert_eq!(lab.install(std::slice::from_ref(&one)).await, Ok(MachineChange::Done));
    assert!(lab.is_right(&one).await);
    assert_eq!(lab.upgradable().await, "");
    assert_eq!(lab.install(std::slice::from_ref(&two)).await, Ok(MachineChange::Done));
    assert!(lab.is_right(&two).await);

    assert_eq!(lab.remove("berth-one", &[]).await, Removal::Removed);
    assert_eq!(lab.debian.run("test -e /usr/share/berth-test/berth-one || echo gone").await, "gone\n");
    assert_eq!(lab.found(&one).await, None);
    assert_eq!(lab.debian.run("grep excludepkgs /etc/dnf/dnf.conf || echo none").await, "none\n");
    assert_eq!(lab.remove("berth-one", &[]).await, Removal::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_berth_did_not_install_or_that_others_need_are_not_removed() {
    let lab = DnfLab::start().await;
    lab.debian.run("dnf -yq install berth-one-1.0-1").await;
    assert_eq!(lab.install(&[held("berth-one", "1:0.9-1"), held("berth-lib", "1.0-1")]).await, Ok(MachineChange::Done));
    assert!(matches!(lab.remove("berth-one", &[]).await, Removal::Kept(_)));
    assert!(lab.found(&held("berth-one", "1:0.9-1")).await.unwrap().version.is_some());

    lab.debian.run("dnf -yq install berth-user").await;
    let Removal::Kept(reason) = lab.remove("berth-lib", &[]).await else { panic!("it was removed") };
    assert_eq!(reason, "needed by berth-user");
    lab.debian.run("rpm -q berth-lib berth-user").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_errors_are_distinguished_from_temporary_ones() {
    let lab = DnfLab::start().await;
    lab.mirror.publish(None);
    let error = lab.install(&[held("berth-one", "1.0-1")]).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::PackageManager { name, .. } if name == "dnf") && !error.is_permanent(),
        "{error}"
    );
    lab.mirror.publish(Some(lab.files.clone()));
    assert_eq!(lab.install(&[held("berth-one", "1.0-1")]).await, Ok(MachineChange::Done));
    let error = lab.install(&[held("berth-one", "9.9-1")]).await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_permanent() && text.contains("berth-one 9.9-1 does not exist"), "{text}");
    assert!(text.contains("Unable to find a match") && text.contains("1.0-1 1:0.9-1"), "{text}");
    assert!(lab.is_right(&held("berth-one", "1.0-1")).await, "a failure leaves version and lock unchanged");
}
