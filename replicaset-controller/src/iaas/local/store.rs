//! The provider's folder: who has which machine.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use local_machine::MachineDir;
use serde::{Deserialize, Serialize};

use super::{Error, Owner, Result, addresses};

/// How long one process waits for another that has the same machine in hand: longer than a boot may take.
const LOCK_LIMIT: Duration = Duration::from_secs(45);
/// How long a machine whose start was begun by a process that died may take until it shows itself.
const FIRST_SIGN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// What is known of a machine besides what it says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// Whose machine it is.
    pub(super) owner: Owner,
    /// Its address, for its whole life.
    pub(super) address: String,
    /// When it was first asked for.
    pub(super) created_at: Timestamp,
}

#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        for below in [".locks", ".addresses"] {
            let path = dir.join(below);
            fs::create_dir_all(&path)
                .map_err(|error| Error::Configuration(format!("cannot make the folder {}: {error}", path.display())))?;
        }
        let dir = fs::canonicalize(dir).map_err(io("cannot resolve", dir))?;
        Ok(Self { dir })
    }

    /// Whether the folder can be used.
    pub(super) fn check(&self) -> Result<()> {
        fs::read_dir(self.dir.join(".addresses")).map(drop).map_err(io("cannot read", &self.dir))
    }

    /// The folder of everything about one machine. UIDs come from the API server; whatever could leave the folder is
    /// refused all the same.
    fn folder(&self, uid: &str) -> Result<PathBuf> {
        if uid.is_empty() || !uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(Error::Configuration(format!("{uid:?} is no UID: only letters, digits and - are allowed")));
        }
        Ok(self.dir.join(uid))
    }

    pub(super) fn machine(&self, uid: &str) -> Result<MachineDir> {
        Ok(MachineDir::new(self.folder(uid)?.join("machine")))
    }

    /// Takes the machine in hand until the answer is dropped, also by the death of this process.
    pub(super) fn lock(&self, uid: &str) -> Result<File> {
        self.folder(uid)?;
        let path = self.dir.join(".locks").join(uid);
        let file = File::options().create(true).append(true).open(&path).map_err(io("cannot open", &path))?;
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(io("cannot lock", &path)(error)),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    return Err(Error::Retryable(format!(
                        "another process has had the machine of {uid} in hand for {LOCK_LIMIT:?}"
                    )));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
            }
        }
    }

    pub(super) fn record(&self, uid: &str) -> Result<Option<Record>> {
        let path = self.folder(uid)?.join("owner.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("cannot read", &path)(error)),
        };
        let damaged = |error| Error::Configuration(format!("{} is damaged: {error}", path.display()));
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Every machine. What is damaged or half removed is left out and logged: it must not hide the others.
    pub(super) fn records(&self) -> Result<Vec<Record>> {
        let entries = fs::read_dir(&self.dir).map_err(io("cannot read", &self.dir))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut records: Vec<Record> = names
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

    /// Gives a new machine an address and writes down whose it is. The caller holds the machine's lock.
    pub(super) fn enter(&self, owner: &Owner, port: u16, now: Timestamp) -> Result<Record> {
        let folder = self.folder(&owner.uid)?;
        fs::create_dir_all(&folder).map_err(io("cannot make", &folder))?;
        let address = addresses::allocate(&self.dir.join(".addresses"), &owner.uid, port)?;
        let record = Record { owner: owner.clone(), address, created_at: now };
        let path = folder.join("owner.json");
        let text = serde_json::to_vec_pretty(&record).map_err(|error| Error::Retryable(error.to_string()))?;
        write(&path, &text).map_err(io("cannot write", &path))?;
        Ok(record)
    }

    /// Removes what is known of a machine, its address last. The caller holds the machine's lock.
    pub(super) fn forget(&self, uid: &str) -> Result<()> {
        let folder = self.folder(uid)?;
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("cannot remove", &folder)(error)),
            _ => {}
        }
        addresses::release(&self.dir.join(".addresses"), uid)
    }

    /// Waits until a machine that may have been started a moment ago, by a process that died then, can be found.
    /// Without this it could come up in a folder that is being removed.
    pub(super) fn await_first_boot(machine: &MachineDir) -> Result<()> {
        let started = machine.path().join("console.log").exists();
        let deadline = Instant::now() + FIRST_SIGN;
        while started && Instant::now() < deadline {
            if machine.spec().map_err(|error| super::retryable(&error))?.is_some() {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Readers see the whole file or none.
fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("new");
    let mut file = File::create(&part)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(part, path)
}

pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Quota(format!("{what} {path}: {error}")),
        _ => Error::Retryable(format!("{what} {path}: {error}")),
    }
}
