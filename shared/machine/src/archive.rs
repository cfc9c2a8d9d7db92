//! Packages that are archives: downloaded by URL, verified by SHA-256 and kept side by side.
//!
//! Layout on the machine: `<root>/packages/<name>/<sha256>/` holds a package's files, and the link
//! `<root>/packages/<name>/current` is switched atomically. The marker `.berth-package` inside is written last, so that an
//! interrupted installation is never taken for a complete one.

use std::{sync::LazyLock, time::Duration};

use crate::{
    change::MachineChange, error::Result, limits::download_seconds, machine::Machine, operation::MachineOperation,
    validate,
};

/// Reports which archives are installed.
pub(crate) const STATE: &str = include_str!("scripts/archive_state.sh");
const FETCH: &str = include_str!("scripts/fetch.sh");

pub(crate) static INSTALL: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[FETCH, include_str!("scripts/archive_install.sh")]));
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[FETCH, include_str!("scripts/archive_remove.sh")]));

/// A package that is an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivePackage {
    /// Name, a file name.
    pub name: String,
    /// Version, for people; the digest decides whether the package is installed.
    pub version: String,
    /// URL of the archive: a tar file, plain or with gzip or zstd, or a zip.
    pub url: String,
    /// SHA-256 of the archive, 64 hexadecimal digits in lower case.
    pub sha256: String,
    /// A link to the package's current files, absolute or relative to the login's home.
    pub destination: Option<String>,
    /// A shell command, run once in the package's folder after unpacking.
    pub install: Option<String>,
    /// A shell command, run in the package's folder before the package is removed (not when a new version replaces it).
    pub remove: Option<String>,
}

impl ArchivePackage {
    /// The content of the marker in the package's folder.
    pub(crate) fn marker(&self) -> String {
        let destination = self.destination.as_deref().unwrap_or_default();
        format!("name={}\nversion={}\nsha256={}\ndestination={destination}", self.name, self.version, self.sha256)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        validate::file_name("package name", &self.name)?;
        validate::version("package version", &self.version)?;
        validate::url("package url", &self.url)?;
        validate::sha256("package sha256", &self.sha256)?;
        self.destination.as_deref().map_or(Ok(()), |destination| validate::path("package destination", destination))
    }
}

/// Installs `package` on the machine under `root` (absolute, or relative to the login's home).
pub async fn install_package(
    machine: &dyn Machine,
    root: &str,
    package: &ArchivePackage,
    timeout: Duration,
) -> Result<MachineChange> {
    package.validate()?;
    let answer = MachineOperation::changing(&INSTALL, root)?
        .set("NAME", &package.name)?
        .set("VERSION", &package.version)?
        .set("URL", &package.url)?
        .set("SHA256", &package.sha256)?
        .set("DESTINATION", package.destination.as_deref().unwrap_or_default())?
        .set("INSTALL", package.install.as_deref().unwrap_or_default())?
        .set("REMOVE", package.remove.as_deref().unwrap_or_default())?
        .set("MARKER", &package.marker())?
        .set("FETCH_SECONDS", &download_seconds(timeout))?
        .run(machine, &package.url, timeout)
        .await?;
    MachineChange::read(&answer)
}

/// Removes the package `name` with its link and all its versions. A package that is not installed is no error.
pub async fn remove_package(machine: &dyn Machine, root: &str, name: &str, timeout: Duration) -> Result<MachineChange> {
    validate::file_name("package name", name)?;
    let answer = MachineOperation::changing(&REMOVE, root)?.set("NAME", name)?.run(machine, "", timeout).await?;
    MachineChange::read(&answer)
}
