//! The operations on a real machine process, over real SSH.

mod support;

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use berth_machine::{
    Machine, MachineChange, MachineError, Removal,
    app::{self, AppRelease},
    apt,
    archive::{self, ArchivePackage},
    inventory::{self, DeclaredPackage, PackageKind},
    package_manager::ManagedPackage,
    ping,
    script_package::{self, ScriptPackage},
};
use support::{LIMIT, LocalLab, ROOT, application, get, serve, sha256, until};

fn package(version: &str, content: &str) -> ArchivePackage {
    let artifact = support::archive(&[("tool", content, true)]);
    let sha256 = sha256(&artifact);
    ArchivePackage {
        name: "tool".into(),
        version: version.into(),
        url: format!("{}/tool.tar.gz", serve(artifact)),
        sha256,
        destination: Some("opt/tool".into()),
        install: Some("echo installed >>it; echo noise".into()),
        remove: Some("cat it >\"$HOME/removed\"".into()),
    }
}

fn web(revision: &str, port: u16) -> AppRelease {
    let run = "#!/bin/sh\nprintf '%s' \"$GREETING\" >greeting\nprintf '%s' \"$BERTH_APP_REVISION\" >revision\n\
               exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .\n";
    let artifact = support::archive(&[("run", run, true), ("index.html", revision, false)]);
    let env = BTreeMap::from([("GREETING".into(), "it's \"$HOME\" `id`\nand more".into())]);
    AppRelease { env, port, ..application(revision, artifact) }
}

