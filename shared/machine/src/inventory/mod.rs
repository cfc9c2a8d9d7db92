//! What is installed, of all kinds of packages at once, read by one short script that takes no lock and changes nothing.

mod package;
mod parse;

use std::{sync::LazyLock, time::Duration};

pub use self::package::{DeclaredPackage, FoundPackage, PackageKind};
use crate::{
    archive::ArchivePackage,
    error::Result,
    machine::Machine,
    operation::MachineOperation,
    ping::{BOOT, BootInfo},
    script_package::ScriptPackage,
    validate,
};

pub(crate) static READ: LazyLock<String> = LazyLock::new(|| {
    MachineOperation::script(&[
        include_str!("../scripts/packages_common.sh"),
        include_str!("../scripts/apt_state.sh"),
        include_str!("../scripts/dnf_state.sh"),
        BOOT,
        crate::archive::STATE,
        include_str!("../scripts/inventory.sh"),
    ])
});

/// What is installed on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The boot that the machine is in.
    pub machine: BootInfo,
    /// The declared packages that are installed, and all packages that Berth has left a mark for; sorted by name and kind.
    pub packages: Vec<FoundPackage>,
}

impl Inventory {
    /// This package, if it is installed or has left its mark.
    #[must_use]
    pub fn get(&self, kind: PackageKind, name: &str) -> Option<&FoundPackage> {
        self.packages.iter().find(|found| found.kind == kind && found.name == name)
    }

    /// Whether everything about this package is as declared.
    #[must_use]
    pub fn is_right(&self, declared: &DeclaredPackage) -> bool {
        self.get(declared.kind(), declared.name()).is_some_and(|found| found.right)
    }
}

/// Reads what is installed. Runs the checks of the declared script packages.
pub async fn read(
    machine: &dyn Machine,
    root: &str,
    declared: &[DeclaredPackage],
    timeout: Duration,
) -> Result<Inventory> {
    let answer = operation(root, declared)?.run(machine, "", timeout).await?;
    Ok(Inventory { machine: BootInfo::read(&answer)?, packages: parse::packages(&answer, declared)? })
}

fn operation(root: &str, declared: &[DeclaredPackage]) -> Result<MachineOperation> {
    let (mut apt, mut dnf, mut archives, mut scripts) = (String::new(), String::new(), 0, 0);
    let mut operation = MachineOperation::reading(&READ, root)?;
    for package in declared {
        match package {
            DeclaredPackage::Apt(package) => add_line(&mut apt, &package.name)?,
            DeclaredPackage::Dnf(package) => add_line(&mut dnf, &package.name)?,
            DeclaredPackage::Archive(package) => {
                set_archive(&mut operation, archives, package)?;
                archives += 1;
            }
            DeclaredPackage::Script(package) => {
                set_script(&mut operation, scripts, package)?;
                scripts += 1;
            }
        }
    }
    let (archives, scripts) = (archives.to_string(), scripts.to_string());
    operation.set("APT", &apt)?.set("DNF", &dnf)?.set("ARCHIVES", &archives)?.set("SCRIPTS", &scripts)
}

fn set_archive(operation: &mut MachineOperation, number: usize, package: &ArchivePackage) -> Result<()> {
    package.validate()?;
    operation.set_numbered("ARCHIVE", number, "NAME", &package.name)?;
    operation.set_numbered("ARCHIVE", number, "MARKER", &package.marker())?;
    operation.set_numbered("ARCHIVE", number, "DESTINATION", package.destination.as_deref().unwrap_or_default())?;
    operation.set_numbered("ARCHIVE", number, "REMOVE", package.remove.as_deref().unwrap_or_default())
}

fn set_script(operation: &mut MachineOperation, number: usize, package: &ScriptPackage) -> Result<()> {
    package.validate()?;
    operation.set_numbered("SCRIPT", number, "NAME", &package.name)?;
    operation.set_numbered("SCRIPT", number, "VERSION", &package.version)?;
    operation.set_numbered("SCRIPT", number, "CHECK", &package.check)?;
    operation.set_numbered("SCRIPT", number, "REMOVE", package.remove.as_deref().unwrap_or_default())
}

fn add_line(list: &mut String, name: &str) -> Result<()> {
    validate::managed_name(name)?;
    list.push_str(name);
    list.push('\n');
    Ok(())
}
