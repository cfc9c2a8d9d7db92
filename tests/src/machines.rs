//! The machines of the provider `local`.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use local_machine::{MachineDir, MachineInfo};
use rand::RngExt;

use crate::programs::program;

/// The folder of the machines, with `<UID of the Server>/machine` for each. All machines are killed and the folder is removed
/// when this is dropped, or when this process dies.
#[derive(Debug)]
pub struct Machines {
    dir: PathBuf,
    binary: PathBuf,
    reaper: Child,
    /// The reaper begins when this pipe is closed.
    lifeline: Option<ChildStdin>,
}

impl Machines {
    /// Creates the folder. Its machines are killed when this is dropped and the folder `makers` is gone, because then the
    /// programs that create machines have ended.
    pub(crate) fn start(makers: &Path) -> Result<Self> {
        let binary = program("berth-local-machine")?;
        let name = format!("berth-machines-{}", hex::encode(rand::rng().random::<[u8; 6]>()));
        let dir = std::env::temp_dir().join(name);
        let mut reaper = Command::new("/bin/sh")
            .args(["-c", include_str!("reaper.sh"), "berth-machines"])
            .args([dir.as_path(), &binary, makers])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the reaper of machines")?;
        let lifeline = reaper.stdin.take();
        let mut answer = String::new();
        if let Some(stdout) = reaper.stdout.take() {
            BufReader::new(stdout).read_line(&mut answer).context("hear from the reaper of machines")?;
        }
        ensure!(answer.trim() == "ready", "the reaper of machines did not start");
        Ok(Self { dir, binary, reaper, lifeline })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The machine of the Server with this UID; it need not exist.
    #[must_use]
    pub fn of(&self, uid: &str) -> MachineDir {
        MachineDir::new(self.dir.join(uid).join("machine"))
    }

    /// All machines that were created and not destroyed, with the UIDs of their Servers.
    pub fn all(&self) -> Result<Vec<(String, MachineDir)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).with_context(|| format!("read {}", self.dir.display()))? {
            let entry = entry?;
            let machine = MachineDir::new(entry.path().join("machine"));
            // The other folders belong to the provider, or to machines that are being created.
            if machine.spec()?.is_some() {
                all.push((entry.file_name().to_string_lossy().into_owned(), machine));
            }
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }

    /// The machines that run; one that hangs runs, too.
    pub fn running(&self) -> Result<Vec<MachineInfo>> {
        self.all()?.iter().filter_map(|(_, machine)| machine.running().transpose()).collect()
    }

    /// Kills a Server's machine, as a power failure does; it stays down until it is started again.
    pub fn kill(&self, uid: &str) -> Result<()> {
        self.existing(uid)?.kill()
    }

    /// Makes a Server's machine hang: connections stay open, and nothing answers.
    pub fn hang(&self, uid: &str) -> Result<()> {
        self.existing(uid)?.hang()
    }

    /// Lets a machine that hangs continue.
    pub fn resume(&self, uid: &str) -> Result<()> {
        self.existing(uid)?.resume()
    }

    /// Reboots a machine, or starts a killed one again. Disk and host key stay; the boot ID changes.
    pub async fn reboot(&self, uid: &str) -> Result<MachineInfo> {
        let (machine, binary) = (self.existing(uid)?, self.binary.clone());
        tokio::task::spawn_blocking(move || machine.reboot(&binary)).await?
    }

    fn existing(&self, uid: &str) -> Result<MachineDir> {
        let machine = self.of(uid);
        ensure!(machine.spec()?.is_some(), "there is no machine of the Server {uid} in {}", self.dir.display());
        Ok(machine)
    }

    /// Kills all machines and removes the folder.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.lifeline = None;
        let status = self.reaper.wait().context("wait for the reaper of machines")?;
        ensure!(status.success() && !self.dir.exists(), "machines are left in {}", self.dir.display());
        Ok(())
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "clean-up");
        }
    }
}
