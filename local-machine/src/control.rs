//! What can be done to a machine from outside. Everything here blocks: call it from a blocking thread.

use std::{
    fs::{File, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::{
    boot,
    dir::{MachineDir, MachineInfo, MachineSpec},
    process,
};

const BOOT_LIMIT: Duration = Duration::from_secs(20);
const KILL_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A process that is just starting another program shows no environment for a moment; one that is gone stays so.
const GONE_AFTER: Duration = Duration::from_millis(500);
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
    /// Starts the machine with the program `binary`, detached from this process, and waits until it can be logged in
    /// to. A machine that already runs in this folder is left as it is.
    pub fn spawn(&self, binary: &Path, spec: &MachineSpec) -> Result<MachineInfo> {
        if let Some(info) = self.running()? {
            ensure!(info.id == spec.id, "another machine ({}) runs in {}", info.id, self.path().display());
            return Ok(info);
        }
        std::fs::create_dir_all(self.path()).with_context(|| format!("cannot make {}", self.path().display()))?;
        let console = self.path().join("console.log");
        // A process in between ends at once, so that the machine is nobody's child and leaves no zombie here.
        let launch = Command::new(binary)
            .arg("launch")
            .args(boot::arguments(self, spec))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(append(&console)?)
            .process_group(0)
            .status()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        ensure!(launch.success(), "the machine did not start ({launch}); see {}", console.display());
        let deadline = Instant::now() + BOOT_LIMIT;
        let mut seen = Instant::now();
        loop {
            if let Some(info) = self.running()? {
                return Ok(info);
            }
            if Instant::now() > deadline {
                // Nobody else knows of it: it must not stay behind half-started.
                self.kill()?;
                bail!("the machine was not up within {BOOT_LIMIT:?}; see {}", console.display());
            }
            if !process::members(&spec.id).is_empty() {
                seen = Instant::now();
            } else if seen.elapsed() > GONE_AFTER {
                bail!("the machine ended while it booted; see {}", console.display());
            }
            std::thread::sleep(POLL);
        }
    }

    /// What the machine says about itself if it is alive (a hung one is); `None` otherwise.
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

    /// Pulls the plug: kills the machine and everything on it, and returns when nothing is left. Killing a dead
    /// machine succeeds.
    pub fn kill(&self) -> Result<()> {
        self.spec()?.map_or(Ok(()), |spec| process::kill_all(&spec.id, None, KILL_LIMIT))
    }

    /// Hangs the machine: it keeps its address and its connections and does nothing more.
    pub fn hang(&self) -> Result<()> {
        let id = self.known()?.id;
        ensure!(process::stop_all(&id, STOP_LIMIT)? > 0, "the machine {id} is not running");
        Ok(())
    }

    /// Lets a hung machine go on.
    pub fn resume(&self) -> Result<()> {
        let id = self.known()?.id;
        ensure!(process::signal_all(&id, Signal::CONT, None) > 0, "the machine {id} is not running");
        Ok(())
    }

    fn known(&self) -> Result<MachineSpec> {
        self.spec()?.with_context(|| format!("no machine in {}", self.path().display()))
    }

    /// Hard reboot: kills the machine and starts it again as it was.
    pub fn reboot(&self, binary: &Path) -> Result<MachineInfo> {
        let spec = self.known()?;
        self.kill()?;
        self.spawn(binary, &spec)
    }

    /// The ids of all living processes of the machine, itself included.
    pub fn processes(&self) -> Result<Vec<u32>> {
        Ok(self.spec()?.map(|spec| process::members(&spec.id)).unwrap_or_default())
    }
}

/// Opens a log to be appended to.
pub(crate) fn append(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot open {}", path.display()))
}
