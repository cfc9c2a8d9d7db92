//! Packages that are archives: fetched by URL, verified by SHA-256 and kept side by side.
//!
//! Layout on the machine: `<root>/packages/<name>/<sha256>/` holds a package's files, `<root>/packages/<name>/current`
//! is a link that is switched in one step, and the marker `.berth-package` inside is written last, so that an
//! installation that broke off is never taken for a whole one.

use std::{sync::LazyLock, time::Duration};

use crate::{Error, Machine, Result, script::Step, validate};

/// Says which archives are installed.
pub(crate) const STATE: &str = include_str!("scripts/archive_state.sh");
const FETCH: &str = include_str!("scripts/fetch.sh");

pub(crate) static INSTALL: LazyLock<String> =
    LazyLock::new(|| Step::text(&[FETCH, include_str!("scripts/package_install.sh")]));
pub(crate) static LIST: LazyLock<String> =
    LazyLock::new(|| Step::text(&[STATE, include_str!("scripts/package_list.sh")]));
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| Step::text(&[FETCH, include_str!("scripts/package_remove.sh")]));

/// How long a step waits for another run of itself on the same machine, in seconds.
pub(crate) const LOCK_SECONDS: &str = "10";

/// A package that is an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivePackage {
    /// Name, a file name.
    pub name: String,
    /// Version, for people; what is installed is decided by the digest.
    pub version: String,
    /// Where the archive is: a tar file, plain or gzip.
    pub url: String,
    /// SHA-256 of the archive, 64 hexadecimal digits in lower case.
    pub sha256: String,
    /// A link to the package's current files, absolute or relative to the login's home.
    pub destination: Option<String>,
    /// A shell command, run once in the package's folder after unpacking.
    pub install: Option<String>,
    /// A shell command, run in the package's folder before it is removed for good (not when a new version replaces it).
    pub remove: Option<String>,
}

/// A package as read back from a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstalledPackage {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the archive it came from.
    pub sha256: String,
}

/// Whether a step had anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The machine was already as asked for, and nothing was touched.
    None,
    /// The machine was changed.
    Done,
}

impl Change {
    pub(crate) fn from_yes(yes: bool) -> Self {
        if yes { Self::Done } else { Self::None }
    }
}

impl ArchivePackage {
    /// What stands in the marker of its folder.
    pub(crate) fn marker(&self) -> String {
        let destination = self.destination.as_deref().unwrap_or_default();
        format!("name={}\nversion={}\nsha256={}\ndestination={destination}", self.name, self.version, self.sha256)
    }

    pub(crate) fn check(&self) -> Result<()> {
        validate::file_name("package name", &self.name)?;
        validate::version("package version", &self.version)?;
        validate::url("package url", &self.url)?;
        validate::sha256("package sha256", &self.sha256)?;
        self.destination.as_deref().map_or(Ok(()), |destination| validate::path("package destination", destination))
    }
}

/// The limit for a download, in whole seconds: what is left of the step's own after some seconds for the rest of it.
pub(crate) fn fetch_seconds(timeout: Duration) -> String {
    timeout.as_secs().saturating_sub(5).max(1).to_string()
}

/// Brings `package` onto the machine under `root` (absolute, or relative to the login's home).
pub async fn install_package(
    machine: &dyn Machine,
    root: &str,
    package: &ArchivePackage,
    timeout: Duration,
) -> Result<Change> {
    validate::path("root", root)?;
    package.check()?;
    let facts = Step::new(&INSTALL)
        .set("ROOT", root)?
        .set("NAME", &package.name)?
        .set("VERSION", &package.version)?
        .set("URL", &package.url)?
        .set("SHA256", &package.sha256)?
        .set("DESTINATION", package.destination.as_deref().unwrap_or_default())?
        .set("INSTALL", package.install.as_deref().unwrap_or_default())?
        .set("REMOVE", package.remove.as_deref().unwrap_or_default())?
        .set("MARKER", &package.marker())?
        .set("FETCH_SECONDS", &fetch_seconds(timeout))?
        .set("LOCK_SECONDS", LOCK_SECONDS)?
        .run(machine, &package.url, timeout)
        .await?;
    facts.yes("changed").map(Change::from_yes)
}

/// The packages that are completely installed under `root`, by name.
pub async fn list_packages(machine: &dyn Machine, root: &str, timeout: Duration) -> Result<Vec<InstalledPackage>> {
    validate::path("root", root)?;
    let facts = Step::new(&LIST).set("ROOT", root)?.run(machine, "", timeout).await?;
    let mut packages = facts
        .all("package")
        .map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [name, version, sha256] => {
                Ok(InstalledPackage { name: name.into(), version: version.into(), sha256: sha256.into() })
            }
            _ => Err(Error::Answer(format!("{line:?} is not a package's name, version and digest"))),
        })
        .collect::<Result<Vec<_>>>()?;
    packages.sort();
    Ok(packages)
}

/// Removes the package `name`, its link and all its versions; one that is not there is no error.
pub async fn remove_package(machine: &dyn Machine, root: &str, name: &str, timeout: Duration) -> Result<Change> {
    validate::path("root", root)?;
    validate::file_name("package name", name)?;
    let facts = Step::new(&REMOVE)
        .set("ROOT", root)?
        .set("NAME", name)?
        .set("LOCK_SECONDS", LOCK_SECONDS)?
        .run(machine, "", timeout)
        .await?;
    facts.yes("changed").map(Change::from_yes)
}
