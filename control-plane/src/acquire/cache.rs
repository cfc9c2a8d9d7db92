//! The cache: a folder per set of versions, which is there as a whole or not at all.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::{Assets, Progress};

/// A place in the cache.
pub(super) struct Entry {
    cache: PathBuf,
    key: String,
}

/// The right to fill an entry; given back when dropped, and by the kernel when its holder dies.
pub(super) struct Lock<'a> {
    entry: &'a Entry,
    _file: File,
}

impl Entry {
    pub(super) fn new(cache: &Path, key: &str) -> Self {
        Self { cache: cache.to_owned(), key: key.to_owned() }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.cache.join(&self.key)
    }

    /// The programs, if the entry is there: it comes into being by one rename, with all of them.
    pub(super) fn complete(&self) -> Option<Assets> {
        let assets = Assets::in_folder(&self.dir());
        assets.missing().is_empty().then_some(assets)
    }

    /// Waits for the right to fill the entry, and clears away what an interrupted holder left.
    pub(super) async fn lock(&self, progress: &Progress) -> anyhow::Result<Lock<'_>> {
        fs::create_dir_all(&self.cache).context("create it")?;
        let path = self.cache.join(format!("{}.lock", self.key));
        let file = File::options().create(true).truncate(false).write(true).open(&path).context("open its lock")?;
        let mut told = false;
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(error).context("lock it"),
                TryLockError::WouldBlock if !told => {
                    progress(&format!("waiting for another download or build (it holds {})", path.display()));
                    told = true;
                }
                TryLockError::WouldBlock => {}
            }
            // Asked for again and again, so that the wait ends at once when its caller gives up.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let lock = Lock { entry: self, _file: file };
        lock.clear()?;
        Ok(lock)
    }

    fn prefix(&self) -> String {
        format!(".{}.part-", self.key)
    }
}

impl Lock<'_> {
    fn clear(&self) -> anyhow::Result<()> {
        let prefix = self.entry.prefix();
        for found in fs::read_dir(&self.entry.cache).context("list it")? {
            let found = found.context("list it")?;
            if found.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_dir_all(found.path()).with_context(|| format!("remove {}", found.path().display()))?;
            }
        }
        Ok(())
    }

    /// An empty folder beside the entry, removed when dropped.
    pub(super) fn fresh(&self) -> anyhow::Result<TempDir> {
        let builder = tempfile::Builder::new().prefix(&self.entry.prefix()).tempdir_in(&self.entry.cache);
        builder.with_context(|| format!("create a folder in {}", self.entry.cache.display()))
    }

    /// Makes a filled folder the entry: everything on disk first, then one rename.
    pub(super) fn publish(&self, fresh: TempDir) -> anyhow::Result<Assets> {
        let missing = Assets::in_folder(fresh.path()).missing();
        ensure!(missing.is_empty(), "cache: there is no {} to store", missing.join(", no "));
        let dir = self.entry.dir();
        let store = || -> std::io::Result<()> {
            for file in fs::read_dir(fresh.path())? {
                File::open(file?.path())?.sync_all()?;
            }
            File::open(fresh.path())?.sync_all()?;
            if dir.exists() {
                fs::remove_dir_all(&dir)?; // not complete, or this would not have been asked for
            }
            fs::rename(fresh.path(), &dir)?;
            File::open(&self.entry.cache)?.sync_all()
        };
        store().with_context(|| format!("cache: store {}", dir.display()))?;
        let _ = fresh.keep(); // it has moved
        Ok(Assets::in_folder(&dir))
    }
}
