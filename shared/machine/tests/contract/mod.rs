//! The contract of every kind of machine. The tests of each kind's crate run it.

#![expect(clippy::unwrap_used, reason = "a failed precondition should panic where it is")]

use std::time::{Duration, Instant};

use berth_machine::{Machine, MachineError, OUTPUT_LIMIT, SshPhase};

const LIMIT: Duration = Duration::from_secs(20);

/// Asserts everything that must hold for a running machine.
pub(crate) async fn holds(machine: &dyn Machine) {
    a_command_gets_its_input_and_returns_output_and_status(machine).await;
    a_signal_is_distinguished_from_an_exit_status(machine).await;
    the_end_of_long_output_is_kept(machine).await;
    unread_input_is_not_a_failure(machine).await;
    a_command_that_writes_before_it_reads_does_not_block(machine).await;
    a_command_that_exceeds_its_limit_is_a_timeout(machine).await;
    commands_run_concurrently(machine).await;
}

async fn a_command_gets_its_input_and_returns_output_and_status(machine: &dyn Machine) {
    let input = vec![b'x'; 3_000_000];
    let output = machine.exec("wc -c; echo oops >&2; exit 7", Some(input.into()), LIMIT).await.unwrap();
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

async fn unread_input_is_not_a_failure(machine: &dyn Machine) {
    let output = machine.exec("printf done", Some(vec![0; 9_000_000].into()), LIMIT).await.unwrap();
    assert_eq!(output.stdout, b"done");
}

async fn a_command_that_writes_before_it_reads_does_not_block(machine: &dyn Machine) {
    let script = "head -c 2000000 /dev/zero; wc -c";
    let output = machine.exec(script, Some(vec![b'x'; 2_000_000].into()), LIMIT).await.unwrap();
    assert!(output.stdout.ends_with(b"2000000\n"), "{}", output.stdout.len());
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
