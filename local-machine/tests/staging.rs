//! Releases that are brought to a machine ahead of their deployment.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::mpsc,
    time::Duration,
};

use berth_machine::{
    MachineChange, MachineError,
    app::{self, AppRelease},
    staging::{StagedRelease, stage_app},
};
use support::{LIMIT, LocalLab, ROOT, application, get, until};

/// Where nobody answers.
const GONE: &str = "http://127.0.0.1:1/gone.tgz";

/// An application that answers with its revision.
fn web(revision: &str) -> AppRelease {
    application(revision, artifact(revision))
}

fn artifact(revision: &str) -> Vec<u8> {
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .\n";
    support::archive(&[("run", run, true), ("index.html", revision, false)])
}

fn staged(app: &AppRelease) -> StagedRelease {
    StagedRelease {
        name: app.name.clone(),
        revision: app.revision.clone(),
        url: app.url.clone(),
        sha256: app.sha256.clone(),
        format: app.format,
        authorization: None,
    }
}

fn without_artifact(app: &AppRelease) -> AppRelease {
    AppRelease { url: GONE.into(), ..app.clone() }
}

/// Waits until a condition holds, while everything else goes on.
async fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "{what}: not within {LIMIT:?}");
}

/// The names in the folder of what was brought ahead, without the lock.
fn brought(lab: &LocalLab) -> Vec<String> {
    let Ok(folder) = fs::read_dir(lab.path("apps/web/staging")) else { return Vec::new() };
    let names = folder.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned());
    names.filter(|name| name != ".lock").collect()
}

/// Everything below Berth's folder but what is brought ahead, with what changes when somebody writes or replaces it.
fn everything_else(lab: &LocalLab) -> BTreeMap<String, (u64, i64, i64, u64)> {
    fn add(folder: &Path, found: &mut BTreeMap<String, (u64, i64, i64, u64)>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).unwrap();
            // The service writes its own log. The folder of the application gets the folder for what is brought ahead.
            if path.ends_with("apps/web/staging") || path.ends_with("services/web/log") {
                continue;
            }
            let times =
                if path.ends_with("apps/web") { (0, 0, 0) } else { (meta.mtime(), meta.mtime_nsec(), meta.size()) };
            found.insert(path.display().to_string(), (meta.ino(), times.0, times.1, times.2));
            if meta.is_dir() {
                add(&path, found);
            }
        }
    }
    let mut found = BTreeMap::new();
    add(&lab.path(""), &mut found);
    found
}

