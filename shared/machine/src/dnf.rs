//! Packages of Fedora and its relatives, by `dnf` and `rpm`.
//!
//! As [`apt`](crate::apt), with dnf's plugin versionlock for the hold; on a machine without the plugin a held package is
//! excluded in `dnf.conf` instead. A version is `[epoch:]version-release`, without an epoch of 0.

use std::{sync::LazyLock, time::Duration};

use crate::{
    Machine, Result,
    archive::Change,
    managed::{ManagedPackage, Manager, Removal},
    script::Step,
};

const COMMON: [&str; 3] =
    [include_str!("scripts/packages.sh"), include_str!("scripts/dnf_state.sh"), include_str!("scripts/dnf.sh")];

pub(crate) static INSTALL: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON.as_slice(), &[include_str!("scripts/dnf_install.sh")]].concat()));
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON.as_slice(), &[include_str!("scripts/dnf_remove.sh")]].concat()));

fn manager() -> Manager {
    Manager { name: "dnf", install: &INSTALL, remove: &REMOVE }
}

/// Brings these packages, up or down, to their versions and holds them there, in one transaction.
pub async fn install(
    machine: &dyn Machine,
    root: &str,
    packages: &[ManagedPackage],
    timeout: Duration,
) -> Result<Change> {
    manager().install(machine, root, packages, timeout).await
}

/// Removes a package that Berth installed, and with it at most those in `also`. One
/// that others need, or that was there before Berth, is only given up: its hold goes, and it stays.
pub async fn remove(
    machine: &dyn Machine,
    root: &str,
    name: &str,
    also: &[&str],
    timeout: Duration,
) -> Result<Removal> {
    manager().remove(machine, root, name, also, timeout).await
}
