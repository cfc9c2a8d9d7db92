//! Hooks of an application on a real machine process.

mod support;

use std::{fs, time::Instant};

use berth_core::api::{Hook, Hooks};
use berth_machine::{
    EarlierRelease, MachineChange, MachineError,
    app::{self, AppRelease, SecretEnv},
};
use support::{LIMIT, LocalLab, ROOT, application, archive, get, until};

/// An application that answers with its revision, has a secret, and writes down what its hooks do in `$HOME/diary`.
fn web(revision: &str, hooks: Hooks) -> AppRelease {
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port \"$PORT\" --root .\n";
    let release = application(revision, archive(&[("run", run, true), ("index.html", revision, false)]));
    AppRelease { hooks, secrets: SecretEnv([("TOKEN".to_owned(), "hush-hush".to_owned())].into()), ..release }
}

fn hook(command: &str, timeout_seconds: i32) -> Hook {
    Hook { command: command.to_owned(), timeout_seconds }
}

/// A hook that writes down its name, the revision in whose folder it runs, and whether the application has the secret.
fn diary(name: &str) -> Hook {
    hook(&format!("echo {name} $(cat index.html) $BERTH_APP_REVISION ${{#TOKEN}} >>$HOME/diary"), 10)
}

fn diaries() -> Hooks {
    Hooks {
        pre_stop: Some(diary("pre-stop")),
        pre_start: Some(diary("pre-start")),
        post_start: Some(diary("post-start")),
    }
}

async fn deploy(lab: &LocalLab, release: &AppRelease) -> Result<MachineChange, MachineError> {
    app::deploy_app(&lab.machine(), ROOT, release, LIMIT).await.map(|(change, _)| change)
}

fn written(lab: &LocalLab) -> String {
    fs::read_to_string(lab.dir.root().join("diary")).unwrap_or_default()
}

fn answers(lab: &LocalLab, text: &str) {
    until("it answers", || get(&lab.info.address, 8080, "/").as_deref() == Some(text));
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_around_a_change_in_the_release_and_environment_of_their_application() {
    let lab = LocalLab::start();
    deploy(&lab, &web("v1", diaries())).await.unwrap();
    assert_eq!(written(&lab), "pre-start v1 v1 9\npost-start v1 v1 9\n");
    assert_eq!(deploy(&lab, &web("v1", diaries())).await, Ok(MachineChange::None));
    deploy(&lab, &web("v2", diaries())).await.unwrap();
    let all = "pre-start v1 v1 9\npost-start v1 v1 9\npre-stop v1 v1 9\npre-start v2 v2 9\npost-start v2 v2 9\n";
    assert_eq!(written(&lab), all, "and nothing ran when nothing changed");
    // A change of hooks alone restarts nothing.
    let other = Hooks { pre_stop: Some(diary("other")), ..Hooks::default() };
    let digest = AppRelease { digest: "other".into(), ..web("v2", other) };
    assert_eq!(deploy(&lab, &digest).await, Ok(MachineChange::None));
    deploy(&lab, &web("v3", Hooks::default())).await.unwrap();
    assert_eq!(written(&lab), format!("{all}other v2 v2 9\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_hangs_is_ended_with_its_children_and_the_application_runs_on() {
    let lab = LocalLab::start();
    let hang = "trap '' TERM; echo draining $TOKEN; (exec sleep 1234) & while :; do sleep 0.1; done";
    let hanging = || Hooks { pre_stop: Some(hook(hang, 1)), ..Hooks::default() };
    deploy(&lab, &web("v1", hanging())).await.unwrap();
    let begin = Instant::now();
    let error = deploy(&lab, &web("v2", hanging())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "its preStop hook did not end within 1 s (timeoutSeconds), and was ended; the application was not stopped and runs \
         on; the hook printed last: draining ***"
    );
    assert!(begin.elapsed().as_secs() < 15, "{:?}", begin.elapsed());
    let left = lab.dir.processes().unwrap().into_iter().filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("1234")
    });
    assert_eq!(left.count(), 0, "its child is gone, too");
    answers(&lab, "v1");
    let status = app::read_app(&lab.machine(), ROOT, "web", LIMIT).await;
    assert_eq!(status.map(|status| status.digest), Ok(Some("digest-v1".into())));
    // Who declares another hook, or none, gets rid of the one that does not work.
    deploy(&lab, &web("v3", Hooks { pre_stop: Some(diary("better")), ..Hooks::default() })).await.unwrap();
    answers(&lab, "v3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_hook_before_or_after_the_start_is_a_failed_start() {
    let lab = LocalLab::start();
    deploy(&lab, &web("v1", diaries())).await.unwrap();
    let before = written(&lab);
    let broken = "echo \"no schema for $TOKEN\" >&2; exit 4";
    for (hooks, name) in [
        (Hooks { pre_start: Some(hook(broken, 5)), ..Hooks::default() }, "preStart"),
        (Hooks { post_start: Some(hook(broken, 5)), ..Hooks::default() }, "postStart"),
        (Hooks { post_start: Some(hook("echo no schema for $TOKEN; sleep 1000", 1)), ..Hooks::default() }, "postStart"),
    ] {
        let error = deploy(&lab, &web("v2", hooks)).await.unwrap_err();
        let said = error.to_string();
        let MachineError::FailedStart { before, .. } = error else { panic!("{said}") };
        assert_eq!(before, EarlierRelease::Runs("v1".into()));
        assert!(said.starts_with(&format!("its {name} hook ")) && said.ends_with("no schema for ***"), "{said}");
        answers(&lab, "v1");
    }
    assert_eq!(
        written(&lab),
        format!("{before}{}", "pre-stop v1 v1 9\n".repeat(3)),
        "the way back runs no start hooks"
    );
}
