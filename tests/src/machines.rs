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

/// The folder of the machines, `<UID of the Server>/machine` for each. Dropping it kills them all and removes
/// the folder; so does the death of this process, in whatever way.
#[derive(Debug)]
pub struct Machines {
    dir: PathBuf,
    binary: PathBuf,
    reaper: Child,
    /// Its end tells the reaper to begin.
    lifeline: Option<ChildStdin>,
}

impl Machines {
    /// Makes the folder. Its machines are killed when this is dropped, after the folder `makers` is gone: by then
    /// nobody makes new ones.
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

    /// The machine of the Server with this UID, whether it exists or not.
    #[must_use]
    pub fn of(&self, uid: &str) -> MachineDir {
        MachineDir::new(self.dir.join(uid).join("machine"))
    }

    /// All machines there ever were and that were not destroyed: UID and machine.
    pub fn all(&self) -> Result<Vec<(String, MachineDir)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).with_context(|| format!("read {}", self.dir.display()))? {
            let entry = entry?;
            let machine = MachineDir::new(entry.path().join("machine"));
            // Other folders are the provider's own, or of machines that are just being made.
            if machine.spec()?.is_some() {
                all.push((entry.file_name().to_string_lossy().into_owned(), machine));
            }
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }

    /// The machines that run (a hung one does).
    pub fn running(&self) -> Result<Vec<MachineInfo>> {
        self.all()?.iter().filter_map(|(_, machine)| machine.running().transpose()).collect()
    }

    /// Pulls the plug of a Server's machine; it stays down until something starts it again.
    pub fn kill(&self, uid: &str) -> Result<()> {
        self.existing(uid)?.kill()
    }

    /// Hangs a Server's machine: connections stay open and nothing is answered.
    pub fn hang(&self, uid: &str) -> Result<()> {
        self.existing(uid)?.hang()
    }

    /// Lets a hung machine go on.
    pub fn resume(&self, uid: &str) -> Result<()> {
        self.existing(uid)?.resume()
    }

    /// Starts a killed machine again, or reboots a running one: the same disk and host key, another boot.
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
