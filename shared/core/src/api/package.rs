//! Packages: what a machine's environment consists of.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One package of the environment. Exactly one of `apt`, `dnf`, `archive` and `script` says how it is installed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.apt), has(self.dnf), has(self.archive), has(self.script)].filter(x, x).size() == 1")
    .message("a package is exactly one of apt, dnf, archive or script"))]
pub struct Package {
    /// Name, unique in the list. For `apt` and `dnf` it is the package manager's name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9+._-]*$"))]
    pub name: String,
    /// The exact version that is to be installed.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9+.:~_-]*$"))]
    pub version: String,
    /// Installed by Debian's package manager and held at its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apt: Option<Apt>,
    /// Installed by the package manager of Fedora and its relatives, and locked at its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dnf: Option<Dnf>,
    /// Unpacked from an archive with a known digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Installed by commands of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
}

/// How a package is installed; see [`Package::source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackageSource<'a> {
    /// See [`Apt`].
    Apt(&'a Apt),
    /// See [`Dnf`].
    Dnf(&'a Dnf),
    /// See [`Archive`].
    Archive(&'a Archive),
    /// See [`Script`].
    Script(&'a Script),
}

impl Package {
    /// The one source of this package, or nothing when the object carries none or several (which admission refuses).
    #[must_use]
    pub fn source(&self) -> Option<PackageSource<'_>> {
        match (&self.apt, &self.dnf, &self.archive, &self.script) {
            (Some(apt), None, None, None) => Some(PackageSource::Apt(apt)),
            (None, Some(dnf), None, None) => Some(PackageSource::Dnf(dnf)),
            (None, None, Some(archive), None) => Some(PackageSource::Archive(archive)),
            (None, None, None, Some(script)) => Some(PackageSource::Script(script)),
            _ => None,
        }
    }

    /// The digest that what is installed must show, for packages that have one.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        self.archive.as_ref().map(|a| a.sha256.as_str())
    }
}

/// A Debian package.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Apt {
    /// Do not hold the package at its version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unheld: bool,
}

/// An RPM package.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dnf {
    /// Do not lock the package at its version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unheld: bool,
}

/// An archive (`.tar` or `.tar.gz`) fetched by the machine.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// Where the machine fetches it.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// SHA-256 of the archive, in lower-case hexadecimal. Nothing is unpacked when it differs.
    #[schemars(length(equal = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// An absolute path that is to point to the unpacked archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^/[^\s]*$"))]
    pub destination: Option<String>,
    /// Run in the unpacked archive after unpacking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub install: Option<String>,
    /// Run in the unpacked archive before it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub remove: Option<String>,
}

/// A package that its own commands install; idempotent by `check`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Script {
    /// Succeeds when, and only when, the package is installed in its version (`$BERTH_PACKAGE_VERSION`).
    #[schemars(length(min = 1, max = 4096))]
    pub check: String,
    /// Installs it.
    #[schemars(length(min = 1, max = 4096))]
    pub install: String,
    /// Removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub remove: Option<String>,
}
