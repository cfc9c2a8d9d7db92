//! Packages of Fedora and its relatives, by `dnf` and `rpm`.
//!
//! Works as [`apt`](crate::apt) does, with dnf's plugin versionlock for the hold. On a machine without the plugin a held
//! package is excluded in `dnf.conf` instead. A version is `[epoch:]version-release`, without an epoch of 0.

use std::sync::LazyLock;

use crate::{operation::MachineOperation, package_manager::PackageManager};

const COMMON: [&str; 3] = [
    include_str!("scripts/packages_common.sh"),
    include_str!("scripts/dnf_state.sh"),
    include_str!("scripts/dnf_common.sh"),
];

pub(crate) static INSTALL: LazyLock<String> = LazyLock::new(|| {
    MachineOperation::script(&[COMMON.as_slice(), &[include_str!("scripts/dnf_install.sh")]].concat())
});
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| MachineOperation::script(&[COMMON.as_slice(), &[include_str!("scripts/dnf_remove.sh")]].concat()));

/// Installs and removes packages of Fedora and its relatives.
pub static MANAGER: PackageManager = PackageManager { name: "dnf", install: &INSTALL, remove: &REMOVE };
