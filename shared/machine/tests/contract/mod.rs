//! The contract of every kind of machine. The tests of each kind's crate run it.

#![expect(clippy::unwrap_used, reason = "a failed precondition should panic where it is")]

pub(crate) mod operations;

use std::time::{Duration, Instant};

use berth_machine::{Machine, MachineError, OUTPUT_LIMIT, SshPhase, script_package::ScriptPackage};

use operations::Workshop;

const LIMIT: Duration = Duration::from_secs(20);

/// Asserts everything that must hold for a running machine.
pub(crate) async fn holds(machine: &dyn Machine) {
    a_command_gets_its_parameters_and_returns_output_and_status(machine).await;
    a_signal_is_distinguished_from_an_exit_status(machine).await;
    the_end_of_long_output_is_kept(machine).await;
    a_command_leads_its_process_group_and_sees_the_end_of_its_client(machine).await;
    a_command_that_exceeds_its_limit_is_a_timeout(machine).await;
    commands_run_concurrently(machine).await;
}

async fn a_command_gets_its_parameters_and_returns_output_and_status(machine: &dyn Machine) {
    let input = format!("INPUT='{}'\n", "x".repeat(3_000_000));
    let script = "printf %s \"$INPUT\" | wc -c; echo oops >&2; exit 7";
    let output = machine.exec(script, Some(input.into()), LIMIT).await.unwrap();
    assert_eq!((output.status, output.stdout.trim_ascii(), &output.stderr[..]), (7, &b"3000000"[..], &b"oops\n"[..]));
    assert!(!output.success() && output.signal.is_none() && !output.truncated);
    // Quotes, line ends and characters that a shell might expand arrive unchanged.
    let output = machine.exec("printf '%s' 'it'\\''s $HOME \"*\"\n!'", None, LIMIT).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's $HOME \"*\"\n!");
}

async fn a_signal_is_distinguished_from_an_exit_status(machine: &dyn Machine) {
    let output = machine.exec("kill -KILL $$", None, LIMIT).await.unwrap();
    assert_eq!((output.signal.as_deref(), output.status, output.success()), (Some("KILL"), 137, false));
}

async fn the_end_of_long_output_is_kept(machine: &dyn Machine) {
    let output = machine.exec("head -c 1000000 /dev/zero; printf end", None, LIMIT).await.unwrap();
    assert!(output.truncated && output.stdout.len() == OUTPUT_LIMIT && output.stdout.ends_with(b"end"));
}

async fn a_command_leads_its_process_group_and_sees_the_end_of_its_client(machine: &dyn Machine) {
    let lead = "read -r _ _ _ _ group _ </proc/$$/stat; [ \"$group\" = $$ ]; file=$(mktemp); echo $file";
    let output = machine.exec(lead, None, LIMIT).await.unwrap().ok().unwrap();
    let file = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    // Blocks for as long as its client waits.
    let script = format!("read -r _ || echo gone >{file}; sleep 1000");
    machine.exec(&script, None, Duration::from_secs(1)).await.unwrap_err();
    let wait = format!("until grep gone {file}; do sleep 0.05; done; rm {file}");
    machine.exec(&wait, None, LIMIT).await.unwrap().ok().unwrap();
}

async fn a_command_that_exceeds_its_limit_is_a_timeout(machine: &dyn Machine) {
    let (limit, start) = (Duration::from_millis(500), Instant::now());
    let error = machine.exec("sleep 1000", None, limit).await.unwrap_err();
    assert!(
        matches!(&error, MachineError::Timeout { phase: SshPhase::Command, after, .. } if *after == limit),
        "{error}"
    );
    assert!(!error.is_unreachable() && start.elapsed() < Duration::from_secs(10));
    machine.exec("true", None, LIMIT).await.unwrap().ok().unwrap();
}

async fn commands_run_concurrently(machine: &dyn Machine) {
    // Each waits for the other's file.
    let folder = machine.exec("mktemp -d", None, LIMIT).await.unwrap().ok().unwrap().stdout;
    let folder = String::from_utf8(folder).unwrap();
    let meet = |own: &str, other: &str| {
        let folder = folder.trim();
        format!("touch {folder}/{own}; until [ -e {folder}/{other} ]; do sleep 0.05; done")
    };
    let (one, two) = (meet("one", "two"), meet("two", "one"));
    let (first, second) = tokio::join!(machine.exec(&one, None, LIMIT), machine.exec(&two, None, LIMIT));
    assert!(first.unwrap().success() && second.unwrap().success());
    machine.exec(&format!("rm -r {}", folder.trim()), None, LIMIT).await.unwrap().ok().unwrap();
}

/// A machine whose packages are shell commands, and that leave files in a folder.
struct ShellWorkshop<'a> {
    machine: &'a dyn Machine,
    folder: String,
}

impl<'a> ShellWorkshop<'a> {
    async fn new(machine: &'a dyn Machine) -> Self {
        let folder = machine.exec("mktemp -d", None, LIMIT).await.unwrap().ok().unwrap().stdout;
        Self { machine, folder: String::from_utf8(folder).unwrap().trim().to_owned() }
    }

    async fn holds(&self, condition: &str) -> bool {
        self.machine.exec(condition, None, LIMIT).await.unwrap().success()
    }

    async fn remove(self) {
        self.machine.exec(&format!("rm -r {}", self.folder), None, LIMIT).await.unwrap().ok().unwrap();
    }
}

impl Workshop for ShellWorkshop<'_> {
    fn machine(&self) -> &dyn Machine {
        self.machine
    }

    /// In two processes of which one ignores signals. It leaves the file `late`.
    fn slow(&self, time: Duration) -> ScriptPackage {
        let (folder, seconds) = (&self.folder, time.as_secs());
        let install = format!(
            "echo >{folder}/begun; sh -c 'trap \"\" HUP TERM; sleep {seconds}; sleep 1; echo >{folder}/late'; echo >{folder}/late"
        );
        let check = format!("[ -e {folder}/late ]");
        ScriptPackage { name: "slow".into(), version: "1".into(), check, install, remove: None }
    }

    fn quick(&self) -> ScriptPackage {
        let folder = &self.folder;
        ScriptPackage {
            name: "quick".into(),
            check: format!("[ -e {folder}/quick ]"),
            install: format!("pgrep -f {folder}/lat[e] >{folder}/running || :; echo >{folder}/quick"),
            ..self.slow(Duration::ZERO)
        }
    }

    async fn has_begun(&self) -> bool {
        self.holds(&format!("[ -e {}/begun ]", self.folder)).await
    }

    async fn is_done(&self) -> bool {
        self.holds(&format!("[ -e {}/late ]", self.folder)).await
    }

    async fn has_overlapped(&self) -> bool {
        self.holds(&format!("[ -s {}/running ]", self.folder)).await
    }
}

/// Asserts everything that must hold for operations on a machine with a shell.
pub(crate) async fn operations_hold(machine: &dyn Machine, root: &str) {
    for number in 0..2 {
        let workshop = ShellWorkshop::new(machine).await;
        match number {
            0 => operations::end_with_their_client(&workshop, root).await,
            _ => operations::wait_for_each_other(&workshop, root).await,
        }
        workshop.remove().await;
    }
}