/// Serves an artifact of which it sends the first half, and the rest once it is told to.
fn serve_in_two_halves(artifact: Vec<u8>) -> (String, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (go_on, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The head of a request fits.
        let _ = stream.read(&mut [0; 2048]).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", artifact.len());
        let (first, rest) = artifact.split_at(artifact.len() / 2);
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(first)).unwrap();
        let _ = told.recv();
        let _ = stream.write_all(rest);
    });
    (url, go_on)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_brought_ahead_leaves_what_runs_alone_and_is_deployed_without_its_artifact() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let deploy = async |app: &AppRelease| app::deploy_app(&machine, ROOT, app, LIMIT).await;
    let stage = async |app: &AppRelease| stage_app(&machine, ROOT, &staged(app), LIMIT).await;
    let (v1, v2) = (web("v1"), web("v2"));
    let (_, first) = deploy(&v1).await.unwrap();
    until("v1 answers", || get(&lab.info.address, 8080, "/").as_deref() == Some("v1"));
    assert_eq!(stage(&without_artifact(&v1)).await.unwrap(), MachineChange::None, "it is deployed");

    let before = everything_else(&lab);
    assert_eq!(stage(&v2).await.unwrap(), MachineChange::Done);
    assert_eq!(stage(&without_artifact(&v2)).await.unwrap(), MachineChange::None, "it is there");
    assert_eq!(brought(&lab), ["release"]);
    assert_eq!(everything_else(&lab), before);
    assert_eq!(app::read_app(&machine, ROOT, "web", LIMIT).await.unwrap(), first);
    assert_eq!(get(&lab.info.address, 8080, "/").as_deref(), Some("v1"));

    let (change, status) = deploy(&without_artifact(&v2)).await.unwrap();
    assert_eq!((change, status.revision.as_deref(), status.running), (MachineChange::Done, Some("v2"), true));
    until("v2 answers", || get(&lab.info.address, 8080, "/").as_deref() == Some("v2"));
    assert_eq!(brought(&lab), [""; 0]);
    assert!(lab.path("apps/web/releases/v1").exists(), "the earlier release stays as ever");
    assert_eq!(stage(&without_artifact(&v1)).await.unwrap(), MachineChange::None, "it was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_release_at_most_waits_and_a_deployment_that_changes_something_deletes_it() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let deploy = async |app: &AppRelease| app::deploy_app(&machine, ROOT, app, LIMIT).await.unwrap().0;
    let stage = async |app: &AppRelease| stage_app(&machine, ROOT, &staged(app), LIMIT).await.unwrap();
    let v1 = web("v1");
    deploy(&v1).await;
    stage(&web("v2")).await;
    let v3 = web("v3");
    assert_eq!(stage(&v3).await, MachineChange::Done);
    assert_eq!(brought(&lab), ["release"]);
    assert_eq!(deploy(&v1).await, MachineChange::None);
    assert_eq!(brought(&lab), ["release"], "what is verified meanwhile takes nothing from the roll-out");
    assert_eq!(stage(&without_artifact(&v3)).await, MachineChange::None);
    // Aborted, and another version comes.
    deploy(&web("v4")).await;
    assert_eq!(brought(&lab), [""; 0]);
    let kept = fs::read_dir(lab.path("apps/web/releases")).unwrap().count();
    assert_eq!(kept, 2, "v4 and v1: what was never deployed is no release");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_revision_with_another_artifact_can_be_brought_ahead() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let v1 = web("v1");
    let (_, first) = app::deploy_app(&machine, ROOT, &v1, LIMIT).await.unwrap();
    let other = AppRelease { revision: "v1".into(), ..application("other", artifact("other")) };
    assert_eq!(stage_app(&machine, ROOT, &staged(&other), LIMIT).await.unwrap(), MachineChange::Done);
    assert_eq!(app::read_app(&machine, ROOT, "web", LIMIT).await.unwrap(), first);
    app::deploy_app(&machine, ROOT, &without_artifact(&other), LIMIT).await.unwrap();
    until("the other one answers", || get(&lab.info.address, 8080, "/").as_deref() == Some("other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_release_that_is_wanted_is_not_deployed() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    app::deploy_app(&machine, ROOT, &web("v1"), LIMIT).await.unwrap();
    let v2 = web("v2");
    // An artifact with another digest is not even unpacked, and the deployment says so itself.
    let wrong = AppRelease { sha256: "0".repeat(64), ..v2.clone() };
    let error = stage_app(&machine, ROOT, &staged(&wrong), LIMIT).await.unwrap_err();
    assert!(matches!(&error, MachineError::DigestMismatch { actual, .. } if *actual == v2.sha256), "{error}");
    assert_eq!(brought(&lab), [""; 0]);
    assert_eq!(app::deploy_app(&machine, ROOT, &wrong, LIMIT).await.unwrap_err(), error);
    // What somebody else has put there has no marker, or that of another release.
    for marker in [None, Some("revision=v2\nsha256=1\n"), Some("revision=v3\n")] {
        let folder = lab.path("apps/web/staging/release");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("run"), "#!/bin/sh\nexec sleep 1000\n").unwrap();
        if let Some(marker) = marker {
            fs::write(folder.join(".berth-release"), marker).unwrap();
        }
        let error = app::deploy_app(&machine, ROOT, &without_artifact(&v2), LIMIT).await.unwrap_err();
        assert!(matches!(error, MachineError::Download { .. }), "{marker:?}: {error}");
    }
    assert_eq!(get(&lab.info.address, 8080, "/").as_deref(), Some("v1"));
    assert_eq!(stage_app(&machine, ROOT, &staged(&v2), LIMIT).await.unwrap(), MachineChange::Done);
    app::deploy_app(&machine, ROOT, &without_artifact(&v2), LIMIT).await.unwrap();
    until("v2 answers", || get(&lab.info.address, 8080, "/").as_deref() == Some("v2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_and_what_is_brought_ahead_do_not_wait_for_each_other() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    app::deploy_app(&machine, ROOT, &web("v1"), LIMIT).await.unwrap();
    let v2 = web("v2");
    let (url, go_on) = serve_in_two_halves(artifact("v2"));
    let half = StagedRelease { url, ..staged(&v2) };
    let stage = async |release: &StagedRelease| stage_app(&machine, ROOT, release, LIMIT).await.unwrap();
    let in_between = async {
        soon("the download has begun", || !brought(&lab).is_empty()).await;
        // While it hangs, the same release is deployed, with an artifact of its own.
        let (change, _) = app::deploy_app(&machine, ROOT, &v2, LIMIT).await.unwrap();
        assert_eq!(change, MachineChange::Done);
        go_on.send(()).unwrap();
    };
    // Another copy brings the same one: the second one waits for the first one.
    let (first, second, ()) = tokio::join!(stage(&half), stage(&half), in_between);
    assert_eq!((first, second), (MachineChange::None, MachineChange::None), "it is deployed meanwhile");
    until("v2 answers", || get(&lab.info.address, 8080, "/").as_deref() == Some("v2"));
    assert_eq!(brought(&lab), [""; 0]);

    // A deployment that hangs has the machine's lock, and something is brought ahead all the same.
    let (url, go_on) = serve_in_two_halves(artifact("v3"));
    let v3 = AppRelease { url, ..web("v3") };
    let deploying = app::deploy_app(&machine, ROOT, &v3, LIMIT);
    let meanwhile = async {
        let is_downloading = || {
            let folders = fs::read_dir(lab.path("apps/web/releases")).unwrap().flatten();
            folders.map(|entry| entry.file_name()).any(|name| name.to_str().unwrap().starts_with(".tmp"))
        };
        soon("the deployment downloads", is_downloading).await;
        assert_eq!(stage(&staged(&web("v4"))).await, MachineChange::Done);
        assert_eq!(get(&lab.info.address, 8080, "/").as_deref(), Some("v2"));
        go_on.send(()).unwrap();
    };
    let (deployed, ()) = tokio::join!(deploying, meanwhile);
    assert_eq!(deployed.unwrap().1.revision.as_deref(), Some("v3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stagings_and_a_deployment_at_once_leave_the_wanted_release_running_and_nothing_behind() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    app::deploy_app(&machine, ROOT, &web("v1"), LIMIT).await.unwrap();
    for (number, revision) in ["v2", "v3", "v4", "v5"].into_iter().enumerate() {
        let (wanted, other) = (web(revision), web(&format!("other-{number}")));
        let (wanted_ahead, other_ahead) = (staged(&wanted), staged(&other));
        let stage = async |release: &StagedRelease| stage_app(&machine, ROOT, release, LIMIT).await.unwrap();
        let deploy = app::deploy_app(&machine, ROOT, &wanted, LIMIT);
        let (_, _, _, deployed) = tokio::join!(stage(&wanted_ahead), stage(&other_ahead), stage(&wanted_ahead), deploy);
        assert_eq!(deployed.unwrap().1.digest, Some(wanted.digest.clone()));
        until("it answers", || get(&lab.info.address, 8080, "/").as_deref() == Some(revision));
        let left = brought(&lab);
        assert!(left.is_empty() || left == ["release"], "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_staging_leaves_nothing_that_counts_and_is_made_again() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    app::deploy_app(&machine, ROOT, &web("v1"), LIMIT).await.unwrap();
    let v2 = web("v2");
    let (url, _go_on) = serve_in_two_halves(artifact("v2"));
    let half = StagedRelease { url, ..staged(&v2) };
    tokio::select! {
        biased;
        end = stage_app(&machine, ROOT, &half, LIMIT) => panic!("{end:?}"),
        () = soon("the download has begun", || !brought(&lab).is_empty()) => {}
    }
    soon("the watchdog has ended it, and what was downloaded is gone", || brought(&lab).is_empty()).await;
    // A machine that loses its power leaves it there.
    fs::create_dir_all(lab.path("apps/web/staging/.tmp.lost/content")).unwrap();
    fs::write(lab.path("apps/web/staging/.tmp.lost/content/run"), "half").unwrap();
    assert_eq!(stage_app(&machine, ROOT, &staged(&v2), LIMIT).await.unwrap(), MachineChange::Done);
    assert_eq!(brought(&lab), ["release"]);
    fs::create_dir_all(lab.path("apps/web/staging/.tmp.lost")).unwrap();
    app::deploy_app(&machine, ROOT, &without_artifact(&v2), LIMIT).await.unwrap();
    assert_eq!(brought(&lab), [""; 0]);
}
