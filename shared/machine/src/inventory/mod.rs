//! What is installed, of every kind of package at once, in one short script that takes no lock and changes nothing.

mod answer;

use std::{fmt, sync::LazyLock, time::Duration};

use crate::{
    Machine, Result, archive::ArchivePackage, managed::ManagedPackage, ping::MachineInfo, script::Step,
    scripted::ScriptPackage, validate,
};

pub(crate) static READ: LazyLock<String> = LazyLock::new(|| {
    Step::text(&[
        include_str!("../scripts/packages.sh"),
        include_str!("../scripts/apt_state.sh"),
        include_str!("../scripts/dnf_state.sh"),
        crate::ping::BOOT,
        crate::archive::STATE,
        include_str!("../scripts/inventory.sh"),
    ])
});

/// How a package is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// See [`apt`](crate::apt).
    Apt,
    /// See [`dnf`](crate::dnf).
    Dnf,
    /// See [`archive`](crate::archive).
    Archive,
    /// See [`scripted`](crate::scripted).
    Script,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apt => "apt",
            Self::Dnf => "dnf",
            Self::Archive => "archive",
            Self::Script => "script",
        })
    }
}

/// A package as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declared {
    /// See [`apt`](crate::apt).
    Apt(ManagedPackage),
    /// See [`dnf`](crate::dnf).
    Dnf(ManagedPackage),
    /// See [`archive`](crate::archive).
    Archive(ArchivePackage),
    /// See [`scripted`](crate::scripted).
    Script(ScriptPackage),
}

impl Declared {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Apt(_) => Kind::Apt,
            Self::Dnf(_) => Kind::Dnf,
            Self::Archive(_) => Kind::Archive,
            Self::Script(_) => Kind::Script,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Apt(package) | Self::Dnf(package) => &package.name,
            Self::Archive(package) => &package.name,
            Self::Script(package) => &package.name,
        }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        match self {
            Self::Apt(package) | Self::Dnf(package) => &package.version,
            Self::Archive(package) => &package.version,
            Self::Script(package) => &package.version,
        }
    }
}

/// A package as found on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How it is installed.
    pub kind: Kind,
    /// Name.
    pub name: String,
    /// Version; nothing for what has only left its mark, because somebody removed it.
    pub version: Option<String>,
    /// SHA-256 of the archive it came from.
    pub sha256: Option<String>,
    /// Whether Berth left its mark on the machine: what is no longer declared is then to be given up.
    pub marked: bool,
    /// Whether Berth installed it, and may remove it.
    pub own: bool,
    /// Whether everything about it is as declared, its hold, link and remove command included.
    pub right: bool,
}

/// What is installed on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// What the machine says about itself.
    pub machine: MachineInfo,
    /// The declared packages that are there, and all that Berth has left its mark on; by name and kind.
    pub packages: Vec<Found>,
}

impl Inventory {
    /// This package, if it is there or has left its mark.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Found> {
        self.packages.iter().find(|found| found.kind == kind && found.name == name)
    }

    /// Whether everything about this package is as declared.
    #[must_use]
    pub fn is_right(&self, declared: &Declared) -> bool {
        self.get(declared.kind(), declared.name()).is_some_and(|found| found.right)
    }
}

/// Reads what is installed. The checks of declared script packages run.
pub async fn read(machine: &dyn Machine, root: &str, declared: &[Declared], timeout: Duration) -> Result<Inventory> {
    validate::path("root", root)?;
    let facts = step(root, declared)?.run(machine, "", timeout).await?;
    Ok(Inventory { machine: MachineInfo::from_facts(&facts)?, packages: answer::packages(&facts, declared)? })
}

fn step(root: &str, declared: &[Declared]) -> Result<Step> {
    let (mut apt, mut dnf, mut archives, mut scripts) = (String::new(), String::new(), 0, 0);
    let mut step = Step::new(&READ).set("ROOT", root)?;
    for package in declared {
        match package {
            Declared::Apt(package) => add_line(&mut apt, &package.name)?,
            Declared::Dnf(package) => add_line(&mut dnf, &package.name)?,
            Declared::Archive(package) => {
                package.check()?;
                step.set_numbered("ARCHIVE", archives, "NAME", &package.name)?;
                step.set_numbered("ARCHIVE", archives, "MARKER", &package.marker())?;
                step.set_numbered("ARCHIVE", archives, "DESTINATION", package.destination.as_deref().unwrap_or(""))?;
                step.set_numbered("ARCHIVE", archives, "REMOVE", package.remove.as_deref().unwrap_or(""))?;
                archives += 1;
            }
            Declared::Script(package) => {
                package.check()?;
                step.set_numbered("SCRIPT", scripts, "NAME", &package.name)?;
                step.set_numbered("SCRIPT", scripts, "VERSION", &package.version)?;
                step.set_numbered("SCRIPT", scripts, "CHECK", &package.check)?;
                step.set_numbered("SCRIPT", scripts, "REMOVE", package.remove.as_deref().unwrap_or(""))?;
                scripts += 1;
            }
        }
    }
    let (archives, scripts) = (archives.to_string(), scripts.to_string());
    step.set("APT", &apt)?.set("DNF", &dnf)?.set("ARCHIVES", &archives)?.set("SCRIPTS", &scripts)
}

fn add_line(list: &mut String, name: &str) -> Result<()> {
    validate::managed_name(name)?;
    list.push_str(name);
    list.push('\n');
    Ok(())
}
