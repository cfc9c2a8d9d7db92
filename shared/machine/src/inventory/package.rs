//! Packages as they are declared, and as they are found on a machine.

use std::fmt;

use crate::{archive::ArchivePackage, package_manager::ManagedPackage, script_package::ScriptPackage};

/// How a package is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackageKind {
    /// See [`apt`](crate::apt).
    Apt,
    /// See [`dnf`](crate::dnf).
    Dnf,
    /// See [`archive`](crate::archive).
    Archive,
    /// See [`script_package`](crate::script_package).
    Script,
}

impl fmt::Display for PackageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apt => "apt",
            Self::Dnf => "dnf",
            Self::Archive => "archive",
            Self::Script => "script",
        })
    }
}

/// A package as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclaredPackage {
    /// See [`apt`](crate::apt).
    Apt(ManagedPackage),
    /// See [`dnf`](crate::dnf).
    Dnf(ManagedPackage),
    /// See [`archive`](crate::archive).
    Archive(ArchivePackage),
    /// See [`script_package`](crate::script_package).
    Script(ScriptPackage),
}

impl DeclaredPackage {
    /// How it is installed.
    #[must_use]
    pub fn kind(&self) -> PackageKind {
        match self {
            Self::Apt(_) => PackageKind::Apt,
            Self::Dnf(_) => PackageKind::Dnf,
            Self::Archive(_) => PackageKind::Archive,
            Self::Script(_) => PackageKind::Script,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Apt(package) | Self::Dnf(package) => &package.name,
            Self::Archive(package) => &package.name,
            Self::Script(package) => &package.name,
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        match self {
            Self::Apt(package) | Self::Dnf(package) => &package.version,
            Self::Archive(package) => &package.version,
            Self::Script(package) => &package.version,
        }
    }
}

/// A package as found on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPackage {
    /// How it is installed.
    pub kind: PackageKind,
    /// Name.
    pub name: String,
    /// Version; `None` when only Berth's mark is left, because somebody else removed the package.
    pub version: Option<String>,
    /// SHA-256 of the archive that it came from.
    pub sha256: Option<String>,
    /// Whether Berth left a mark for it on the machine. Such a package is pruned when it is no longer declared.
    pub marked: bool,
    /// Whether Berth installed it, and so may remove it.
    pub own: bool,
    /// Whether everything about it is as declared, including its hold, link and remove command.
    pub right: bool,
}

impl FoundPackage {
    /// A package that Berth installed, and that differs from its declaration until the opposite is known.
    pub(crate) fn installed_by_berth(kind: PackageKind, name: &str, version: Option<&str>) -> Self {
        let version = version.map(str::to_owned);
        Self { kind, name: name.to_owned(), version, sha256: None, marked: true, own: true, right: false }
    }
}
