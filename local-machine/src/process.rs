//! Finding and signalling the processes of a machine.
//!
//! A process belongs to a machine if its environment carries the machine's id. A file descriptor (pidfd) refers to the process
//! from before that check until after the signal, so that a signal never reaches another process with a reused id.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, getuid, pidfd_open, pidfd_send_signal};

/// The environment variable that every process of a machine carries.
pub(crate) const ID_VARIABLE: &str = "BERTH_MACHINE_ID";

/// How many scans in a row must find no process before a machine counts as dead: a process may be forked after a scan has
/// passed its place in `/proc`, and a process that executes another program shows no environment for a moment.
const EMPTY_SCANS: u32 = 3;
/// Pause between two scans while processes are being killed.
const KILL_POLL: Duration = Duration::from_millis(10);
/// Pause between two scans while processes are being stopped. Short, because a caller waits for the machine to hang.
const STOP_POLL: Duration = Duration::from_millis(5);

/// Whether the process carries the machine's id, and belongs to this user: to root belong all, because an application may run as
/// another user.
fn carries(pid: u32, id: &str) -> bool {
    let entry = format!("{ID_VARIABLE}={id}");
    let ours =
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| getuid().is_root() || meta.uid() == getuid().as_raw());
    // The environment of a zombie is empty, so a zombie counts as gone.
    ours && fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|found| found == entry.as_bytes()))
}

/// The process ids of all running processes of the machine `id`.
pub(crate) fn members(id: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(|pid| carries(*pid, id)).collect()
}

/// Signals `pid` if it still belongs to the machine `id`.
fn signal_member(pid: u32, id: &str, signal: Signal) {
    let Some(pid_type) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(held) = pidfd_open(pid_type, PidfdFlags::empty()) else { return };
    if carries(pid, id) {
        // The process may have ended in the meantime.
        let _ = pidfd_send_signal(&held, signal);
    }
}

/// Signals all processes of the machine `id` except `except`. Returns how many were found.
pub(crate) fn signal_all(id: &str, signal: Signal, except: Option<u32>) -> usize {
    let pids: Vec<_> = members(id).into_iter().filter(|pid| Some(*pid) != except).collect();
    for pid in &pids {
        signal_member(*pid, id, signal);
    }
    pids.len()
}

/// Kills all processes of the machine `id` except `except`, and waits until none is left.
pub(crate) fn kill_all(id: &str, except: Option<u32>, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut empty = 0;
    while empty < EMPTY_SCANS {
        let found = signal_all(id, Signal::KILL, except);
        empty = if found == 0 { empty + 1 } else { 0 };
        ensure!(Instant::now() < deadline, "{found} processes of the machine {id} do not end");
        std::thread::sleep(KILL_POLL);
    }
    Ok(())
}

/// Stops all processes of the machine `id`, and waits until every thread has stopped: after the signal a running thread
/// continues for a moment and might still answer a client.
pub(crate) fn stop_all(id: &str, limit: Duration) -> Result<usize> {
    let deadline = Instant::now() + limit;
    loop {
        let found = signal_all(id, Signal::STOP, None);
        let running = members(id).into_iter().filter(|pid| !is_stopped(*pid)).count();
        if running == 0 {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{running} processes of the machine {id} do not stop");
        std::thread::sleep(STOP_POLL);
    }
}

/// Whether every thread of the process is stopped (state `T`, the first field after the name in `stat`).
fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { return true };
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

/// When the process started, in clock ticks since the kernel's boot; `None` when it is gone or a zombie.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    // A zombie no longer has an executable, although its entry in /proc may stay for seconds.
    fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the start is the 20th field after it (proc_pid_stat(5), field 22).
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether the process with this id and start time is alive and belongs to the machine.
pub(crate) fn is_alive(pid: u32, start: u64, id: &str) -> bool {
    start_of(pid) == Some(start) && carries(pid, id)
}
