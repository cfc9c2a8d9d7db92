//! Packages of Fedora and its relatives, by `dnf` and `rpm`.
//!
//! As [`apt`](crate::apt), with dnf's plugin versionlock for the hold; on a machine without the plugin a held package is
//! excluded in `dnf.conf` instead. A version is `[epoch:]version-release`, without an epoch of 0.

use std::sync::LazyLock;

use crate::{managed::Manager, script::Step};

const COMMON: [&str; 3] =
    [include_str!("scripts/packages.sh"), include_str!("scripts/dnf_state.sh"), include_str!("scripts/dnf.sh")];

pub(crate) static INSTALL: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON.as_slice(), &[include_str!("scripts/dnf_install.sh")]].concat()));
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON.as_slice(), &[include_str!("scripts/dnf_remove.sh")]].concat()));

/// Packages of Fedora and its relatives: how they are installed and removed.
pub static MANAGER: Manager = Manager { name: "dnf", install: &INSTALL, remove: &REMOVE };
