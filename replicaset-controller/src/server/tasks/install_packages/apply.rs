//! Installs and removes packages on a machine.

use std::time::Duration;

use berth_core::protocol::TaskResult;
use berth_machine::{
    Machine, MachineChange, Removal, apt, archive, dnf,
    inventory::{DeclaredPackage, FoundPackage, Inventory, PackageKind},
    package_manager::ManagedPackage,
    script_package,
};

/// For one package, or all packages of one package manager: large downloads and the wait for locks included.
const CHANGE_LIMIT: Duration = Duration::from_mins(10);

/// Makes the packages of one machine those that are declared.
pub(super) struct Installer<'a> {
    machine: &'a dyn Machine,
    root: &'a str,
    declared: &'a [DeclaredPackage],
    /// What was changed so far, for people.
    pub(super) changes: Vec<String>,
}

impl<'a> Installer<'a> {
    pub(super) fn new(machine: &'a dyn Machine, root: &'a str, declared: &'a [DeclaredPackage]) -> Self {
        Self { machine, root, declared, changes: Vec::new() }
    }

    /// Changes what is not as declared. Removals come first, because they free space and names.
    pub(super) async fn apply(&mut self, before: &Inventory, prune: bool) -> Result<(), TaskResult> {
        if prune {
            self.prune(before).await?;
        }
        for group in groups(self.declared, before) {
            let change = self.install(&group).await;
            let change = change.map_err(|error| TaskResult::from(error).at(names(&group)))?;
            if change == MachineChange::Done {
                self.changes.extend(group.iter().map(|package| describe_installation(package, before)));
            }
        }
        Ok(())
    }

    async fn install(&self, group: &[&DeclaredPackage]) -> berth_machine::Result<MachineChange> {
        let (machine, root, limit) = (self.machine, self.root, CHANGE_LIMIT);
        match group.first() {
            None => Ok(MachineChange::None),
            Some(DeclaredPackage::Apt(_)) => apt::MANAGER.install(machine, root, &managed(group), limit).await,
            Some(DeclaredPackage::Dnf(_)) => dnf::MANAGER.install(machine, root, &managed(group), limit).await,
            Some(DeclaredPackage::Archive(package)) => archive::install_package(machine, root, package, limit).await,
            Some(DeclaredPackage::Script(package)) => script_package::install(machine, root, package, limit).await,
        }
    }

    /// Removes the packages that Berth has installed and that are no longer declared. Packages that were installed before
    /// Berth came only stop being managed.
    async fn prune(&mut self, before: &Inventory) -> Result<(), TaskResult> {
        let is_declared = |found: &FoundPackage| {
            self.declared.iter().any(|package| package.kind() == found.kind && package.name() == found.name)
        };
        let undeclared: Vec<&FoundPackage> =
            before.packages.iter().filter(|found| found.marked && !is_declared(found)).collect();
        for found in &undeclared {
            let others = undeclared.iter().filter(|other| other.kind == found.kind && other.own);
            let also: Vec<&str> = others.map(|other| other.name.as_str()).filter(|name| *name != found.name).collect();
            let removal = self.remove(found, &also).await;
            let at = || format!("removing package {}", found.name);
            let removal = removal.map_err(|error| TaskResult::from(error).at(at()))?;
            self.changes.extend(describe_removal(found, removal));
        }
        Ok(())
    }

    async fn remove(&self, found: &FoundPackage, also: &[&str]) -> berth_machine::Result<Removal> {
        let (machine, root, name) = (self.machine, self.root, found.name.as_str());
        match found.kind {
            PackageKind::Apt => apt::MANAGER.remove(machine, root, name, also, CHANGE_LIMIT).await,
            PackageKind::Dnf => dnf::MANAGER.remove(machine, root, name, also, CHANGE_LIMIT).await,
            PackageKind::Script => script_package::remove(machine, root, name, CHANGE_LIMIT).await,
            PackageKind::Archive => match archive::remove_package(machine, root, name, CHANGE_LIMIT).await? {
                MachineChange::Done => Ok(Removal::Removed),
                MachineChange::None => Ok(Removal::None),
            },
        }
    }
}

/// The packages that are not as declared, in the order of their declaration: all packages of one package manager are one
/// group, because they change in one transaction.
fn groups<'a>(declared: &'a [DeclaredPackage], before: &Inventory) -> Vec<Vec<&'a DeclaredPackage>> {
    let mut groups: Vec<Vec<&DeclaredPackage>> = Vec::new();
    for package in declared.iter().filter(|package| !before.is_right(package)) {
        let is_managed = matches!(package.kind(), PackageKind::Apt | PackageKind::Dnf);
        let same_manager = |group: &&mut Vec<&DeclaredPackage>| {
            is_managed && group.first().is_some_and(|first| first.kind() == package.kind())
        };
        match groups.iter_mut().find(same_manager) {
            Some(group) => group.push(package),
            None => groups.push(vec![package]),
        }
    }
    groups
}

fn managed(group: &[&DeclaredPackage]) -> Vec<ManagedPackage> {
    let managed = |package: &&DeclaredPackage| match package {
        DeclaredPackage::Apt(package) | DeclaredPackage::Dnf(package) => Some(package.clone()),
        DeclaredPackage::Archive(_) | DeclaredPackage::Script(_) => None,
    };
    group.iter().filter_map(managed).collect()
}

fn names(group: &[&DeclaredPackage]) -> String {
    let names: Vec<String> = group.iter().map(|package| format!("{} {}", package.name(), package.version())).collect();
    format!("package{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

fn describe_installation(package: &DeclaredPackage, before: &Inventory) -> String {
    let (name, version) = (package.name(), package.version());
    let was = before.get(package.kind(), name).and_then(|found| found.version.as_deref());
    match (package, was) {
        (DeclaredPackage::Apt(managed) | DeclaredPackage::Dnf(managed), Some(was)) if was == version => {
            format!("{} {name} {version}", if managed.hold { "held" } else { "no longer holds" })
        }
        (_, Some(was)) if was != version => format!("installed {name} {version} instead of {was}"),
        _ => format!("installed {name} {version}"),
    }
}

fn describe_removal(found: &FoundPackage, removal: Removal) -> Option<String> {
    let version = found.version.as_deref().unwrap_or_default();
    let package = format!("{} {version}", found.name);
    match removal {
        Removal::None => None,
        Removal::Removed => Some(format!("removed {}", package.trim_end())),
        Removal::Kept(reason) => Some(format!("gave up {}: {reason}", package.trim_end())),
    }
}