/// Version and digest of the installed archives.
async fn archives(machine: &dyn Machine) -> Result<Vec<(String, String)>, MachineError> {
    let found = inventory::read(machine, ROOT, &[], LIMIT).await?.packages.into_iter();
    let archives = found.filter(|found| found.kind == PackageKind::Archive);
    Ok(archives.filter_map(|found| Some((found.version?, found.sha256?))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_installed_once_upgraded_and_removed() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let (one, two) = (package("1.0", "one"), package("2:1.0", "two"));
    assert_eq!(archives(&machine).await.unwrap(), []);
    assert_eq!(archive::install_package(&machine, ROOT, &one, LIMIT).await.unwrap(), MachineChange::Done);
    assert_eq!(archives(&machine).await.unwrap(), [(one.version.clone(), one.sha256.clone())]);
    let link = lab.dir.root().join("opt/tool/tool");
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "one");

    let marker = lab.path("packages/tool/current/.berth-package");
    let state = |path| std::fs::metadata(path).map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec())).unwrap();
    let folder = lab.path("packages/tool/current");
    let before = (state(&marker), state(&folder));
    assert_eq!(archive::install_package(&machine, ROOT, &one, LIMIT).await.unwrap(), MachineChange::None);
    assert_eq!((state(&marker), state(&folder)), before);
    assert_eq!(std::fs::read_to_string(folder.join("it")).unwrap(), "installed\n");

    assert_eq!(archive::install_package(&machine, ROOT, &two, LIMIT).await.unwrap(), MachineChange::Done);
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "two");
    assert_eq!(archives(&machine).await.unwrap(), [(two.version.clone(), two.sha256.clone())]);
    assert!(!lab.path("packages/tool").join(&one.sha256).exists());

    assert_eq!(archive::remove_package(&machine, ROOT, "tool", LIMIT).await.unwrap(), MachineChange::Done);
    assert_eq!(archive::remove_package(&machine, ROOT, "tool", LIMIT).await.unwrap(), MachineChange::None);
    assert_eq!(std::fs::read_to_string(lab.dir.root().join("removed")).unwrap(), "installed\n");
    assert!(!lab.path("packages/tool").exists() && !lab.dir.root().join("opt/tool").is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_artifact_leaves_the_old_version_in_place_and_no_files_behind() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let good = package("1", "one");
    archive::install_package(&machine, ROOT, &good, LIMIT).await.unwrap();

    let mut wrong = package("2", "two");
    let actual = std::mem::replace(&mut wrong.sha256, "0".repeat(64));
    let error = archive::install_package(&machine, ROOT, &wrong, LIMIT).await.unwrap_err();
    assert_eq!(
        error,
        MachineError::DigestMismatch { url: wrong.url.clone(), expected: wrong.sha256.clone(), actual: actual.clone() }
    );

    let cut = ArchivePackage { url: wrong.url.replace("/tool", "/cut"), sha256: actual, ..wrong.clone() };
    let error = archive::install_package(&machine, ROOT, &cut, LIMIT).await.unwrap_err();
    assert!(matches!(error, MachineError::Download { .. }), "{error}");

    let mut failing = package("3", "three");
    failing.install = Some("echo no licence >&2; exit 7".into());
    let error = archive::install_package(&machine, ROOT, &failing, LIMIT).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::Hook { what, reason } if what == "install" && reason.contains("no licence"))
    );

    let left: Vec<_> = std::fs::read_dir(lab.path("packages/tool")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".tmp")), "{left:?}");
    assert_eq!(archives(&machine).await.unwrap(), [(good.version.clone(), good.sha256.clone())]);
    // The failed installation does not prevent a repaired one.
    failing.install = None;
    assert_eq!(archive::install_package(&machine, ROOT, &failing, LIMIT).await.unwrap(), MachineChange::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_deployed_once_and_upgraded_in_place() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let address = lab.info.address.clone();
    let (one, two, three) = (web("v1", 8080), web("v2", 8080), web("v3", 8080));
    let page = || get(&address, 8080, "/");

    let (change, status) = app::deploy_app(&machine, ROOT, &one, LIMIT).await.unwrap();
    assert_eq!((change, status.revision.as_deref(), status.running), (MachineChange::Done, Some("v1"), true));
    until("v1 answers", || page().as_deref() == Some("v1"));
    let current = lab.path("apps/web/current");
    assert_eq!(std::fs::read_to_string(current.join("greeting")).unwrap(), one.env["GREETING"]);
    assert_eq!(std::fs::read_to_string(current.join("revision")).unwrap(), "v1");

    let (change, unchanged) = app::deploy_app(&machine, ROOT, &one, LIMIT).await.unwrap();
    assert_eq!((change, &unchanged), (MachineChange::None, &status));

    // Readers of the link see the old or the new release at every moment.
    let stop = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (stop, file) = (Arc::clone(&stop), current.join("index.html"));
        move || {
            let mut seen = BTreeMap::<String, u64>::new();
            while !stop.load(Ordering::Relaxed) {
                *seen.entry(std::fs::read_to_string(&file).expect("a broken link")).or_default() += 1;
            }
            seen
        }
    });
    let (_, status) = app::deploy_app(&machine, ROOT, &two, LIMIT).await.unwrap();
    assert_eq!(status.revision.as_deref(), Some("v2"));
    until("v2 answers", || page().as_deref() == Some("v2"));
    stop.store(true, Ordering::Relaxed);
    let seen = reader.join().unwrap();
    assert!(seen["v1"] > 10 && seen["v2"] > 10 && seen.len() == 2, "{seen:?}");

    app::deploy_app(&machine, ROOT, &three, LIMIT).await.unwrap();
    let mut releases: Vec<_> =
        std::fs::read_dir(lab.path("apps/web/releases")).unwrap().flatten().map(|e| e.file_name()).collect();
    releases.sort();
    assert_eq!(releases, ["v2", "v3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_differs_from_what_was_deployed_until_a_deployment_is_complete() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let app = web("v1", 8080);
    let read = async || app::read_app(&machine, ROOT, "web", LIMIT).await.unwrap();
    assert_eq!(read().await, app::AppStatus::default(), "nothing is deployed");
    let (_, first) = app::deploy_app(&machine, ROOT, &app, LIMIT).await.unwrap();
    assert_eq!(first.digest.as_deref(), Some("digest-v1"));
    assert_eq!(read().await, first);

    // Another archive, and another environment, under the same revision.
    let mut other = web("v1", 8080);
    let artifact = support::archive(&[("run", "#!/bin/sh\nexec sleep 1000\n", true)]);
    (other.sha256, other.url, other.digest) = (sha256(&artifact), serve(artifact), "other".into());
    let (change, second) = app::deploy_app(&machine, ROOT, &other, LIMIT).await.unwrap();
    assert_eq!((change, second.digest.as_deref()), (MachineChange::Done, Some("other")));
    assert_ne!(second.pid, first.pid);
    other.env = BTreeMap::from([("GREETING".into(), "hi".into())]);
    other.digest = "third".into();
    let (change, third) = app::deploy_app(&machine, ROOT, &other, LIMIT).await.unwrap();
    assert_eq!((change, third.digest.as_deref(), third.pid != second.pid), (MachineChange::Done, Some("third"), true));

    // Only the digest is computed differently: nothing restarts.
    other.digest = "fourth".into();
    let (change, fourth) = app::deploy_app(&machine, ROOT, &other, LIMIT).await.unwrap();
    assert_eq!((change, fourth.digest.as_deref(), fourth.pid), (MachineChange::None, Some("fourth"), third.pid));
    assert_eq!(read().await, fourth);

    // A deployment that was interrupted before the restart: its files are there, and the old process runs.
    std::fs::remove_file(lab.path("services/web/started")).unwrap();
    assert_eq!((read().await.digest, read().await.pid), (None, third.pid));
    let (change, fifth) = app::deploy_app(&machine, ROOT, &other, LIMIT).await.unwrap();
    assert_eq!((change, fifth.digest.as_deref()), (MachineChange::Done, Some("fourth")));
    assert_ne!(fifth.pid, third.pid, "the service was restarted");

    // Somebody else changes how it is started, or what is current.
    let run = lab.path("services/web/run");
    std::fs::write(&run, std::fs::read_to_string(&run).unwrap() + "\n").unwrap();
    assert_eq!(read().await.digest, None);
    app::deploy_app(&machine, ROOT, &other, LIMIT).await.unwrap();
    assert_eq!(read().await.digest.as_deref(), Some("fourth"));
    std::fs::remove_file(lab.path("apps/web/current")).unwrap();
    assert_eq!((read().await.revision, read().await.digest), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_restarts_after_a_crash_and_a_reboot_and_ends_with_its_machine() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let app = web("v1", 8080);
    let (_, status) = app::deploy_app(&machine, ROOT, &app, LIMIT).await.unwrap();
    let page = || get(&lab.info.address, 8080, "/");
    until("v1 answers", || page().is_some());

    let killed = status.pid.unwrap();
    std::process::Command::new("kill").args(["-9", &killed.to_string()]).status().unwrap();
    until("the service has ended", || page().is_none());
    until("the service runs again", || page().is_some());
    let (change, status) = app::deploy_app(&machine, ROOT, &app, LIMIT).await.unwrap();
    assert_eq!((change, status.running), (MachineChange::None, true));
    assert_ne!(status.pid, Some(killed));

    let boot = ping::ping(&machine, LIMIT).await.unwrap().boot_id;
    assert_eq!(boot, lab.info.boot_id);
    let rebooted = lab.dir.reboot(support::BINARY.as_ref()).unwrap();
    assert_eq!(rebooted.host_key, lab.info.host_key);
    assert_ne!(rebooted.boot_id, boot);
    until("the service runs after the reboot", || page().is_some());
    assert_eq!(ping::ping(&machine, LIMIT).await.unwrap().boot_id, rebooted.boot_id);

    assert!(lab.dir.processes().unwrap().len() > 2);
    lab.dir.kill().unwrap();
    assert!(lab.dir.processes().unwrap().is_empty());
    assert!(!lab.dir.is_running().unwrap());
    assert_eq!(page(), None);
    let error = ping::ping(&machine, LIMIT).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_decides_whether_a_script_package_is_installed_and_its_mark_how_it_is_removed() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let agent = |version: &str| ScriptPackage {
        name: "agent".into(),
        version: version.into(),
        check: "[ \"$(cat agent)\" = \"$BERTH_PACKAGE_NAME it's $BERTH_PACKAGE_VERSION\" ]".into(),
        install: "echo noise; echo \"$BERTH_PACKAGE_NAME it's $BERTH_PACKAGE_VERSION\" >agent; echo x >>installs"
            .into(),
        remove: Some("echo $BERTH_PACKAGE_VERSION >removed; rm agent".into()),
    };
    let read = async |package: &ScriptPackage| {
        let declared = [DeclaredPackage::Script(package.clone())];
        let inventory = inventory::read(&machine, ROOT, &declared, LIMIT).await.unwrap();
        inventory.get(PackageKind::Script, "agent").map(|found| (found.version.clone(), found.own, found.right))
    };
    let file = |name: &str| std::fs::read_to_string(lab.dir.root().join(name)).unwrap_or_default();
    let (one, two) = (agent("1"), agent("2"));
    assert_eq!(read(&one).await, None);
    assert_eq!(script_package::install(&machine, ROOT, &one, LIMIT).await, Ok(MachineChange::Done));
    assert_eq!(script_package::install(&machine, ROOT, &one, LIMIT).await, Ok(MachineChange::None));
    assert_eq!((read(&one).await, file("installs").as_str()), (Some((Some("1".into()), true, true)), "x\n"));
    assert_eq!(read(&two).await, Some((Some("1".into()), true, false)), "the version that is installed instead");
    assert_eq!(script_package::install(&machine, ROOT, &two, LIMIT).await, Ok(MachineChange::Done));
    assert_eq!(read(&two).await, Some((Some("2".into()), true, true)));
    // Its check no longer succeeds.
    std::fs::write(lab.dir.root().join("agent"), "x").unwrap();
    assert_eq!(read(&two).await, Some((None, true, false)));
    // Only its remove command has changed.
    assert_eq!(script_package::install(&machine, ROOT, &two, LIMIT).await, Ok(MachineChange::Done));
    let other = ScriptPackage { remove: Some("echo other >removed".into()), ..two.clone() };
    assert_eq!(read(&other).await, Some((Some("2".into()), true, false)));
    assert_eq!(script_package::install(&machine, ROOT, &other, LIMIT).await, Ok(MachineChange::None));
    assert_eq!(read(&other).await, Some((Some("2".into()), true, true)));
    assert_eq!(script_package::remove(&machine, ROOT, "agent", LIMIT).await, Ok(Removal::Removed));
    assert_eq!((file("removed").as_str(), read(&agent("3")).await), ("other\n", None));
    assert_eq!(script_package::remove(&machine, ROOT, "agent", LIMIT).await, Ok(Removal::None));

    // A package that was installed before Berth is right, and Berth does not remove it.
    std::fs::write(lab.dir.root().join("agent"), "agent it's 2").unwrap();
    assert_eq!(read(&two).await, Some((Some("2".into()), false, true)));
    assert_eq!(script_package::install(&machine, ROOT, &two, LIMIT).await, Ok(MachineChange::None));
    assert_eq!(script_package::remove(&machine, ROOT, "agent", LIMIT).await, Ok(Removal::None));

    let failing = ScriptPackage { install: "echo no licence >&2; exit 3".into(), ..agent("4") };
    let error = script_package::install(&machine, ROOT, &failing, LIMIT).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::Hook { what, reason } if what == "install" && reason.contains("no licence"))
    );
    let idle = ScriptPackage { install: "true".into(), ..agent("4") };
    let error = script_package::install(&machine, ROOT, &idle, LIMIT).await.unwrap_err();
    assert!(matches!(&error, MachineError::Hook { what, .. } if what == "check"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_reports_how_an_archive_differs_from_its_declaration() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let tool = package("1.0", "one");
    let read = async |package: &ArchivePackage| {
        let declared = [DeclaredPackage::Archive(package.clone())];
        let inventory = inventory::read(&machine, ROOT, &declared, LIMIT).await.unwrap();
        assert_eq!(inventory.machine.boot_id, ping::ping(&machine, LIMIT).await.unwrap().boot_id);
        inventory.get(PackageKind::Archive, "tool").map(|found| (found.version.clone(), found.right))
    };
    assert_eq!(read(&tool).await, None);
    archive::install_package(&machine, ROOT, &tool, LIMIT).await.unwrap();
    assert_eq!(read(&tool).await, Some((Some("1.0".into()), true)));
    let elsewhere = ArchivePackage { destination: Some("opt/other".into()), ..tool.clone() };
    let removed_differently = ArchivePackage { remove: None, ..tool.clone() };
    for changed in [&package("1.0", "another"), &elsewhere, &removed_differently] {
        assert_eq!(read(changed).await, Some((Some("1.0".into()), false)), "{changed:?}");
    }
    std::fs::remove_file(lab.dir.root().join("opt/tool")).unwrap();
    assert_eq!(read(&tool).await, Some((Some("1.0".into()), false)), "its link is missing");
    assert_eq!(archive::install_package(&machine, ROOT, &tool, LIMIT).await.unwrap(), MachineChange::Done);
    assert_eq!(
        archive::install_package(&machine, ROOT, &removed_differently, LIMIT).await.unwrap(),
        MachineChange::Done
    );
    assert_eq!(read(&removed_differently).await, Some((Some("1.0".into()), true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_of_the_host_are_never_changed_on_a_machine_that_is_a_process() {
    let lab = LocalLab::start();
    let package = ManagedPackage { name: "berth-nothing".into(), version: "1".into(), hold: true };
    let error = apt::MANAGER.install(&lab.machine(), ROOT, &[package], LIMIT).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::Unsuitable(reason) if reason.contains("host")) && error.is_permanent(),
        "{error}"
    );
    assert!(!lab.path("managed").exists());
}

#[test]
fn a_person_who_mistypes_the_folder_is_told() {
    let nowhere = tempfile::tempdir().unwrap().path().join("nowhere");
    for command in ["kill", "status", "hang", "resume", "reboot"] {
        let output =
            std::process::Command::new(support::BINARY).arg(command).arg("--dir").arg(&nowhere).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{command} succeeds");
        assert!(said.contains("no machine in") && said.contains("nowhere"), "{command}: {said}");
    }
}
