//! Parses the answer of the inventory's script.

use super::package::{DeclaredPackage, FoundPackage, PackageKind};
use crate::{
    error::{MachineError, Result},
    operation::ScriptAnswer,
    package_manager::ManagedFact,
};

/// Finds a declared package by kind and name.
fn find<'a>(declared: &'a [DeclaredPackage], kind: PackageKind, name: &str) -> Option<&'a DeclaredPackage> {
    declared.iter().find(|package| package.kind() == kind && package.name() == name)
}

/// The packages of an answer, sorted by name and kind. Of a package that is installed in several versions, the declared
/// version is kept if it is among them.
pub(super) fn packages(answer: &ScriptAnswer, declared: &[DeclaredPackage]) -> Result<Vec<FoundPackage>> {
    let mut found = Vec::new();
    for (fact, kind) in [("apt", PackageKind::Apt), ("dnf", PackageKind::Dnf)] {
        for line in answer.all(fact) {
            found.push(managed(line, kind, declared)?);
        }
    }
    let right: Vec<&str> = answer.all("right").collect();
    for line in answer.all("archive") {
        found.push(archive(line, declared, &right)?);
    }
    for line in answer.all("script") {
        found.push(script(line, &right)?);
    }
    for line in answer.all("mark") {
        add_mark(&mut found, line, declared)?;
    }
    found.sort_by(|a, b| (&a.name, a.kind, !a.right).cmp(&(&b.name, b.kind, !b.right)));
    found.dedup_by(|a, b| (&a.name, a.kind) == (&b.name, b.kind));
    Ok(found)
}

fn managed(line: &str, kind: PackageKind, declared: &[DeclaredPackage]) -> Result<FoundPackage> {
    let fact = ManagedFact::parse(line)?;
    let right = match find(declared, kind, fact.name) {
        Some(DeclaredPackage::Apt(wanted) | DeclaredPackage::Dnf(wanted)) => {
            wanted.version == fact.version && wanted.hold == fact.held && fact.own.is_some()
        }
        _ => false,
    };
    let (marked, own) = (fact.own.is_some(), fact.own == Some(true));
    let package = FoundPackage::installed_by_berth(kind, fact.name, Some(fact.version));
    Ok(FoundPackage { marked, own, right, ..package })
}

fn archive(line: &str, declared: &[DeclaredPackage], right: &[&str]) -> Result<FoundPackage> {
    let [name, version, sha256] = words(line)?;
    let right = find(declared, PackageKind::Archive, name).is_some() && right.contains(&name);
    let package = FoundPackage::installed_by_berth(PackageKind::Archive, name, Some(version));
    Ok(FoundPackage { sha256: Some(sha256.to_owned()), right, ..package })
}

/// A script package whose check succeeds. Whether it is Berth's is said by its mark, which is read later.
fn script(line: &str, right: &[&str]) -> Result<FoundPackage> {
    let [name, version] = words(line)?;
    let package = FoundPackage::installed_by_berth(PackageKind::Script, name, Some(version));
    Ok(FoundPackage { marked: false, own: false, right: right.contains(&name), ..package })
}

/// Adds a mark to the package that it belongs to, or adds a package without a version if there is none.
fn add_mark(found: &mut Vec<FoundPackage>, line: &str, declared: &[DeclaredPackage]) -> Result<()> {
    let [kind, name, value] = words(line)?;
    let is_declared_version =
        || find(declared, PackageKind::Script, name).is_some_and(|package| package.version() == value);
    let (kind, own, version) = match kind {
        "apt" => (PackageKind::Apt, value == "yes", None),
        "dnf" => (PackageKind::Dnf, value == "yes", None),
        // The check of the declared version decides whether that version is installed, not the mark.
        "script" if is_declared_version() => (PackageKind::Script, true, None),
        "script" => (PackageKind::Script, true, Some(value)),
        _ => return Err(MachineError::Answer(format!("{line:?} is not the mark of a package"))),
    };
    match found.iter_mut().find(|package| package.kind == kind && package.name == name) {
        Some(package) => (package.marked, package.own) = (true, own),
        None => found.push(FoundPackage { own, ..FoundPackage::installed_by_berth(kind, name, version) }),
    }
    Ok(())
}

fn words<const N: usize>(line: &str) -> Result<[&str; N]> {
    let words: Vec<&str> = line.split(' ').collect();
    words.try_into().map_err(|_| MachineError::Answer(format!("{line:?} is not {N} words about a package")))
}
