//! Controlling a machine from outside. Everything here blocks: call it from a blocking thread.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::{
    dir::{MachineDir, MachineInfo, MachineSpec},
    launch::{arguments, console_path, open_console},
    process,
};

/// Limit for a boot, which takes a fraction of a second on an idle host.
const BOOT_LIMIT: Duration = Duration::from_secs(20);
/// Limit for killing all processes: one in the kernel's uninterruptible sleep ends only after its I/O.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Limit until every thread has stopped.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A booting machine has ended if it shows no process for this long. Not at once, because a process that executes another
/// program shows no environment for a moment.
const GONE_AFTER: Duration = Duration::from_millis(500);
/// Pause between two looks at `/proc`: short against a boot, long against reading `/proc`.
const POLL: Duration = Duration::from_millis(10);

/// The machine's program: `BERTH_LOCAL_MACHINE` if set, else `berth-local-machine` beside the running program.
pub fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BERTH_LOCAL_MACHINE") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot find the running program")?;
    let beside = own.with_file_name("berth-local-machine");
    ensure!(
        beside.is_file(),
        "{} is missing: build it with `cargo build -p local-machine`, or name it in BERTH_LOCAL_MACHINE",
        beside.display()
    );
    Ok(beside)
}

impl MachineDir {
    /// Starts the machine with the program `binary`, detached from this process, and waits until its SSH server listens.
    /// A machine that already runs in this folder is left as it is.
    pub fn spawn(&self, binary: &Path, spec: &MachineSpec) -> Result<MachineInfo> {
        if let Some(info) = self.running()? {
            ensure!(info.id == spec.id, "another machine ({}) runs in {}", info.id, self.path().display());
            return Ok(info);
        }
        let console = console_path(self);
        // The launching process ends at once, so that the machine is not our child and does not become our zombie.
        let launch = Command::new(binary)
            .arg("launch")
            .args(arguments(self, spec))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(open_console(self)?)
            .process_group(0)
            .status()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        ensure!(launch.success(), "the machine did not start ({launch}); see {}", console.display());
        self.await_boot(&spec.id, &console)
    }

    fn await_boot(&self, id: &str, console: &Path) -> Result<MachineInfo> {
        let deadline = Instant::now() + BOOT_LIMIT;
        let mut last_seen = Instant::now();
        loop {
            if let Some(info) = self.running()? {
                return Ok(info);
            }
            if Instant::now() > deadline {
                // Only this caller knows of it, so it must not stay behind half-started.
                self.kill()?;
                bail!("the machine was not up within {BOOT_LIMIT:?}; see {}", console.display());
            }
            if !process::members(id).is_empty() {
                last_seen = Instant::now();
            } else if last_seen.elapsed() > GONE_AFTER {
                bail!("the machine ended while it was booting; see {}", console.display());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The machine's description of itself if its process is alive, hung or not; `None` otherwise.
    pub fn running(&self) -> Result<Option<MachineInfo>> {
        Ok(self.info()?.filter(|info| process::is_alive(info.pid, info.process_start, &info.id)))
    }

    /// Whether the machine's process is alive.
    pub fn is_running(&self) -> Result<bool> {
        Ok(self.running()?.is_some())
    }

    /// The id of the running machine's boot; `None` when it is down.
    pub fn boot_id(&self) -> Result<Option<String>> {
        Ok(self.running()?.map(|info| info.boot_id))
    }

    /// Cuts the power: kills the machine and everything on it, and returns when no process is left. Succeeds for a machine
    /// that is down.
    pub fn kill(&self) -> Result<()> {
        self.spec()?.map_or(Ok(()), |spec| process::kill_all(&spec.id, None, KILL_LIMIT))
    }

    /// Hangs the machine: it keeps its address and its connections, and no longer answers.
    pub fn hang(&self) -> Result<()> {
        let id = self.known()?.id;
        ensure!(process::stop_all(&id, STOP_LIMIT)? > 0, "the machine {id} is not running");
        Ok(())
    }

    /// Resumes a hung machine.
    pub fn resume(&self) -> Result<()> {
        let id = self.known()?.id;
        ensure!(process::signal_all(&id, Signal::CONT, None) > 0, "the machine {id} is not running");
        Ok(())
    }

    /// The spec of the machine that was started in this folder.
    ///
    /// # Errors
    /// When no machine was ever started in it, as in a mistyped folder.
    pub fn known(&self) -> Result<MachineSpec> {
        let path = || self.path().display();
        self.spec()?
            .with_context(|| format!("no machine in {}: name the folder of a machine, which has a spec.json", path()))
    }

    /// Reboots the machine hard: kills it and starts it again with the same spec.
    pub fn reboot(&self, binary: &Path) -> Result<MachineInfo> {
        let spec = self.known()?;
        self.kill()?;
        self.spawn(binary, &spec)
    }

    /// The process ids of everything that runs on the machine, including its own.
    pub fn processes(&self) -> Result<Vec<u32>> {
        Ok(self.spec()?.map(|spec| process::members(&spec.id)).unwrap_or_default())
    }
}
