//! The steps on a real machine process, over real SSH.

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
    Error,
    app::{self, App},
    apt,
    archive::{self, ArchivePackage, Change, InstalledPackage},
    inventory::{self, Declared, Kind},
    managed::{ManagedPackage, Removal},
    ping,
    scripted::{self, ScriptPackage},
};
use support::{LIMIT, Lab, ROOT, get, serve, sha256, until};

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

fn web(revision: &str, port: u16) -> App {
    let run = "#!/bin/sh\nprintf '%s' \"$GREETING\" >greeting\nprintf '%s' \"$BERTH_APP_REVISION\" >revision\n\
               exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .\n";
    let artifact = support::archive(&[("run", run, true), ("index.html", revision, false)]);
    App {
        name: "web".into(),
        revision: revision.into(),
        sha256: sha256(&artifact),
        url: serve(artifact),
        env: BTreeMap::from([("GREETING".into(), "it's \"$HOME\" `id`\nand more".into())]),
        command: vec!["./run".into()],
        port,
        keep_releases: 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_installed_once_switched_and_removed() {
    let lab = Lab::start();
    let machine = lab.machine();
    let (one, two) = (package("1.0", "one"), package("2:1.0", "two"));
    let installed = |p: &ArchivePackage| {
        vec![InstalledPackage { name: "tool".into(), version: p.version.clone(), sha256: p.sha256.clone() }]
    };

    assert_eq!(archive::list_packages(&machine, ROOT, LIMIT).await.unwrap(), vec![]);
    assert_eq!(archive::install_package(&machine, ROOT, &one, LIMIT).await.unwrap(), Change::Done);
    assert_eq!(archive::list_packages(&machine, ROOT, LIMIT).await.unwrap(), installed(&one));
    let link = lab.dir.root().join("opt/tool/tool");
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "one");

    let marker = lab.path("packages/tool/current/.berth-package");
    let state = |path| std::fs::metadata(path).map(|meta| (meta.ino(), meta.mtime(), meta.mtime_nsec())).unwrap();
    let folder = lab.path("packages/tool/current");
    let before = (state(&marker), state(&folder));
    assert_eq!(archive::install_package(&machine, ROOT, &one, LIMIT).await.unwrap(), Change::None);
    assert_eq!((state(&marker), state(&folder)), before);
    assert_eq!(std::fs::read_to_string(folder.join("it")).unwrap(), "installed\n");

    assert_eq!(archive::install_package(&machine, ROOT, &two, LIMIT).await.unwrap(), Change::Done);
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "two");
    assert_eq!(archive::list_packages(&machine, ROOT, LIMIT).await.unwrap(), installed(&two));
    assert!(!lab.path("packages/tool").join(&one.sha256).exists());

    assert_eq!(archive::remove_package(&machine, ROOT, "tool", LIMIT).await.unwrap(), Change::Done);
    assert_eq!(archive::remove_package(&machine, ROOT, "tool", LIMIT).await.unwrap(), Change::None);
    assert_eq!(std::fs::read_to_string(lab.dir.root().join("removed")).unwrap(), "installed\n");
    assert!(!lab.path("packages/tool").exists() && !lab.dir.root().join("opt/tool").is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_artifact_leaves_nothing_behind_and_the_old_version_in_place() {
    let lab = Lab::start();
    let machine = lab.machine();
    let good = package("1", "one");
    archive::install_package(&machine, ROOT, &good, LIMIT).await.unwrap();

    let mut wrong = package("2", "two");
    let actual = std::mem::replace(&mut wrong.sha256, "0".repeat(64));
    let error = archive::install_package(&machine, ROOT, &wrong, LIMIT).await.unwrap_err();
    assert_eq!(
        error,
        Error::DigestMismatch { url: wrong.url.clone(), expected: wrong.sha256.clone(), actual: actual.clone() }
    );

    let cut = ArchivePackage { url: wrong.url.replace("/tool", "/cut"), sha256: actual, ..wrong.clone() };
    let error = archive::install_package(&machine, ROOT, &cut, LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error}");

    let mut failing = package("3", "three");
    failing.install = Some("echo no licence >&2; exit 7".into());
    let error = archive::install_package(&machine, ROOT, &failing, LIMIT).await.unwrap_err();
    assert!(matches!(&error, Error::Hook { what, reason } if what == "install" && reason.contains("no licence")));

    let left: Vec<_> = std::fs::read_dir(lab.path("packages/tool")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".tmp")), "{left:?}");
    let version = &archive::list_packages(&machine, ROOT, LIMIT).await.unwrap()[0].version;
    assert_eq!(version, "1");
    // The failed installation is no obstacle for a repaired one.
    failing.install = None;
    assert_eq!(archive::install_package(&machine, ROOT, &failing, LIMIT).await.unwrap(), Change::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_deployed_changed_in_place_stopped_and_removed() {
    let lab = Lab::start();
    let machine = lab.machine();
    let address = lab.info.address.clone();
    let (one, two, three) = (web("v1", 8080), web("v2", 8080), web("v3", 8080));
    let page = || get(&address, 8080, "/");

    let (change, status) = app::deploy_app(&machine, ROOT, &one, LIMIT).await.unwrap();
    assert_eq!((change, status.revision.as_deref(), status.running), (Change::Done, Some("v1"), true));
    until("v1 answers", || page().as_deref() == Some("v1"));
    let current = lab.path("apps/web/current");
    assert_eq!(std::fs::read_to_string(current.join("greeting")).unwrap(), one.env["GREETING"]);
    assert_eq!(std::fs::read_to_string(current.join("revision")).unwrap(), "v1");

    let (change, again) = app::deploy_app(&machine, ROOT, &one, LIMIT).await.unwrap();
    assert_eq!((change, &again), (Change::None, &status));

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

    let stopped = app::stop_app(&machine, ROOT, "web", LIMIT).await.unwrap();
    assert_eq!((stopped.revision.as_deref(), stopped.running), (Some("v3"), false));
    assert_eq!(page(), None);
    assert_eq!(app::remove_app(&machine, ROOT, "web", LIMIT).await.unwrap(), Change::Done);
    assert_eq!(app::remove_app(&machine, ROOT, "web", LIMIT).await.unwrap(), Change::None);
    let status = app::app_status(&machine, ROOT, "web", LIMIT).await.unwrap();
    assert_eq!(status, app::AppStatus::default());
    assert_eq!(lab.dir.processes().unwrap(), [lab.info.pid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_comes_back_after_its_death_and_after_a_reboot_and_dies_with_its_machine() {
    let lab = Lab::start();
    let machine = lab.machine();
    let app = web("v1", 8080);
    let (_, status) = app::deploy_app(&machine, ROOT, &app, LIMIT).await.unwrap();
    let page = || get(&lab.info.address, 8080, "/");
    until("v1 answers", || page().is_some());

    let killed = status.pid.unwrap();
    std::process::Command::new("kill").args(["-9", &killed.to_string()]).status().unwrap();
    until("the service is gone", || page().is_none());
    until("the service is back", || page().is_some());
    let status = app::app_status(&machine, ROOT, "web", LIMIT).await.unwrap();
    assert!(status.running && status.pid != Some(killed), "{status:?}");

    let boot = ping::ping(&machine, LIMIT).await.unwrap().boot_id;
    assert_eq!(boot, lab.info.boot_id);
    let rebooted = lab.dir.reboot(support::BINARY.as_ref()).unwrap();
    assert_eq!(rebooted.host_key, lab.info.host_key);
    assert_ne!(rebooted.boot_id, boot);
    until("the service is back after the reboot", || page().is_some());
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
async fn a_script_package_is_what_its_check_says_and_is_removed_after_its_declaration_is_gone() {
    let lab = Lab::start();
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
        let declared = [Declared::Script(package.clone())];
        let inventory = inventory::read(&machine, ROOT, &declared, LIMIT).await.unwrap();
        inventory.get(Kind::Script, "agent").map(|found| (found.version.clone(), found.own, found.right))
    };
    let file = |name: &str| std::fs::read_to_string(lab.dir.root().join(name)).unwrap_or_default();
    let (one, two) = (agent("1"), agent("2"));
    assert_eq!(read(&one).await, None);
    assert_eq!(scripted::install(&machine, ROOT, &one, LIMIT).await, Ok(Change::Done));
    assert_eq!(scripted::install(&machine, ROOT, &one, LIMIT).await, Ok(Change::None));
    assert_eq!((read(&one).await, file("installs").as_str()), (Some((Some("1".into()), true, true)), "x\n"));
    assert_eq!(read(&two).await, Some((Some("1".into()), true, false)), "what is there instead");
    assert_eq!(scripted::install(&machine, ROOT, &two, LIMIT).await, Ok(Change::Done));
    assert_eq!(read(&two).await, Some((Some("2".into()), true, true)));
    // Somebody broke it.
    std::fs::write(lab.dir.root().join("agent"), "x").unwrap();
    assert_eq!(read(&two).await, Some((None, true, false)));
    // Only its remove command has changed.
    assert_eq!(scripted::install(&machine, ROOT, &two, LIMIT).await, Ok(Change::Done));
    let other = ScriptPackage { remove: Some("echo other >removed".into()), ..two.clone() };
    assert_eq!(read(&other).await, Some((Some("2".into()), true, false)));
    assert_eq!(scripted::install(&machine, ROOT, &other, LIMIT).await, Ok(Change::None));
    assert_eq!(read(&other).await, Some((Some("2".into()), true, true)));
    assert_eq!(scripted::remove(&machine, ROOT, "agent", LIMIT).await, Ok(Removal::Removed));
    assert_eq!((file("removed").as_str(), read(&agent("3")).await), ("other\n", None));
    assert_eq!(scripted::remove(&machine, ROOT, "agent", LIMIT).await, Ok(Removal::None));

    // What its check finds there before Berth is right, and not Berth's to remove.
    std::fs::write(lab.dir.root().join("agent"), "agent it's 2").unwrap();
    assert_eq!(read(&two).await, Some((Some("2".into()), false, true)));
    assert_eq!(scripted::install(&machine, ROOT, &two, LIMIT).await, Ok(Change::None));
    assert_eq!(scripted::remove(&machine, ROOT, "agent", LIMIT).await, Ok(Removal::None));

    let failing = ScriptPackage { install: "echo no licence >&2; exit 3".into(), ..agent("4") };
    let error = scripted::install(&machine, ROOT, &failing, LIMIT).await.unwrap_err();
    assert!(matches!(&error, Error::Hook { what, reason } if what == "install" && reason.contains("no licence")));
    let idle = ScriptPackage { install: "true".into(), ..agent("4") };
    let error = scripted::install(&machine, ROOT, &idle, LIMIT).await.unwrap_err();
    assert!(matches!(&error, Error::Hook { what, .. } if what == "check"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_sees_what_became_of_an_archive() {
    let lab = Lab::start();
    let machine = lab.machine();
    let tool = package("1.0", "one");
    let read = async |package: &ArchivePackage| {
        let declared = [Declared::Archive(package.clone())];
        let inventory = inventory::read(&machine, ROOT, &declared, LIMIT).await.unwrap();
        assert_eq!(inventory.machine.boot_id, ping::ping(&machine, LIMIT).await.unwrap().boot_id);
        inventory.get(Kind::Archive, "tool").map(|found| (found.version.clone(), found.right))
    };
    assert_eq!(read(&tool).await, None);
    archive::install_package(&machine, ROOT, &tool, LIMIT).await.unwrap();
    assert_eq!(read(&tool).await, Some((Some("1.0".into()), true)));
    let elsewhere = ArchivePackage { destination: Some("opt/other".into()), ..tool.clone() };
    let left_differently = ArchivePackage { remove: None, ..tool.clone() };
    for changed in [&package("1.0", "another"), &elsewhere, &left_differently] {
        assert_eq!(read(changed).await, Some((Some("1.0".into()), false)), "{changed:?}");
    }
    std::fs::remove_file(lab.dir.root().join("opt/tool")).unwrap();
    assert_eq!(read(&tool).await, Some((Some("1.0".into()), false)), "somebody took the link away");
    assert_eq!(archive::install_package(&machine, ROOT, &tool, LIMIT).await.unwrap(), Change::Done);
    assert_eq!(archive::install_package(&machine, ROOT, &left_differently, LIMIT).await.unwrap(), Change::Done);
    assert_eq!(read(&left_differently).await, Some((Some("1.0".into()), true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_a_process_never_touches_its_hosts_packages() {
    let lab = Lab::start();
    let package = ManagedPackage { name: "berth-nothing".into(), version: "1".into(), hold: true };
    let error = apt::MANAGER.install(&lab.machine(), ROOT, &[package], LIMIT).await.unwrap_err();
    assert!(matches!(&error, Error::Unsuitable(reason) if reason.contains("host")) && error.is_permanent(), "{error}");
    assert!(!lab.path("managed").exists());
}
