//! A machine's folder: the spec of the machine, and the machine's description of itself.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The wanted machine. Stored as `spec.json`, so that a reboot needs nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineSpec {
    /// Unique, never reused; every process of the machine carries it in its environment (`BERTH_MACHINE_ID`).
    pub id: String,
    /// Name, for people.
    pub name: String,
    /// Loopback address (127.0.0.0/8).
    pub address: String,
    /// SSH port.
    pub port: u16,
    /// OpenSSH public key lines of the keys that may log in.
    pub authorized_keys: Vec<String>,
}

/// A running machine's description of itself, stored as `machine.json`. The file stays when the machine ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineInfo {
    /// Same as in [`MachineSpec`].
    pub id: String,
    /// Same as in [`MachineSpec`].
    pub name: String,
    /// Loopback address.
    pub address: String,
    /// SSH port.
    pub port: u16,
    /// The SSH host key as an OpenSSH public key line; it survives reboots.
    pub host_key: String,
    /// Process id of the machine.
    pub pid: u32,
    /// When that process started, in clock ticks since the kernel's boot: distinguishes it from a later process with the
    /// same id.
    pub process_start: u64,
    /// Differs after every boot.
    pub boot_id: String,
    /// When the machine had booted (RFC 3339).
    pub started_at: String,
}

/// The folder of one machine.
#[derive(Clone, Debug)]
pub struct MachineDir(PathBuf);

impl MachineDir {
    /// The folder `path`, which may not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The home and working folder of all commands on the machine.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// The spec that the machine was last started with; `None` if it was never started.
    pub fn spec(&self) -> Result<Option<MachineSpec>> {
        read(&self.0.join("spec.json"))
    }

    /// The machine's last description of itself, whether it still runs or not; `None` if it has never booted.
    pub fn info(&self) -> Result<Option<MachineInfo>> {
        read(&self.0.join("machine.json"))
    }

    pub(crate) fn write_spec(&self, spec: &MachineSpec) -> Result<()> {
        write(&self.0.join("spec.json"), spec)
    }

    pub(crate) fn write_info(&self, info: &MachineInfo) -> Result<()> {
        write(&self.0.join("machine.json"), info)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
}

/// Replaces the file atomically: readers see the old content or the new, never a part.
fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    let part = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = std::fs::File::create(&part).with_context(context)?;
    file.write_all(&serde_json::to_vec_pretty(value)?).with_context(context)?;
    std::fs::rename(&part, path).with_context(context)
}
