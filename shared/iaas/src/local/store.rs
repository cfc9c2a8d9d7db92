//! The provider's folder.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use local_machine::MachineDir;

use super::{
    addresses,
    file_error::{during, retryable},
    record::MachineRecord,
};
use crate::{
    error::{ProviderError, Result},
    provider::MachineOwner,
};

/// How long a process waits while another works on the same machine: longer than a boot may take.
const LOCK_LIMIT: Duration = Duration::from_secs(45);
/// How long a machine may take from its start until it can be found: it writes its description first.
const FIRST_SIGN_LIMIT: Duration = Duration::from_secs(2);
/// Between two attempts to lock or to find a machine: neither can be waited for.
const POLL: Duration = Duration::from_millis(20);

/// Reads and writes the folder.
#[derive(Clone, Debug)]
pub(super) struct LocalStore {
    dir: PathBuf,
}

impl LocalStore {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        for below in [".locks", ".addresses"] {
            let path = dir.join(below);
            fs::create_dir_all(&path).map_err(|error| {
                ProviderError::Configuration(format!("cannot make the folder {}: {error}", path.display()))
            })?;
        }
        let dir = fs::canonicalize(dir).map_err(during("cannot resolve", dir))?;
        Ok(Self { dir })
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fails if the folder cannot be used.
    pub(super) fn check(&self) -> Result<()> {
        fs::read_dir(self.dir.join(".addresses")).map(drop).map_err(during("cannot read", &self.dir))
    }

    /// The folder of one machine. UIDs come from the API server, but one that would lead out of the folder is refused
    /// anyway.
    fn folder(&self, uid: &str) -> Result<PathBuf> {
        if uid.is_empty() || !uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(ProviderError::Configuration(format!(
                "{uid:?} is no UID: only letters, digits and - are allowed"
            )));
        }
        Ok(self.dir.join(uid))
    }

    pub(super) fn machine(&self, uid: &str) -> Result<MachineDir> {
        Ok(MachineDir::new(self.folder(uid)?.join("machine")))
    }

    /// Locks the machine until the file is dropped or the process ends.
    pub(super) fn lock(&self, uid: &str) -> Result<File> {
        self.folder(uid)?;
        let path = self.dir.join(".locks").join(uid);
        let file = File::options().create(true).append(true).open(&path).map_err(during("cannot open", &path))?;
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(during("cannot lock", &path)(error)),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    return Err(ProviderError::Retryable(format!(
                        "another process has worked on the machine of {uid} for {LOCK_LIMIT:?}"
                    )));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
            }
        }
    }

    pub(super) fn record(&self, uid: &str) -> Result<Option<MachineRecord>> {
        let path = self.folder(uid)?.join("owner.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(during("cannot read", &path)(error)),
        };
        let damaged = |error| ProviderError::Configuration(format!("{} is damaged: {error}", path.display()));
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// The records of all machines. A damaged record is logged and left out, so that it does not hide the others.
    pub(super) fn records(&self) -> Result<Vec<MachineRecord>> {
        let entries = fs::read_dir(&self.dir).map_err(during("cannot read", &self.dir))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut records: Vec<MachineRecord> = names
            .filter(|name| !name.starts_with('.'))
            .filter_map(|uid| {
                self.record(&uid).unwrap_or_else(|error| {
                    tracing::warn!(uid, %error, "a machine's record cannot be read");
                    None
                })
            })
            .collect();
        records.sort_by(|a, b| a.owner.uid.cmp(&b.owner.uid));
        Ok(records)
    }

    /// Takes an address for a new machine and writes its record. The caller holds the machine's lock.
    pub(super) fn add(&self, owner: &MachineOwner, port: u16, now: Timestamp) -> Result<MachineRecord> {
        let folder = self.folder(&owner.uid)?;
        fs::create_dir_all(&folder).map_err(during("cannot make", &folder))?;
        let address = addresses::allocate(&self.dir.join(".addresses"), &owner.uid, port)?;
        let record = MachineRecord { owner: owner.clone(), address, created_at: now };
        let path = folder.join("owner.json");
        let text = serde_json::to_vec_pretty(&record).map_err(|error| ProviderError::Retryable(error.to_string()))?;
        write(&path, &text).map_err(during("cannot write", &path))?;
        Ok(record)
    }

    /// Removes everything about a machine, its address last. The caller holds the machine's lock.
    pub(super) fn remove(&self, uid: &str) -> Result<()> {
        let folder = self.folder(uid)?;
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(during("cannot remove", &folder)(error)),
            _ => {}
        }
        addresses::release(&self.dir.join(".addresses"), uid)
    }

    /// Waits until a machine can be found that a process may have started just before it died. Otherwise the machine could
    /// boot in a folder that is being removed.
    pub(super) fn await_first_boot(machine: &MachineDir) -> Result<()> {
        let started = machine.path().join("console.log").exists();
        let deadline = Instant::now() + FIRST_SIGN_LIMIT;
        while started && Instant::now() < deadline {
            if machine.spec().map_err(|error| retryable(&error))?.is_some() {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Writes a file atomically.
fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("new");
    let mut file = File::create(&part)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(part, path)
}
