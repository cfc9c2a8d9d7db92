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
    archive::{self, ArchivePackage, Change, InstalledPackage},
    ping,
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
