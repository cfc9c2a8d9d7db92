//! An application with another name on a real machine process: one Server has one application.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

mod support;

use std::fs;

use berth_core::api::{Hook, Hooks};
use berth_machine::{
    EarlierRelease, MachineChange, MachineError,
    app::{self, AppRelease},
};
use support::{LIMIT, LocalLab, ROOT, application, archive, get, until};

fn named(name: &str, revision: &str, script: &str) -> AppRelease {
    let artifact = archive(&[("run", &format!("#!/bin/sh\n{script}\n"), true), ("index.html", revision, false)]);
    AppRelease { name: name.into(), ..application(revision, artifact) }
}

fn good(name: &str, revision: &str) -> AppRelease {
    named(name, revision, "exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .")
}

fn folders(lab: &LocalLab) -> Vec<String> {
    let below = |folder: &str| {
        let mut names: Vec<_> = fs::read_dir(lab.path(folder)).unwrap().flatten().map(|entry| entry.path()).collect();
        names.sort();
        names
    };
    let all = ["apps", "services"].into_iter().flat_map(below);
    all.map(|path| path.strip_prefix(lab.path("")).unwrap().display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_with_another_name_takes_the_place_of_the_one_before() {
    let lab = LocalLab::start();
    let machine = lab.machine();
    let deploy = async |release: &AppRelease| app::deploy_app(&machine, ROOT, release, LIMIT).await;
    let answers = |text: &str| until("it answers", || get(&lab.info.address, 8080, "/").as_deref() == Some(text));
    let drain = Hook { command: "echo drained >>$HOME/diary".into(), timeout_seconds: 5 };
    let first = AppRelease { hooks: Hooks { pre_stop: Some(drain), ..Hooks::default() }, ..good("web", "v1") };
    deploy(&first).await.unwrap();
    answers("v1");

    // The new one does not start: nothing of it runs, now or after the next boot.
    let error = deploy(&named("shop", "v2", "exit 1")).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::FailedStart { before: EarlierRelease::Runs(before), .. } if before == "web v1"),
        "{error}"
    );
    answers("v1");
    assert_eq!(folders(&lab), ["apps/shop", "apps/web", "services/web"]);
    let (change, _) = deploy(&first).await.unwrap();
    assert_eq!(change, MachineChange::None);

    deploy(&good("shop", "v2")).await.unwrap();
    answers("v2");
    assert_eq!(folders(&lab), ["apps/shop", "services/shop"]);
    assert_eq!(fs::read_to_string(lab.dir.root().join("diary")).unwrap(), "drained\n".repeat(2));
    assert!(!app::read_app(&machine, ROOT, "web", LIMIT).await.unwrap().running);

    // One that has never run well is started again and again until another name is declared.
    let other = LocalLab::start();
    let machine = other.machine();
    app::deploy_app(&machine, ROOT, &named("web", "v1", "exit 1"), LIMIT).await.unwrap_err();
    app::deploy_app(&machine, ROOT, &good("shop", "v2"), LIMIT).await.unwrap();
    assert_eq!(folders(&other), ["apps/shop", "services/shop"]);
}
