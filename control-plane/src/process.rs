//! Processes under a guardian: started, watched, killed, frozen and restarted.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;

use crate::{
    error::{ControlPlaneError, IoContext, Result},
    guard::Guard,
};

/// How often to check a condition that raises no event, such as the end of a process. A check costs one system call.
pub(crate) const POLL_PERIOD: Duration = Duration::from_millis(10);

/// How much of a log an error includes, in bytes: about forty lines.
const LOG_TAIL_BYTES: u64 = 4096;

/// A program to start, with its arguments and with variables that are added to this process's environment.
#[derive(Debug, Clone)]
pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
}

impl Launch {
    /// A program, by its absolute path. `name` also names its log file.
    #[must_use]
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), program: program.into(), args: Vec::new(), env: Vec::new(), dir: None }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The same, started by another program: that gets the program and its arguments after its own `args`, and executes it.
    #[must_use]
    pub fn started_by<A: Into<OsString>>(
        mut self,
        program: impl Into<PathBuf>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let started = std::mem::replace(&mut self.program, program.into());
        let own = std::mem::take(&mut self.args);
        self.args = args.into_iter().map(Into::into).chain([started.into_os_string()]).chain(own).collect();
        self
    }

    /// Sets the working folder. The default is the guarded folder.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Starts the program under `guard`, in a process group of its own, so that Ctrl-C in a terminal does not reach it.
    /// Appends its output to `logs/<name>.log` in the guarded folder.
    ///
    /// # Errors
    /// When the program is not an executable file or cannot be started.
    pub fn spawn(self, guard: &Guard) -> Result<ChildProcess> {
        let log = guard.dir().join("logs").join(format!("{}.log", self.name));
        let child = self.start(guard, &log)?;
        Ok(ChildProcess { launch: self, guard: guard.clone(), log, child: Mutex::new(child) })
    }

    fn start(&self, guard: &Guard, log: &Path) -> Result<Child> {
        check_executable(&self.program).doing(|| format!("start {} from {}", self.name, self.program.display()))?;
        // Does not create parents, because the folder of a closed guard must not come back.
        match fs::create_dir(guard.dir().join("logs")) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
        .doing(|| format!("create the folder of {}", log.display()))?;
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let (stdout, stderr) =
            open().and_then(|o| Ok((o.try_clone()?, o))).doing(|| format!("open {}", log.display()))?;
        let (mark, token) = guard.mark();
        Command::new("/bin/sh")
            .args(["-c", include_str!("launch.sh"), "berth-launch"])
            .arg(guard.register())
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .env(mark, token)
            .current_dir(self.dir.as_deref().unwrap_or(guard.dir()))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .doing(|| format!("start {} from {}", self.name, self.program.display()))
    }
}

fn check_executable(program: &Path) -> std::io::Result<()> {
    let meta = fs::metadata(program)?;
    if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
        return Ok(());
    }
    Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, "not an executable file"))
}

/// A process that was started under a [`Guard`]. Dropping it kills the process with SIGKILL and reaps it.
#[derive(Debug)]
pub struct ChildProcess {
    launch: Launch,
    guard: Guard,
    log: PathBuf,
    child: Mutex<Child>,
}

