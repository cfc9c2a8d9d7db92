//! The cache: one folder for each set of versions, which exists completely or not at all.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::{assets::Assets, settings::Progress};

/// The folder of one set of versions.
pub(super) struct CacheEntry {
    cache: PathBuf,
    key: String,
}

/// How often a caller tries to get the lock: short beside a download.
const LOCK_POLL_PERIOD: Duration = Duration::from_millis(200);

/// The right to fill an entry. It ends when this value is dropped, or by the kernel when its process dies.
pub(super) struct CacheLock<'a> {
    entry: &'a CacheEntry,
    _file: File,
}

impl CacheEntry {
    pub(super) fn new(cache: &Path, key: &str) -> Self {
        Self { cache: cache.to_owned(), key: key.to_owned() }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.cache.join(&self.key)
    }

    /// The programs, if the entry exists: one rename creates it, with all programs in it.
    pub(super) fn complete(&self) -> Option<Assets> {
        let assets = Assets::in_folder(&self.dir());
        assets.missing().is_empty().then_some(assets)
    }

    /// Waits for the right to fill the entry, and removes what an interrupted holder has left.
    pub(super) async fn lock(&self, progress: &Progress) -> anyhow::Result<CacheLock<'_>> {
        fs::create_dir_all(&self.cache).context("create it")?;
        let path = self.cache.join(format!("{}.lock", self.key));
        let file = File::options().create(true).truncate(false).write(true).open(&path).context("open its lock")?;
        let mut is_announced = false;
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(error).context("lock it"),
                TryLockError::WouldBlock if !is_announced => {
                    progress(&format!("waiting for another download or build (it holds {})", path.display()));
                    is_announced = true;
                }
                TryLockError::WouldBlock => {}
            }
            // Polled rather than awaited in a thread, so that the wait ends at once when its caller is dropped.
            tokio::time::sleep(LOCK_POLL_PERIOD).await;
        }
        let lock = CacheLock { entry: self, _file: file };
        lock.remove_leftovers()?;
        Ok(lock)
    }

    fn prefix(&self) -> String {
        format!(".{}.part-", self.key)
    }
}

impl CacheLock<'_> {
    fn remove_leftovers(&self) -> anyhow::Result<()> {
        let prefix = self.entry.prefix();
        for found in fs::read_dir(&self.entry.cache).context("list it")? {
            let found = found.context("list it")?;
            if found.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(found.path()).with_context(|| format!("remove {}", found.path().display()))?;
            }
        }
        Ok(())
    }

    /// An empty folder beside the entry, which is removed when dropped.
    pub(super) fn new_folder(&self) -> anyhow::Result<TempDir> {
        let builder = tempfile::Builder::new().prefix(&self.entry.prefix()).tempdir_in(&self.entry.cache);
        builder.with_context(|| format!("create a folder in {}", self.entry.cache.display()))
    }

    /// Turns a filled folder into the entry: syncs everything to disk, then renames it.
    pub(super) fn publish(&self, filled: TempDir) -> anyhow::Result<Assets> {
        let missing = Assets::in_folder(filled.path()).missing();
        ensure!(missing.is_empty(), "cache: there is no {} to store", missing.join(", no "));
        let dir = self.entry.dir();
        let store = || -> std::io::Result<()> {
            for file in fs::read_dir(filled.path())? {
                File::open(file?.path())?.sync_all()?;
            }
            File::open(filled.path())?.sync_all()?;
            if dir.exists() {
                fs::remove_dir_all(&dir)?; // incomplete: a complete entry is never filled again
            }
            fs::rename(filled.path(), &dir)?;
            File::open(&self.entry.cache)?.sync_all()
        };
        store().with_context(|| format!("cache: store {}", dir.display()))?;
        let _ = filled.keep(); // it has been renamed
        Ok(Assets::in_folder(&dir))
    }
}
