//! Packages of Debian and its relatives, by `apt-get` and `dpkg`.
//!
//! An installation is one transaction over all packages that differ, so that packages which need each other in exact
//! versions change together. The package index is refreshed only when the machine does not know a version, or when the
//! index names files that are gone. An interrupted run of dpkg is completed first, no matter which process started it, and
//! an operation waits while another process holds dpkg's locks.

use std::sync::LazyLock;

use crate::{operation::MachineOperation, package_manager::PackageManager};

const COMMON: [&str; 3] = [
    include_str!("scripts/packages_common.sh"),
    include_str!("scripts/apt_state.sh"),
    include_str!("scripts/apt_common.sh"),
];

pub(crate) static INSTALL: LazyLock<String> = LazyLock::new(|| {
    MachineOperation::script(&[COMMON.as_slice(), &[include_str!("scripts/apt_install.sh")]].concat())
});
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[COMMON.as_slice(), &[include_str!("scripts/apt_remove.sh")]].concat()));

/// Installs and removes packages of Debian and its relatives.
pub static MANAGER: PackageManager = PackageManager { name: "apt", install: &INSTALL, remove: &REMOVE };
