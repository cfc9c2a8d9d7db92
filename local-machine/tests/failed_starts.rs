//! What becomes of an application on a real machine process when its next release does not start.

mod support;

use std::fs;

use berth_machine::{
    EarlierRelease, MachineChange, MachineError,
    app::{self, AppRelease, SecretEnv},
};
use support::{LIMIT, LocalLab, ROOT, application, archive, get, until};

/// An application that answers with the value of its secret.
fn good(revision: &str, token: &str) -> AppRelease {
    let run = "#!/bin/sh\nprintf '%s' \"$TOKEN\" >index.html\n\
               exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .\n";
    with_token(application(revision, archive(&[("run", run, true)])), token)
}

/// An application that prints this, and ends.
fn failing(revision: &str, script: &str) -> AppRelease {
    with_token(application(revision, archive(&[("run", &format!("#!/bin/sh\n{script}\n"), true)])), "hush-hush")
}

fn with_token(release: AppRelease, token: &str) -> AppRelease {
    AppRelease { secrets: SecretEnv([("TOKEN".to_owned(), token.to_owned())].into()), ..release }
}

async fn deploy(lab: &LocalLab, release: &AppRelease) -> Result<(MachineChange, app::AppStatus), MachineError> {
    app::deploy_app(&lab.machine(), ROOT, release, LIMIT).await
}

fn answers(lab: &LocalLab, text: &str) {
    until("it answers", || get(&lab.info.address, 8080, "/").as_deref() == Some(text));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_brings_the_release_before_back_as_it_was_and_says_what_was_printed_last() {
    let lab = LocalLab::start();
    let stable = good("v1", "first");
    deploy(&lab, &stable).await.unwrap();
    let script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done\n\
                  echo \"cannot open $TOKEN: no such file\" >&2; exit 3";
    for attempt in 1..=2 {
        let error = deploy(&lab, &failing("v2", script)).await.unwrap_err();
        let said = error.to_string();
        let MachineError::FailedStart { before, printed, .. } = error else { panic!("{said}") };
        assert_eq!(before, EarlierRelease::Runs("v1".into()), "attempt {attempt}");
        assert!(
            said.starts_with("its command does not keep running; v1, which ran before, runs again; it printed last: ")
        );
        assert!(printed.contains("cannot open ***: no such file\nberth: the service ended with status 3"), "{printed}");
        assert!(!printed.contains("line 90") && printed.contains("line 99"), "only the last lines: {printed}");
        assert!(!said.contains("hush"), "{said}");
        answers(&lab, "first");
        let status = app::read_app(&lab.machine(), ROOT, "web", LIMIT).await.unwrap();
        assert_eq!((status.digest.as_deref(), status.running), (Some("digest-v1"), true), "what runs is read back");
    }
    let (change, _) = deploy(&lab, &stable).await.unwrap();
    assert_eq!(change, MachineChange::None, "the way back needs no deployment");
    assert!(!lab.path("services/web/good").exists(), "no copy of a secret is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_comes_back_also_when_the_same_revision_has_another_artifact() {
    let lab = LocalLab::start();
    deploy(&lab, &good("v1", "first")).await.unwrap();
    let error = deploy(&lab, &failing("v1", "exit 1")).await.unwrap_err();
    assert!(matches!(error, MachineError::FailedStart { before: EarlierRelease::Runs(_), .. }), "{error}");
    answers(&lab, "first");
    assert!(!lab.path("apps/web/replaced").exists());
    // Nothing but its secret changes, and the new value does not suit it.
    let picky = |token: &str| {
        let run = "[ \"$TOKEN\" != wrong ] || exit 1\nprintf '%s' \"$TOKEN\" >index.html\n\
                   exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .";
        with_token(failing("v2", run), token)
    };
    deploy(&lab, &picky("right")).await.unwrap();
    let error = deploy(&lab, &picky("wrong")).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::FailedStart { before: EarlierRelease::Runs(v), .. } if v == "v2"),
        "{error}"
    );
    answers(&lab, "right");
    let (change, _) = deploy(&lab, &picky("better")).await.unwrap();
    assert_eq!(change, MachineChange::Done);
    answers(&lab, "better");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_deployment_does_not_forget_the_way_back() {
    let lab = LocalLab::start();
    deploy(&lab, &good("v1", "first")).await.unwrap();
    // It hangs in the middle: the program that has to be stopped ignores TERM, and the client gives up.
    let stubborn = "trap '' TERM; while :; do sleep 0.2; done";
    let release = AppRelease { stop_seconds: 60, ..failing("v2", stubborn) };
    deploy(&lab, &release).await.unwrap();
    let short = std::time::Duration::from_secs(5);
    let error = app::deploy_app(&lab.machine(), ROOT, &failing("v3", "exit 1"), short).await.unwrap_err();
    assert!(matches!(error, MachineError::Timeout { .. }), "{error}");
    fs::write(lab.path("services/web/stop-seconds"), "1\n").unwrap();
    let error = deploy(&lab, &failing("v3", "exit 1")).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::FailedStart { before: EarlierRelease::Runs(v), .. } if v == "v2"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_release_before_the_new_one_is_started_again_and_again() {
    let lab = LocalLab::start();
    let late = failing(
        "v1",
        "[ -e ready ] || { echo not yet; touch ready; exit 1; }\nTOKEN=late; printf late >index.html\n\
        exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .",
    );
    let error = deploy(&lab, &late).await.unwrap_err();
    assert!(matches!(&error, MachineError::FailedStart { before: EarlierRelease::None, .. }), "{error}");
    assert!(error.to_string().contains("it printed last: not yet"), "{error}");
    answers(&lab, "late");
}
