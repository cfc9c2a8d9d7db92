//! What every machine has to keep, whatever it is: run against each kind of machine by the tests of its crate.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::time::{Duration, Instant};

use berth_machine::{Error, Machine, OUTPUT_LIMIT, Phase};

const LIMIT: Duration = Duration::from_secs(20);

/// Everything that holds for a machine that runs.
pub(crate) async fn holds(machine: &dyn Machine) {
    a_command_has_input_output_and_status(machine).await;
    a_signal_is_told_from_a_status(machine).await;
    of_long_output_the_end_is_kept(machine).await;
    input_that_nobody_reads_is_no_failure(machine).await;
    a_step_that_speaks_before_it_reads_does_not_block(machine).await;
    a_command_that_takes_too_long_is_given_up(machine).await;
    commands_run_beside_each_other(machine).await;
}

async fn a_command_has_input_output_and_status(machine: &dyn Machine) {
    let input = vec![b'x'; 3_000_000];
    let output = machine.exec("wc -c; echo oops >&2; exit 7", Some(input.into()), LIMIT).await.unwrap();
    assert_eq!((output.status, output.stdout.trim_ascii(), &output.stderr[..]), (7, &b"3000000"[..], &b"oops\n"[..]));
    assert!(!output.success() && output.signal.is_none() && !output.truncated);
    // Quotes, line ends and what a shell might expand arrive as they are.
    let output = machine.exec("printf '%s' 'it'\\''s $HOME \"*\"\n!'", None, LIMIT).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's $HOME \"*\"\n!");
}

async fn a_signal_is_told_from_a_status(machine: &dyn Machine) {
    let output = machine.exec("kill -KILL $$", None, LIMIT).await.unwrap();
    assert_eq!((output.signal.as_deref(), output.status, output.success()), (Some("KILL"), 137, false));
}

async fn of_long_output_the_end_is_kept(machine: &dyn Machine) {
    let output = machine.exec("head -c 1000000 /dev/zero; printf end", None, LIMIT).await.unwrap();
    assert!(output.truncated && output.stdout.len() == OUTPUT_LIMIT && output.stdout.ends_with(b"end"));
}

async fn input_that_nobody_reads_is_no_failure(machine: &dyn Machine) {
    let output = machine.exec("printf done", Some(vec![0; 9_000_000].into()), LIMIT).await.unwrap();
    assert_eq!(output.stdout, b"done");
}

async fn a_step_that_speaks_before_it_reads_does_not_block(machine: &dyn Machine) {
    let script = "head -c 2000000 /dev/zero; wc -c";
    let output = machine.exec(script, Some(vec![b'x'; 2_000_000].into()), LIMIT).await.unwrap();
    assert!(output.stdout.ends_with(b"2000000\n"), "{}", output.stdout.len());
}

async fn a_command_that_takes_too_long_is_given_up(machine: &dyn Machine) {
    let (limit, start) = (Duration::from_millis(500), Instant::now());
    let error = machine.exec("sleep 1000", None, limit).await.unwrap_err();
    assert!(matches!(&error, Error::Timeout { phase: Phase::Command, after, .. } if *after == limit), "{error}");
    assert!(!error.is_unreachable() && start.elapsed() < Duration::from_secs(10));
    machine.exec("true", None, LIMIT).await.unwrap().ok().unwrap();
}

async fn commands_run_beside_each_other(machine: &dyn Machine) {
    // Each waits for the other's sign.
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
