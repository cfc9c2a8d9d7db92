//! What [`apt`](crate::apt) and [`dnf`](crate::dnf) have in common: packages of the machine's own package manager.
//!
//! Marks on the machine, `<root>/managed/<kind>/<name>`, say whether Berth installed a package or found it there: only
//! what it installed is ever removed. A mark is written before the installation, so that a machine that dies in the
//! middle still knows whose the package is.

use std::{fmt::Write as _, sync::LazyLock, time::Duration};

use crate::{
    Error, Machine, Result,
    archive::Change,
    script::{Facts, Step},
    validate,
};

/// How long a step waits for another run of itself on the same machine, in seconds.
const LOCK_SECONDS: &str = "30";
/// How long it waits for others who hold the package manager's locks, in seconds.
const LOCK_WAIT: u64 = 60;

/// A package of the machine's package manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedPackage {
    /// The package manager's name for it.
    pub name: String,
    /// The exact version, as the package manager writes it: `[epoch:]version[-revision]`.
    pub version: String,
    /// Whether it is to be held at its version.
    pub hold: bool,
}

/// What became of the removal of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Berth has nothing of that name on the machine.
    None,
    /// It is removed.
    Removed,
    /// It stays, and is no longer Berth's: the reason in words.
    Kept(String),
}

/// A package manager: its steps.
pub struct Manager {
    pub(crate) name: &'static str,
    pub(crate) install: &'static LazyLock<String>,
    pub(crate) remove: &'static LazyLock<String>,
}

impl Manager {
    /// Brings these packages, up or down, to their versions and holds them there, in one transaction.
    pub async fn install(
        &self,
        machine: &dyn Machine,
        root: &str,
        packages: &[ManagedPackage],
        timeout: Duration,
    ) -> Result<Change> {
        let mut lines = String::new();
        for package in packages {
            validate::managed_name(&package.name)?;
            validate::managed_version(&package.version)?;
            let hold = if package.hold { "hold" } else { "free" };
            // Writing into a String cannot fail.
            let _ = writeln!(lines, "{} {} {hold}", package.name, package.version);
        }
        let facts =
            Self::step(self.install, root, timeout)?.set("PACKAGES", &lines)?.run(machine, self.name, timeout).await?;
        facts.yes("changed").map(Change::from_yes)
    }

    /// Removes a package that Berth installed (apt: its configuration files excepted), and with it at most those in `also`.
    /// One that others need, or that was there before Berth, is only given up: its hold goes, and it stays.
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
        let step = Self::step(self.remove, root, timeout)?.set("NAME", name)?.set("ALSO", &also.join(" "))?;
        removal(&step.run(machine, self.name, timeout).await?)
    }

    fn step(body: &'static str, root: &str, timeout: Duration) -> Result<Step> {
        validate::path("root", root)?;
        // Some of the time is for the work itself.
        let wait = (timeout.as_secs() / 2).min(LOCK_WAIT);
        Step::new(body).set("ROOT", root)?.set("LOCK_SECONDS", LOCK_SECONDS)?.set("LOCK_WAIT", &wait.to_string())
    }
}

pub(crate) fn removal(facts: &Facts) -> Result<Removal> {
    let removed = facts.yes("removed")?;
    Ok(match facts.all("kept").next() {
        Some(reason) if !removed => Removal::Kept(reason.to_owned()),
        _ if removed => Removal::Removed,
        _ => Removal::None,
    })
}

/// A fact of a package manager: name, version, whether it is held, and whose it is.
pub(crate) fn parse(line: &str) -> Result<(&str, &str, bool, Option<bool>)> {
    let unknown = || Error::Answer(format!("{line:?} is not a package's name, version, hold and mark"));
    let [name, version, hold, mark] = line.split(' ').collect::<Vec<_>>()[..] else { return Err(unknown()) };
    let mark = match mark {
        "yes" => Some(true),
        "no" => Some(false),
        "-" => None,
        _ => return Err(unknown()),
    };
    Ok((name, version, hold == "hold", mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_package_manager_is_read_strictly() {
        assert_eq!(parse("nginx 1:1.2-3 hold yes").unwrap(), ("nginx", "1:1.2-3", true, Some(true)));
        assert_eq!(parse("nginx 1.2 free -").unwrap(), ("nginx", "1.2", false, None));
        for bad in ["nginx", "nginx 1.2 hold", "nginx 1.2 hold maybe", "nginx 1.2 hold yes more"] {
            assert!(matches!(parse(bad), Err(Error::Answer(_))), "{bad}");
        }
    }
}
