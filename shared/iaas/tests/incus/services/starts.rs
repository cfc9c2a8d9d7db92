//! Starts that fail, and hooks.

use std::time::{Duration, Instant};

use berth_core::api::{Hook, Hooks};
use berth_machine::{
    EarlierRelease, MachineChange, MachineError,
    app::{AppRelease, SecretEnv},
};

use super::machine::{SystemdMachine, application, one_unit, web, with_systemd};

fn with_token(release: AppRelease) -> AppRelease {
    AppRelease { secrets: SecretEnv([("TOKEN".to_owned(), "hush-hush".to_owned())].into()), ..release }
}

/// An application that talks at its end.
fn talkative(revision: &str) -> AppRelease {
    let script = "#!/bin/sh\ntrap 'echo goodbye; kill $!; exit 0' TERM\n\
                  busybox httpd -f -p \"$PORT\" -h . & wait $!\n";
    application(revision, script)
}

fn failing(revision: &str, script: &str) -> AppRelease {
    with_token(application(revision, &format!("#!/bin/sh\n{script}\n")))
}

#[test]
fn a_failed_start_brings_the_release_before_back_and_says_what_was_printed_last() {
    with_systemd("failed-start", async |machine| {
        machine.deploy(&talkative("v1")).await.unwrap();
        let script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done\n\
                      echo \"cannot open $TOKEN: no such file\" >&2; exit 3";
        let error = machine.deploy(&failing("v2", script)).await.unwrap_err();
        let said = error.to_string();
        let MachineError::FailedStart { before, printed, .. } = error else { panic!("{said}") };
        assert_eq!(before, EarlierRelease::Runs("v1".into()));
        let begin = "its command does not keep running; v1, which ran before, runs again; it printed last: ";
        assert!(said.starts_with(begin) && !said.contains("hush"), "{said}");
        let end = "cannot open ***: no such file\nberth: the service ended with status 3";
        assert!(printed.ends_with(end), "{printed}");
        assert!(printed.contains("line 99") && !printed.contains("line 90"), "only the last lines: {printed}");
        machine.answers("v1").await;
        let status = machine.read("web").await;
        assert_eq!((status.digest.as_deref(), status.running), (Some("digest-v1"), true));
        assert_eq!(machine.units().await, one_unit("web"));
        // What the release before has printed at its end is not taken for words of the new one.
        let error = machine.deploy(&failing("v2", "exit 3")).await.unwrap_err().to_string();
        assert!(!error.contains("goodbye"), "{error}");
        let (change, _) = machine.deploy(&talkative("v1")).await.unwrap();
        assert_eq!(change, MachineChange::None, "the way back needs no deployment");
        machine.reboot(false).await;
        machine.answers("v1").await;
    });
}

#[test]
fn without_a_release_before_the_new_one_is_started_again_and_again() {
    with_systemd("first-start", async |machine| {
        let script = "[ -e /root/ready ] || { echo not yet; exit 1; }\nexec busybox httpd -f -p \"$PORT\" -h .";
        let error = machine.deploy(&failing("v1", script)).await.unwrap_err();
        assert!(matches!(&error, MachineError::FailedStart { before: EarlierRelease::None, .. }), "{error}");
        let said = error.to_string();
        assert!(said.ends_with("it printed last: not yet\nberth: the service ended with status 1"), "{said}");
        machine.until("[ $(systemctl show --property NRestarts --value berth-web) -gt 5 ]").await;
        machine.run("touch /root/ready").await;
        machine.answers("v1").await;
    });
}

fn hook(command: &str, timeout_seconds: i32) -> Hook {
    Hook { command: command.to_owned(), timeout_seconds }
}

/// A hook that writes down its name, who runs it, the revision in whose folder it runs, and whether the application has the secret.
fn diary(name: &str) -> Hook {
    hook(&format!("echo {name} $(id -un) $(cat index.html) $BERTH_APP_REVISION ${{#TOKEN}} >>/home/web/diary"), 10)
}

fn hooked(revision: &str, hooks: Hooks) -> AppRelease {
    AppRelease { hooks, user: Some("web".into()), ..with_token(web(revision)) }
}

async fn diary_of(machine: &SystemdMachine) -> Vec<String> {
    machine.run("cat /home/web/diary").await.lines().map(str::to_owned).collect()
}

#[test]
fn hooks_run_around_a_change_and_one_that_hangs_is_ended_with_its_children() {
    with_systemd("hooks", async |machine| {
        let all = || Hooks {
            pre_stop: Some(diary("pre-stop")),
            pre_start: Some(diary("pre-start")),
            post_start: Some(diary("post-start")),
        };
        machine.deploy(&hooked("v1", all())).await.unwrap();
        machine.deploy(&hooked("v2", all())).await.unwrap();
        let written = [
            "pre-start web v1 v1 9",
            "post-start web v1 v1 9",
            "pre-stop web v1 v1 9",
            "pre-start web v2 v2 9",
            "post-start web v2 v2 9",
        ];
        assert_eq!(diary_of(&machine).await, written);
        // Neither a crash nor a boot runs them.
        machine.run("systemctl kill --signal KILL berth-web").await;
        machine.reboot(true).await;
        machine.answers("v2").await;
        assert_eq!(diary_of(&machine).await.len(), written.len());

        let hang = "trap \"\" TERM; echo draining $TOKEN; (exec sleep 1234) & while :; do sleep 0.1; done";
        let hanging = || Hooks { pre_stop: Some(hook(hang, 1)), ..Hooks::default() };
        machine.deploy(&hooked("v3", hanging())).await.unwrap();
        let begin = Instant::now();
        let error = machine.deploy(&hooked("v4", hanging())).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "its preStop hook did not end within 1 s (timeoutSeconds), and was ended; the application was not stopped and \
             runs on; the hook printed last: draining ***"
        );
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        assert_eq!(machine.run("pgrep -fc 'sleep 123[4]' || true").await, "0");
        machine.answers("v3").await;

        let broken =
            || Hooks { pre_start: Some(hook("echo \"no schema for $TOKEN\" >&2; exit 4", 5)), ..Hooks::default() };
        machine.deploy(&hooked("v3", Hooks::default())).await.unwrap();
        let error = machine.deploy(&hooked("v5", broken())).await.unwrap_err().to_string();
        let begin = "its preStart hook ended with status 4; v3, which ran before, runs again";
        assert!(error.starts_with(begin) && error.ends_with("no schema for ***"), "{error}");
        machine.answers("v3").await;
        assert_eq!(machine.units().await, one_unit("web"));
    });
}
