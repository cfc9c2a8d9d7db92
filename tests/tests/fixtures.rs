//! The fixtures themselves: machines can be controlled, and nothing is left however the program ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail a test by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use berth_machine::ssh::ClientKey;
use berth_tests::{Berth, Options, Part, eventually, program};
use local_machine::{MachineInfo, MachineSpec};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Environment variable of a process that only holds a Berth until it is killed.
const HOLDER: &str = "BERTH_TEST_HOLDER";
const TIMEOUT: Duration = Duration::from_secs(30);

async fn without_programs() -> Berth {
    Berth::start(Options { parts: vec![], ..Options::default() }).await.unwrap()
}

/// Starts a machine as the provider `local` does.
async fn machine(berth: &Berth, uid: &str, last: u8) -> MachineInfo {
    let pid = std::process::id();
    let spec = MachineSpec {
        id: format!("{uid}-{pid}"),
        name: uid.to_owned(),
        address: format!("127.{}.{}.{last}", 200 + (pid >> 8) % 50, pid % 256),
        port: 2222,
        authorized_keys: vec![ClientKey::generate().unwrap().public_openssh().unwrap()],
    };
    let dir = berth.machines().of(uid);
    let binary = program("berth-local-machine").unwrap();
    tokio::task::spawn_blocking(move || dir.spawn(&binary, &spec).unwrap()).await.unwrap()
}

fn exe(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

#[tokio::test]
async fn machines_are_found_killed_rebooted_hung_and_ended() {
    let berth = without_programs().await;
    let machines = berth.machines();
    assert_eq!(machines.all().unwrap().len(), 0);
    assert!(machines.kill("nobody").unwrap_err().to_string().contains("no machine of the Server nobody"));
    let (one, two) = (machine(&berth, "one", 1).await, machine(&berth, "two", 2).await);
    let uids: Vec<_> = machines.all().unwrap().into_iter().map(|(uid, _)| uid).collect();
    assert_eq!(uids, ["one", "two"]);
    machines.kill("one").unwrap();
    assert_eq!(machines.running().unwrap(), std::slice::from_ref(&two));
    let again = machines.reboot("one").await.unwrap();
    assert_eq!((&again.host_key, &again.address), (&one.host_key, &one.address));
    assert_ne!(again.boot_id, one.boot_id);
    machines.hang("two").unwrap();
    assert_eq!(machines.running().unwrap().len(), 2, "a hung machine still runs");
    let dir = machines.dir().to_owned();
    berth.stop().await.unwrap();
    assert!(!dir.exists());
    assert_eq!((exe(again.pid), exe(two.pid)), (None, None));
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_reported_with_its_log() {
    let arguments = [(Part::LbController, vec!["--no-such-flag".to_owned()])].into();
    let options = Options { parts: vec![Part::LbController], arguments, ..Options::default() };
    let error = format!("{:#}", Berth::start(options).await.unwrap_err());
    assert!(error.contains("lb-controller") && error.contains("--no-such-flag"), "{error}");
}

/// Holds a Berth with a machine until it is killed. The test below runs it as a process of its own.
#[tokio::test]
async fn holder() {
    if std::env::var_os(HOLDER).is_none() {
        return; // This is not a test of its own.
    }
    let berth = without_programs().await;
    let info = machine(&berth, "held", 9).await;
    let (dir, machines) = (berth.control_plane().dir().display(), berth.machines().dir().display());
    // Written directly, because the test harness captures what is printed.
    writeln!(std::io::stderr(), "HOLDS {dir} {machines} {}", info.pid).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn after_sigkill_no_machine_and_no_folder_is_left() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--nocapture"])
        .env(HOLDER, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.into_iter().find(|line| line.contains("HOLDS ")).unwrap();
    let words: Vec<_> = line.split("HOLDS ").nth(1).unwrap().split(' ').collect();
    let (dir, machines, pid) = (Path::new(words[0]), Path::new(words[1]), words[2].parse().unwrap());
    assert!(dir.exists() && machines.exists() && exe(pid).is_some());
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    eventually("nothing is left", TIMEOUT, async || {
        let left = (dir.exists(), machines.exists(), exe(pid));
        if left == (false, false, None) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
    .unwrap();
}
