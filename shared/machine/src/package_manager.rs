//! What [`apt`](crate::apt) and [`dnf`](crate::dnf) have in common: packages of the machine's own package manager.
//!
//! Marks on the machine, `<root>/managed/<kind>/<name>`, say whether Berth installed a package or found it already
//! installed: Berth removes only what it installed. A mark is written before the installation, so that a machine that
//! crashes in the middle still knows that the package is Berth's.

use std::{fmt::Write as _, sync::LazyLock, time::Duration};

use crate::{
    change::{MachineChange, Removal},
    error::{MachineError, Result},
    machine::Machine,
    operation::MachineOperation,
    validate,
};

/// How long an operation waits for other processes that hold the package manager's locks, in seconds: enough for an
/// unattended upgrade of a few packages.
const MANAGER_LOCK_SECONDS: u64 = 60;

/// A package of the machine's package manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedPackage {
    /// The package manager's name for it.
    pub name: String,
    /// The exact version, as the package manager writes it: `[epoch:]version[-revision]`.
    pub version: String,
    /// Whether the package manager is told to keep it at its version.
    pub hold: bool,
}

/// A package manager, with its scripts.
pub struct PackageManager {
    pub(crate) name: &'static str,
    pub(crate) install: &'static LazyLock<String>,
    pub(crate) remove: &'static LazyLock<String>,
}

impl PackageManager {
    /// Upgrades or downgrades these packages to their versions and holds them there, in one transaction.
    pub async fn install(
        &self,
        machine: &dyn Machine,
        root: &str,
        packages: &[ManagedPackage],
        timeout: Duration,
    ) -> Result<MachineChange> {
        let mut lines = String::new();
        for package in packages {
            validate::managed_name(&package.name)?;
            validate::managed_version(&package.version)?;
            let hold = if package.hold { "hold" } else { "free" };
            // Writing into a String cannot fail.
            let _ = writeln!(lines, "{} {} {hold}", package.name, package.version);
        }
        let operation = Self::operation(self.install, root, timeout)?.set("PACKAGES", &lines)?;
        MachineChange::read(&operation.run(machine, self.name, timeout).await?)
    }

    /// Removes a package that Berth installed, and with it at most the packages in `also`. Apt keeps the configuration
    /// files. A package that others need, or that was installed before Berth came, stays: only its hold is removed, and
    /// Berth no longer manages it.
    pub async fn remove(
        &self,
        machine: &dyn Machine,
        root: &str,
        name: &str,
        also: &[&str],
        timeout: Duration,
    ) -> Result<Removal> {
        validate::managed_name(name)?;
        also.iter().try_for_each(|name| validate::managed_name(name))?;
        let operation = Self::operation(self.remove, root, timeout)?.set("NAME", name)?.set("ALSO", &also.join(" "))?;
        Removal::read(&operation.run(machine, self.name, timeout).await?)
    }

    fn operation(script: &'static str, root: &str, timeout: Duration) -> Result<MachineOperation> {
        // At least half of the time remains for the work itself.
        let wait = (timeout.as_secs() / 2).min(MANAGER_LOCK_SECONDS);
        MachineOperation::changing(script, root)?.set("LOCK_WAIT", &wait.to_string())
    }
}

/// An installed package of a package manager, as the inventory reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ManagedFact<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) held: bool,
    /// Whether Berth installed it; `None` when Berth left no mark for it.
    pub(crate) own: Option<bool>,
}

impl<'a> ManagedFact<'a> {
    pub(crate) fn parse(line: &'a str) -> Result<Self> {
        let unknown = || MachineError::Answer(format!("{line:?} is not a package's name, version, hold and mark"));
        let [name, version, hold, mark] = line.split(' ').collect::<Vec<_>>()[..] else { return Err(unknown()) };
        let own = match mark {
            "yes" => Some(true),
            "no" => Some(false),
            "-" => None,
            _ => return Err(unknown()),
        };
        Ok(Self { name, version, held: hold == "hold", own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_about_a_managed_package_is_parsed_strictly() {
        let held = ManagedFact { name: "nginx", version: "1:1.2-3", held: true, own: Some(true) };
        assert_eq!(ManagedFact::parse("nginx 1:1.2-3 hold yes").unwrap(), held);
        let free = ManagedFact { name: "nginx", version: "1.2", held: false, own: None };
        assert_eq!(ManagedFact::parse("nginx 1.2 free -").unwrap(), free);
        for bad in ["nginx", "nginx 1.2 hold", "nginx 1.2 hold maybe", "nginx 1.2 hold yes more"] {
            assert!(matches!(ManagedFact::parse(bad), Err(MachineError::Answer(_))), "{bad}");
        }
    }
}
