//! Packages of a machine's environment.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A package of the environment. Exactly one of `apt`, `dnf`, `archive` and `script` is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.apt), has(self.dnf), has(self.archive), has(self.script)].filter(x, x).size() == 1")
    .message("a package is exactly one of apt, dnf, archive or script"))]
pub struct Package {
    /// Name of the package, unique in the list. For `apt` and `dnf` it is the name that the package manager knows.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9+._-]*$"))]
    pub name: String,
    /// Exact version to install.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9+.:~_-]*$"))]
    pub version: String,
    /// Installs the package with apt (Debian, Ubuntu) and holds it at its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apt: Option<Apt>,
    /// Installs the package with dnf (Fedora and its relatives) and locks it at its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dnf: Option<Dnf>,
    /// Unpacks the package from an archive with a known digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Installs the package with the given commands.
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
    /// How this package is installed. None if the object declares no source or several, which the schema refuses.
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

    /// The digest that the installed package must have, for kinds of packages that have one.
    #[must_use]
    pub fn sha256(&self) -> Option<&str> {
        self.archive.as_ref().map(|a| a.sha256.as_str())
    }
}

/// A Debian package.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Apt {
    /// Does not hold the package at its version, so that other tools may upgrade it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unheld: bool,
}

/// An RPM package.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dnf {
    /// Does not lock the package at its version, so that other tools may upgrade it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unheld: bool,
}

/// A package in an archive (`.tar`, `.tar.gz`, `.tar.zst` or `.zip`) that the machine downloads.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// URL from which the machine downloads the archive.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// SHA-256 of the archive in lower-case hexadecimal. An archive with another digest is not unpacked.
    #[schemars(length(equal = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// Absolute path at which a link to the unpacked archive is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^/[^\s]*$"))]
    pub destination: Option<String>,
    /// Shell command that runs in the unpacked archive after it was unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub install: Option<String>,
    /// Shell command that runs in the unpacked archive before it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub remove: Option<String>,
}

/// A package that is installed by shell commands, which find `$BERTH_PACKAGE_NAME` and `$BERTH_PACKAGE_VERSION` in
/// their environment.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Script {
    /// Succeeds if and only if the package is installed in its version. It runs often, so it should be quick and change
    /// nothing.
    #[schemars(length(min = 1, max = 4096))]
    pub check: String,
    /// Installs the package.
    #[schemars(length(min = 1, max = 4096))]
    pub install: String,
    /// Removes the package when it is no longer declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub remove: Option<String>,
}
