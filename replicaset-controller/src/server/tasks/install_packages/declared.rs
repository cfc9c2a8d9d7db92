//! A Server's declared packages in the terms of berth-machine.

use berth_core::{
    api::{Package, PackageSource, Server},
    protocol::TaskResult,
};
use berth_machine::{
    archive::ArchivePackage, inventory::DeclaredPackage, package_manager::ManagedPackage, script_package::ScriptPackage,
};

/// The declared packages.
///
/// # Errors
/// When a package has no source, or several.
pub(super) fn packages(server: &Server) -> Result<Vec<DeclaredPackage>, TaskResult> {
    server.spec.packages.iter().map(package).collect()
}

fn package(package: &Package) -> Result<DeclaredPackage, TaskResult> {
    let (name, version) = (package.name.clone(), package.version.clone());
    let managed = |unheld: bool| ManagedPackage { name: name.clone(), version: version.clone(), hold: !unheld };
    match package.source() {
        Some(PackageSource::Apt(apt)) => Ok(DeclaredPackage::Apt(managed(apt.unheld))),
        Some(PackageSource::Dnf(dnf)) => Ok(DeclaredPackage::Dnf(managed(dnf.unheld))),
        Some(PackageSource::Archive(archive)) => Ok(DeclaredPackage::Archive(ArchivePackage {
            name,
            version,
            url: archive.url.clone(),
            sha256: archive.sha256.clone(),
            destination: archive.destination.clone(),
            install: archive.install.clone(),
            remove: archive.remove.clone(),
        })),
        Some(PackageSource::Script(script)) => Ok(DeclaredPackage::Script(ScriptPackage {
            name,
            version,
            check: script.check.clone(),
            install: script.install.clone(),
            remove: script.remove.clone(),
        })),
        None => {
            Err(TaskResult::failed(format!("package {name}: it must be exactly one of apt, dnf, archive or script")))
        }
    }
}
