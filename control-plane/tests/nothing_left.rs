//! A control plane leaves no process and no folder, however its parent ends.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail a test by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long the clean-up may take; a failing test ends after this.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The program `berth-control-plane up`, with its child processes.
struct Parent {
    child: Child,
    dir: PathBuf,
    /// Pid and program of guardian, etcd, kube-apiserver and kube-controller-manager.
    processes: Vec<(u32, PathBuf)>,
    _stderr: ChildStderr,
}

fn exe(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The processes that have `dir` in their arguments or as their working folder.
fn processes_of(dir: &Path) -> Vec<(u32, PathBuf)> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let belongs = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mentions = String::from_utf8_lossy(&arguments).split('\0').any(|argument| Path::new(argument) == dir);
        mentions || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
    };
    pids.filter(belongs).filter_map(|pid| Some((pid, exe(pid)?))).collect()
}

fn up() -> Parent {
    let mut child = Command::new(env!("CARGO_BIN_EXE_berth-control-plane"))
        .args(["up", "--audit"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut stderr = child.stderr.take().unwrap();
    if line.is_empty() {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        panic!("did not come up: {text}");
    }
    let dir = Path::new(line.trim()).parent().unwrap().to_owned();
    let processes = processes_of(&dir);
    let mut names: Vec<_> =
        processes.iter().map(|(_, exe)| exe.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(&names[1..], ["etcd", "kube-apiserver", "kube-controller-manager"], "{names:?}");
    Parent { child, dir, processes, _stderr: stderr }
}

/// Ends the parent with a signal and waits until nothing is left.
fn assert_nothing_left_after(signal: Signal) {
    let mut parent = up();
    kill(Pid::from_raw(parent.child.id().try_into().unwrap()), signal).unwrap();
    parent.child.wait().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    // A zombie has no exe, and PID 1 may reap it late.
    let left = |(pid, program): &(u32, PathBuf)| exe(*pid).is_some_and(|found| found == *program);
    while parent.dir.exists() || parent.processes.iter().any(left) {
        let still: Vec<_> = parent.processes.iter().filter(|process| left(process)).collect();
        assert!(Instant::now() < deadline, "left: {still:?}, folder: {}", parent.dir.exists());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(processes_of(&parent.dir), []);
}

#[test]
fn nothing_is_left_after_sigkill() {
    assert_nothing_left_after(Signal::SIGKILL);
}

#[test]
fn nothing_is_left_after_sigint() {
    assert_nothing_left_after(Signal::SIGINT);
}

#[test]
fn nothing_is_left_after_sigkill_during_the_start() {
    let temporary = tempfile::tempdir().unwrap();
    // Milliseconds after the start: several moments, because the phases of a start take different times.
    for delay in [5, 40, 150, 400, 900, 1600] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_berth-control-plane"))
            .arg("up")
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let deadline = Instant::now() + TIMEOUT;
    let mentions = |path: String| {
        let text = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(temporary.path().to_str().unwrap())
    };
    loop {
        let folders = fs::read_dir(temporary.path()).unwrap().count();
        let pids =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        // Every process of such a control plane has the folder in its environment.
        let processes = pids.filter(|pid| mentions(format!("/proc/{pid}/environ"))).count();
        if folders == 0 && processes == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{folders} folders and {processes} processes left");
        std::thread::sleep(Duration::from_millis(20));
    }
}
