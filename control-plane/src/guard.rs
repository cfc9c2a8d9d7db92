//! Leaves nothing behind: a guardian process outlives its parent until it has cleaned up.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rand::RngExt;

use crate::error::{ControlPlaneError, IoContext, Result};

/// The environment variable by which a guardian knows the processes of its folder and all their descendants.
pub const GUARD_VARIABLE: &str = "BERTH_GUARD";

/// How long a clean-up may take before it counts as failed. The guardian itself gives up a little later, so it ends by itself.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to check whether the guardian has ended; a clean-up takes some milliseconds.
const CLOSE_POLL_PERIOD: Duration = Duration::from_millis(5);

/// A folder together with the processes that live in it.
///
/// When the last clone is dropped, on [`Guard::close`], and also when this process is killed with SIGKILL, a small
/// guardian process kills every process of the folder (those started by [`crate::Launch`], those adopted, and their
/// descendants) and removes the folder. It notices the end of its parent because a pipe closes that only the parent holds.
#[derive(Debug, Clone)]
pub struct Guard {
    inner: Arc<GuardedFolder>,
}

#[derive(Debug)]
struct GuardedFolder {
    dir: PathBuf,
    token: String,
    guardian: Mutex<Guardian>,
}

#[derive(Debug)]
struct Guardian {
    child: Child,
    /// Ends the guardian's wait when dropped.
    lifeline: Option<ChildStdin>,
}

impl Guard {
    /// Creates the folder `dir` (which must not exist, its parent must) and starts its guardian. Blocks a few milliseconds.
    pub fn new(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).doing(|| format!("resolve {}", dir.display()))?;
        let token = hex::encode(rand::rng().random::<[u8; 16]>());
        let mut child = Command::new("/bin/sh")
            .args(["-c", include_str!("guard.sh"), "berth-guard"])
            .arg(&dir)
            .arg(&token)
            .env_remove(GUARD_VARIABLE) // an outer guardian must not kill this one before it has cleaned up
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .doing(|| format!("start the guardian of {}", dir.display()))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).doing(|| "read from the guardian".to_owned())?;
        }
        if line.trim() != "ready" {
            let output = child.wait_with_output().doing(|| "wait for the guardian".to_owned())?;
            return Err(ControlPlaneError::Guard {
                dir,
                reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        let lifeline = child.stdin.take();
        child.stderr = None;
        Ok(Self { inner: Arc::new(GuardedFolder { dir, token, guardian: Mutex::new(Guardian { child, lifeline }) }) })
    }

    /// Creates a guarded folder in the system's folder for temporary files, with a random name that starts with `prefix`.
    pub fn temporary(prefix: &str) -> Result<Self> {
        let name = format!("{prefix}-{}", hex::encode(rand::rng().random::<[u8; 6]>()));
        Self::new(&std::env::temp_dir().join(name))
    }

    /// The guarded folder, which only this user can read.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Puts a running process that was started elsewhere under the guardian.
    ///
    /// # Errors
    /// When there is no such process or the guard is closed.
    pub fn adopt(&self, pid: u32) -> Result<()> {
        let start = start_time(pid).doing(|| format!("adopt process {pid}"))?;
        let entry = self.register().join(format!("{pid}.{start}"));
        fs::File::create(&entry).map(drop).doing(|| format!("register process {pid} at {}", entry.display()))
    }

    /// Name and value of the variable that marks a process, and its descendants, as belonging to this folder.
    #[must_use]
    pub fn mark(&self) -> (&'static str, &str) {
        (GUARD_VARIABLE, &self.inner.token)
    }

    /// Kills the processes, removes the folder, and waits until both are done. Closing twice is not an error.
    ///
    /// # Errors
    /// When a process or the folder is still there after 10 seconds.
    pub async fn close(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        let closed = tokio::task::spawn_blocking(move || inner.close()).await;
        closed.unwrap_or_else(|e| Err(ControlPlaneError::Guard { dir: self.inner.dir.clone(), reason: e.to_string() }))
    }

    /// The folder in which processes register.
    pub(crate) fn register(&self) -> PathBuf {
        self.inner.dir.join(".guard")
    }
}

impl GuardedFolder {
    fn close(&self) -> Result<()> {
        let mut guardian = self.guardian.lock();
        guardian.lifeline = None;
        let failed = |reason: String| ControlPlaneError::Guard { dir: self.dir.clone(), reason };
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        loop {
            match guardian.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(failed(format!("ended with {status}; processes or files may be left"))),
                Ok(None) if Instant::now() > deadline => return Err(failed("still cleaning up".to_owned())),
                Ok(None) => std::thread::sleep(CLOSE_POLL_PERIOD),
                Err(error) => return Err(failed(error.to_string())),
            }
        }
    }
}

impl Drop for GuardedFolder {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "clean-up failed");
        }
    }
}

/// Start time of a process in clock ticks since boot (field 22 of `/proc/PID/stat`). Pid and start time together identify a
/// process.
fn start_time(pid: u32) -> std::io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("/proc/{pid}/stat has no start time: {stat:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Launch, process::tests::exe_exists};

    #[tokio::test]
    async fn closing_kills_all_processes_and_their_descendants_and_removes_the_folder() {
        let guard = Guard::temporary("berth-guard-test").unwrap();
        let dir = guard.dir().to_owned();
        let mut adopted = Command::new("sleep").arg("300").spawn().unwrap();
        guard.adopt(adopted.id()).unwrap();
        // A grandchild in a session of its own, whose parent has ended: only its mark leads to it.
        let script = format!("setsid sleep 301 & echo $! > {}/grandchild", dir.display());
        let child = Launch::new("sh", "/bin/sh").args(["-c", &script]).spawn(&guard).unwrap();
        assert!(child.wait(Duration::from_secs(5)).await.unwrap().success());
        let grandchild: u32 = fs::read_to_string(dir.join("grandchild")).unwrap().trim().parse().unwrap();
        assert!(exe_exists(grandchild) && exe_exists(adopted.id()));

        guard.close().await.unwrap();

        assert!(!exe_exists(grandchild) && !exe_exists(adopted.id()));
        assert!(!dir.exists());
        adopted.wait().unwrap();
        assert!(guard.adopt(std::process::id()).is_err(), "a closed guard adopts no process");
    }

    #[tokio::test]
    async fn a_process_that_reuses_a_pid_is_not_killed() {
        let guard = Guard::temporary("berth-guard-test").unwrap();
        let mut bystander = Command::new("sleep").arg("300").spawn().unwrap();
        let start = start_time(bystander.id()).unwrap();
        fs::write(guard.register().join(format!("{}.{}", bystander.id(), start - 1)), "").unwrap();
        guard.close().await.unwrap();
        assert!(exe_exists(bystander.id()));
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }

    #[test]
    fn an_existing_folder_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let error = Guard::new(dir.path()).unwrap_err().to_string();
        assert!(error.contains("exists"), "{error}");
        assert!(dir.path().join("precious").exists());
    }

    #[tokio::test]
    async fn a_process_that_starts_while_the_guard_closes_never_runs_its_program() {
        let guard = Guard::temporary("berth-guard-test").unwrap();
        let witness = tempfile::tempdir().unwrap();
        let file = witness.path().join("ran");
        guard.close().await.unwrap();
        assert!(Launch::new("late", "/usr/bin/touch").arg(&file).spawn(&guard).is_err());
        assert!(!file.exists());
    }
}
