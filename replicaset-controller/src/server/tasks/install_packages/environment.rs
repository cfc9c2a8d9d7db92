//! What a machine's inventory means for its Server: the fact, and how it differs from the declaration.

use std::collections::BTreeMap;

use berth_core::api::{EnvironmentFact, InstalledPackage, Package, Server};
use berth_machine::inventory::{DeclaredPackage, Inventory, PackageKind};

/// The packages that Berth manages on a machine: those that are declared, and those that it has installed. Of two packages
/// of one name and different kinds the declared one counts.
pub(super) fn fact(declared: &[DeclaredPackage], inventory: &Inventory) -> EnvironmentFact {
    let is_declared = |kind: PackageKind, name: &str| declared.iter().any(|d| d.kind() == kind && d.name() == name);
    let mut packages = BTreeMap::new();
    for found in &inventory.packages {
        let is_declared = is_declared(found.kind, &found.name);
        let Some(version) = found.version.clone().filter(|_| is_declared || found.own) else { continue };
        let package = InstalledPackage { name: found.name.clone(), version, sha256: found.sha256.clone() };
        if is_declared || declared.iter().all(|d| d.name() != found.name) {
            packages.insert(found.name.clone(), package);
        }
    }
    EnvironmentFact { verified: true, packages: packages.into_values().collect() }
}

/// How a machine with these packages differs from the Server's declaration, for people; none if it does not. Packages that
/// are not declared matter only where they would be pruned.
pub(crate) fn difference(server: &Server, fact: &EnvironmentFact) -> Option<String> {
    let mut differences: Vec<String> =
        server.spec.packages.iter().filter_map(|package| package_difference(package, fact)).collect();
    if server.spec.prune_packages {
        let is_declared = |found: &InstalledPackage| server.spec.packages.iter().any(|p| p.name == found.name);
        let undeclared = fact.packages.iter().filter(|found| !is_declared(found));
        differences
            .extend(undeclared.map(|found| format!("{} {} is installed and not declared", found.name, found.version)));
    }
    (!differences.is_empty()).then(|| differences.join(", "))
}

fn package_difference(package: &Package, fact: &EnvironmentFact) -> Option<String> {
    let (name, version) = (&package.name, &package.version);
    let Some(found) = fact.packages.iter().find(|found| found.name == *name) else {
        return Some(format!("{name} {version} is missing"));
    };
    if found.version != *version {
        return Some(format!("{name} is {} instead of {version}", found.version));
    }
    let is_other = package.sha256().is_some_and(|sha256| found.sha256.as_deref() != Some(sha256));
    is_other.then(|| format!("{name} {version} has another digest"))
}
