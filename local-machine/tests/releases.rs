//! Which releases of an application stay on a machine, and what that is good for.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

mod support;

use std::{collections::BTreeSet, fs};

use berth_machine::{
    MachineChange,
    app::{self, AppRelease},
};
use support::{LIMIT, LocalLab, ROOT, application, get, until};

/// An application that answers with its revision, unless it is a failing one.
fn web(revision: &str, keep_releases: u32) -> AppRelease {
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .\n";
    let artifact = support::archive(&[("run", run, true), ("index.html", revision, false)]);
    AppRelease { keep_releases, ..application(revision, artifact) }
}

fn kept(lab: &LocalLab) -> BTreeSet<String> {
    let folder = fs::read_dir(lab.path("apps/web/releases")).unwrap();
    folder.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_canaries_leave_the_last_good_release_and_it_is_rolled_back_to_without_its_artifact() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let deploy = async |release: &AppRelease| app::deploy_app(&machine, ROOT, release, LIMIT).await;
    let stable = web("v1", 2);
    deploy(&stable).await.unwrap();
    for (canary, proven) in [("v2", Some("v1")), ("v3", None), ("v4", None), ("v5", None)] {
        deploy(&AppRelease { proven: proven.map(Into::into), ..web(canary, 2) }).await.unwrap();
        assert!(kept(&lab).contains("v1"), "{canary} leaves {:?}", kept(&lab));
    }
    let without_artifact = AppRelease { url: "http://127.0.0.1:1/gone.tgz".into(), ..stable };
    let (_, status) = deploy(&without_artifact).await.unwrap();
    assert_eq!((status.revision.as_deref(), status.digest.as_deref()), (Some("v1"), Some("digest-v1")));
    until("v1 answers", || get(&lab.info.address, 8080, "/").as_deref() == Some("v1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_releases_that_ran_well_stay_and_others_only_where_there_is_room() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    for (revision, proven, keep, expected) in [
        ("v1", None, 2, &["v1"][..]),
        ("v2", Some("v1"), 2, &["v1", "v2"]),
        ("v3", Some("v2"), 2, &["v1", "v2", "v3"]),
        // v3 fails. It may stay only in the place of a good one.
        ("v4", None, 2, &["v1", "v2", "v4"]),
        ("v4", None, 2, &["v1", "v2", "v4"]),
        ("v5", Some("v4"), 2, &["v2", "v4", "v5"]),
        // What is said to have run well is not what is current.
        ("v6", Some("v4"), 2, &["v2", "v4", "v6"]),
        ("v7", None, 3, &["v2", "v4", "v6", "v7"]),
        // Even if no earlier release is to stay.
        ("v8", None, 0, &["v4", "v8"]),
        ("v4", None, 0, &["v4"]),
    ] {
        let release = AppRelease { proven: proven.map(Into::into), ..web(revision, keep) };
        app::deploy_app(&machine, ROOT, &release, LIMIT).await.unwrap();
        let expected: BTreeSet<String> = expected.iter().map(|&revision| revision.to_owned()).collect();
        assert_eq!(kept(&lab), expected, "after {revision}");
    }
    // The same revision with other files has not proven itself.
    let release = AppRelease { proven: Some("v4".into()), ..web("v9", 0) };
    app::deploy_app(&machine, ROOT, &release, LIMIT).await.unwrap();
    let other = AppRelease { revision: "v4".into(), ..web("other", 0) };
    app::deploy_app(&machine, ROOT, &other, LIMIT).await.unwrap();
    assert_eq!(kept(&lab), BTreeSet::from(["v4".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_restart_starts_the_same_release_anew_without_its_artifact() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let deploy = async |release: &AppRelease| app::deploy_app(&machine, ROOT, release, LIMIT).await.unwrap();
    let release = web("v1", 2);
    let first = deploy(&release).await.1;
    let url = "http://127.0.0.1:1/gone.tgz".to_owned();
    let restarted = AppRelease { url, restart: Some("it's 1".into()), digest: "another".into(), ..release };
    let (change, second) = deploy(&restarted).await;
    assert_eq!((change, second.revision.as_deref()), (MachineChange::Done, Some("v1")));
    assert_ne!(second.pid, first.pid);
    let environment = fs::read(format!("/proc/{}/environ", second.pid.unwrap())).unwrap();
    assert!(String::from_utf8_lossy(&environment).split('\0').any(|variable| variable == "BERTH_RESTART=it's 1"));
    assert_eq!(deploy(&restarted).await, (MachineChange::None, second));
}
