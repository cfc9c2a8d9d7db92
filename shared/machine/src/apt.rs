//! Packages of Debian and its relatives, by `apt-get` and `dpkg`.
//!
//! An installation is one transaction over all packages that differ, so that packages which need each other in exact
//! versions change together. The sources are read anew only when the machine does not know a version, or its index names
//! files that are gone. An interrupted run of dpkg, of whomever, is finished first; who holds dpkg's locks is waited for.

use std::{sync::LazyLock, time::Duration};

use crate::{
    Machine, Result,
    archive::Change,
    managed::{ManagedPackage, Manager, Removal},
    script::Step,
};

const COMMON: [&str; 3] =
    [include_str!("scripts/packages.sh"), include_str!("scripts/apt_state.sh"), include_str!("scripts/apt.sh")];

pub(crate) static INSTALL: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON.as_slice(), &[include_str!("scripts/apt_install.sh")]].concat()));
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON.as_slice(), &[include_str!("scripts/apt_remove.sh")]].concat()));

fn manager() -> Manager {
    Manager { name: "apt", install: &INSTALL, remove: &REMOVE }
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

/// Removes a package that Berth installed, its configuration files excepted, and with it at most those in `also`. One
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