impl ChildProcess {
    /// The name that its [`Launch`] gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// The process id; after [`ChildProcess::restart`], the new one.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.lock().id()
    }

    /// The log file: standard output and error of every start, appended.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of the log, at most 4 KiB.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Whether it is running. A process that is frozen by [`ChildProcess::signal_stop`] still is.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.child.lock().try_wait(), Ok(None))
    }

    /// Its exit status; `None` while it is running.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().try_wait().ok().flatten()
    }

    /// Kills it with SIGKILL and waits until it is dead. It is not an error if it was dead before.
    pub fn kill9(&self) -> Result<()> {
        let mut child = self.child.lock();
        child.kill().and_then(|()| child.wait()).map(drop).doing(|| format!("kill {}", self.launch.name))
    }

    /// Freezes it with SIGSTOP: it keeps its connections and stops responding.
    pub fn signal_stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Resumes a frozen process with SIGCONT.
    pub fn signal_cont(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Asks it to end with SIGTERM and waits for it.
    ///
    /// # Errors
    /// When it is still running after `timeout`. It is not killed then.
    pub async fn terminate_and_wait(&self, timeout: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.exit_status() {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(timeout).await
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it is still running after `timeout`.
    pub async fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(self.timeout("did not end", timeout));
            }
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }

    /// Restarts it with the same arguments. Kills it first if it is running.
    pub fn restart(&self) -> Result<()> {
        self.kill9()?;
        let child = self.launch.start(&self.guard, &self.log)?;
        *self.child.lock() = child;
        Ok(())
    }

    /// Restarts it with another program, other arguments or another environment. Kills it first if it is running. Its log
    /// stays the same.
    pub fn restart_as(&mut self, launch: Launch) -> Result<()> {
        self.kill9()?;
        let child = launch.start(&self.guard, &self.log)?;
        *self.child.lock() = child;
        self.launch = launch;
        Ok(())
    }

    /// The error that this process has ended, with the end of its log; `None` while it is running.
    #[must_use]
    pub fn died(&self) -> Option<ControlPlaneError> {
        let status = self.exit_status()?;
        Some(ControlPlaneError::Died {
            name: self.launch.name.clone(),
            status: status.to_string(),
            log: self.log.clone(),
            tail: self.log_tail(),
        })
    }

    pub(crate) fn timeout(&self, what: &str, timeout: Duration) -> ControlPlaneError {
        let last = format!("the end of its log {}:\n{}", self.log.display(), self.log_tail());
        ControlPlaneError::Timeout { what: format!("{} {what}", self.launch.name), timeout, last }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.child.lock();
        // While the lock is held and the process is not reaped, no other process can have this pid.
        let ended = child.try_wait().doing(|| format!("check {}", self.launch.name))?.is_some();
        let pid = i32::try_from(child.id()).map_err(std::io::Error::other);
        let sent = pid
            .and_then(|pid| if ended { Err(nix::Error::ESRCH.into()) } else { Ok(kill(Pid::from_raw(pid), signal)?) });
        sent.doing(|| format!("send {signal} to {}", self.launch.name))
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if let Err(error) = self.kill9() {
            tracing::warn!(%error, "clean-up failed");
        }
    }
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    // A cut tail starts in the middle of a line, which is dropped.
    Ok(if length > LOG_TAIL_BYTES {
        text.split_once('\n').map_or(text.clone(), |(_, rest)| rest.to_owned())
    } else {
        text
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether a process is alive. A zombie is not.
    pub(crate) fn exe_exists(pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok()
    }

    fn state(pid: u32) -> char {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }

    #[tokio::test]
    async fn a_process_is_frozen_resumed_terminated_and_restarted() {
        let guard = Guard::temporary("berth-process-test").unwrap();
        let script = "trap 'echo bye; exit 7' TERM; echo hello $X; while :; do sleep 0.01; done";
        let process = Launch::new("it", "/bin/sh").args(["-c", script]).env("X", "world").spawn(&guard).unwrap();
        eventually("said hello", || process.log_tail() == "hello world").await;
        process.signal_stop().unwrap();
        eventually("frozen", || state(process.pid()) == 'T').await;
        assert!(process.is_running());
        process.signal_cont().unwrap();
        let status = process.terminate_and_wait(Duration::from_secs(5)).await.unwrap();
        assert_eq!(status.code(), Some(7));
        assert!(!process.is_running() && process.signal_stop().is_err());
        let died = process.died().unwrap().to_string();
        assert!(died.contains("exit status: 7") && died.contains("bye"), "{died}");

        let before = process.pid();
        process.restart().unwrap();
        assert_ne!(process.pid(), before);
        eventually("said hello again", || process.log_tail() == "hello world\nbye\nhello world").await;
        let pid = process.pid();
        process.kill9().unwrap();
        assert!(!exe_exists(pid));
    }

    #[tokio::test]
    async fn a_process_that_ignores_sigterm_is_an_error_with_its_log() {
        let guard = Guard::temporary("berth-process-test").unwrap();
        let script = "trap 'echo no' TERM; echo deaf now; while :; do sleep 0.01; done";
        let process = Launch::new("deaf", "/bin/sh").args(["-c", script]).spawn(&guard).unwrap();
        eventually("set its trap", || process.log_tail() == "deaf now").await;
        let error = process.terminate_and_wait(Duration::from_millis(300)).await.unwrap_err().to_string();
        assert!(error.contains("deaf did not end within 0.3 s") && error.contains("\nno"), "{error}");
        assert!(process.is_running());
    }

    #[test]
    fn the_error_names_a_missing_program() {
        let guard = Guard::temporary("berth-process-test").unwrap();
        let error = Launch::new("it", "/nowhere/it").spawn(&guard).unwrap_err().to_string();
        assert!(error.contains("/nowhere/it") && error.contains("No such file"), "{error}");
    }
}
