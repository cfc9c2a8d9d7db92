//! Packages of Debian and its relatives, by `apt-get` and `dpkg`.
//!
//! An installation is one transaction over all packages that differ, so that packages which need each other in exact
//! versions change together. The sources are read anew only when the machine does not know a version, or its index names
//! files that are gone. An interrupted run of dpkg, of whomever, is finished first; who holds dpkg's locks is waited for.

use std::sync::LazyLock;

use crate::{managed::Manager, script::Step};

const COMMON: [&str; 3] =
    [include_str!("scripts/packages.sh"), include_str!("scripts/apt_state.sh"), include_str!("scripts/apt.sh")];

pub(crate) static INSTALL: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON.as_slice(), &[include_str!("scripts/apt_install.sh")]].concat()));
pub(crate) static REMOVE: LazyLock<String> =
    LazyLock::new(|| Step::text(&[COMMON.as_slice(), &[include_str!("scripts/apt_remove.sh")]].concat()));

/// Packages of Debian and its relatives: how they are installed and removed.
pub static MANAGER: Manager = Manager { name: "apt", install: &INSTALL, remove: &REMOVE };
