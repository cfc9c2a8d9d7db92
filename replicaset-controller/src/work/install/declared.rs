//! A Server's packages as machines understand them, and what a machine shows as a Server's fact.

use std::collections::BTreeMap;

use berth_core::api::{EnvironmentFact, InstalledPackage, Package, PackageSource, Server};
use berth_machine::{
    archive::ArchivePackage,
    inventory::{Declared, Inventory},
    managed::ManagedPackage,
    scripted::ScriptPackage,
};

use super::super::finished::Failure;

/// The declared packages.
pub(in crate::work) fn packages(server: &Server) -> Result<Vec<Declared>, Failure> {
    server.spec.packages.iter().map(package).collect()
}

fn package(package: &Package) -> Result<Declared, Failure> {
    let (name, version) = (package.name.clone(), package.version.clone());
    let managed = |unheld: bool| ManagedPackage { name: name.clone(), version: version.clone(), hold: !unheld };
    match package.source() {
        Some(PackageSource::Apt(apt)) => Ok(Declared::Apt(managed(apt.unheld))),
        Some(PackageSource::Dnf(dnf)) => Ok(Declared::Dnf(managed(dnf.unheld))),
        Some(PackageSource::Archive(archive)) => Ok(Declared::Archive(ArchivePackage {
            name,
            version,
            url: archive.url.clone(),
            sha256: archive.sha256.clone(),
            destination: archive.destination.clone(),
            install: archive.install.clone(),
            remove: archive.remove.clone(),
        })),
        Some(PackageSource::Script(script)) => Ok(Declared::Script(ScriptPackage {
            name,
            version,
            check: script.check.clone(),
            install: script.install.clone(),
            remove: script.remove.clone(),
        })),
        None => Err(Failure::fatal(format!("package {name}: it must be exactly one of apt, dnf, archive or script"))),
    }
}

/// The packages that Berth manages on a machine: those that are declared, and those that it has installed. Of two kinds
/// of the same name the declared one counts.
pub(in crate::work) fn fact(declared: &[Declared], inventory: &Inventory) -> EnvironmentFact {
    let is_declared = |kind, name: &str| declared.iter().any(|d| d.kind() == kind && d.name() == name);
    let mut packages = BTreeMap::new();
    for found in &inventory.packages {
        let wanted = is_declared(found.kind, &found.name);
        let Some(version) = found.version.clone().filter(|_| wanted || found.own) else { continue };
        let package = InstalledPackage { name: found.name.clone(), version, sha256: found.sha256.clone() };
        if wanted || declared.iter().all(|d| d.name() != found.name) {
            packages.insert(found.name.clone(), package);
        }
    }
    EnvironmentFact { verified: true, packages: packages.into_values().collect() }
}

/// In words what keeps a machine that shows these packages from being as the Server declares; nothing if nothing does.
/// What is there beside the declared packages matters only where it would be pruned.
pub(crate) fn difference(server: &Server, fact: &EnvironmentFact) -> Option<String> {
    let mut words: Vec<String> = server.spec.packages.iter().filter_map(|package| differs(package, fact)).collect();
    if server.spec.prune_packages {
        let is_declared = |found: &InstalledPackage| server.spec.packages.iter().any(|p| p.name == found.name);
        let extra = fact.packages.iter().filter(|found| !is_declared(found));
        words.extend(extra.map(|found| format!("{} {} is installed and not declared", found.name, found.version)));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn differs(package: &Package, fact: &EnvironmentFact) -> Option<String> {
    let (name, version) = (&package.name, &package.version);
    let Some(found) = fact.packages.iter().find(|found| found.name == *name) else {
        return Some(format!("{name} {version} is missing"));
    };
    if found.version != *version {
        return Some(format!("{name} is {} instead of {version}", found.version));
    }
    let other = package.sha256().is_some_and(|sha256| found.sha256.as_deref() != Some(sha256));
    other.then(|| format!("{name} {version} has another digest"))
}
