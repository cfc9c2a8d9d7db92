//! Reproducible archives: the same files give the same bytes on any machine and at any time.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Builds a `.tar` archive: entries sorted by path, times 0, owner 0, modes 0644 or 0755. It is not compressed, because the
/// bytes of a compressed file depend on the version of the compressor.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file; it replaces an earlier one of that path.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), (0o644, content.into()));
        self
    }

    /// Adds an executable file; it replaces an earlier one of that path.
    #[must_use]
    pub fn executable(mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), (0o755, content.into()));
        self
    }

    /// An archive of all files below a folder; those that their owner may execute are executable.
    ///
    /// # Errors
    /// When something cannot be read, or is neither a file nor a folder.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let mut archive = Self::new();
        archive.add_below(folder, Path::new(""))?;
        Ok(archive)
    }

    fn add_below(&mut self, folder: &Path, inside: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
            let entry = entry?;
            let (path, inside) = (entry.path(), inside.join(entry.file_name()));
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                self.add_below(&path, &inside)?;
            } else if meta.is_file() {
                let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
                let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                self.files.insert(inside, (mode, content));
            } else {
                bail!("{} is neither a file nor a folder", path.display());
            }
        }
        Ok(())
    }

    /// The bytes of the archive.
    ///
    /// # Errors
    /// When a path does not fit into an archive.
    pub fn build(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, (mode, content)) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(u64::try_from(content.len())?);
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            tar.append_data(&mut header, path, content.as_slice())
                .with_context(|| format!("pack {}", path.display()))?;
        }
        tar.into_inner().context("finish the archive")
    }
}

/// The SHA-256 of the bytes in lower-case hexadecimal, as manifests have it.
#[must_use]
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let one = Archive::new().file("b/c", "2").executable("a", "1").build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b/c"), "2").unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        fs::set_permissions(folder.path().join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(Archive::of_folder(folder.path()).unwrap().build().unwrap(), one);
        // The digest pins the format, so that a later version packs the same archive.
        assert_eq!(sha256(&one), "057dcedd940bbc57f20c29bdf666ccb90fac192e155fb25478f0bd969339fecd");
        assert_ne!(Archive::new().file("b/c", "2").file("a", "1").build().unwrap(), one, "the mode counts");
    }

    #[test]
    fn the_archive_contains_the_files() {
        let bytes = Archive::new().file("www/index.html", "hello").executable("run", "#!/bin/sh\n").build().unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        let entries: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                (entry.path().unwrap().display().to_string(), header.mode().unwrap(), header.mtime().unwrap())
            })
            .collect();
        assert_eq!(entries, [("run".to_owned(), 0o755, 0), ("www/index.html".to_owned(), 0o644, 0)]);
    }
}
