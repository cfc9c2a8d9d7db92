//! InstallPackages: makes the machine's packages those that are declared, and reads back what is there.

use std::time::Duration;

use berth_core::api::{Archive, EnvironmentFact, InstalledPackage, MachineFact, Package, PackageSource, Server};
use berth_machine::{
    Machine,
    archive::{self, ArchivePackage, Change},
    ping::ping,
};

use super::{
    Finished, Tools,
    finished::Failure,
    machine::{fact, reach},
};

/// Limit for one package, its download included.
const PACKAGE_LIMIT: Duration = Duration::from_mins(10);
/// Limit for looking at what is there.
const READ_LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn install(tools: &Tools, server: &Server) -> Finished {
    match reach(tools, server) {
        Ok((machine, root)) => install_on(&machine, &root, server).await,
        Err(failure) => failure.into(),
    }
}

/// Brings the declared packages onto a machine. What is installed is reported also when something failed, as far as it
/// can be read.
pub(super) async fn install_on(machine: &dyn Machine, root: &str, server: &Server) -> Finished {
    let done = act(machine, root, server).await;
    let read = read_back(machine, root, server).await;
    match (done, read) {
        (Ok(changes), Ok((environment, machine))) => {
            Finished { environment: Some(environment), machine, ..Finished::succeeded(summary(server, &changes)) }
        }
        (Err(failure), Ok((environment, machine))) => Finished {
            environment: Some(EnvironmentFact { verified: false, ..environment }),
            machine,
            ..failure.into()
        },
        (Ok(_), Err(failure)) => failure.at("reading back what is installed").into(),
        (Err(failure), Err(_)) => failure.into(),
    }
}

async fn act(machine: &dyn Machine, root: &str, server: &Server) -> Result<Vec<String>, Failure> {
    let mut changes = Vec::new();
    for package in &server.spec.packages {
        let place = format!("package {} {}", package.name, package.version);
        if bring(machine, root, package).await.map_err(|failure| failure.at(&place))? == Change::Done {
            changes.push(format!("installed {} {}", package.name, package.version));
        }
    }
    if server.spec.prune_packages {
        for found in archive::list_packages(machine, root, READ_LIMIT).await? {
            if server.spec.packages.iter().all(|declared| declared.name != found.name) {
                let removed = archive::remove_package(machine, root, &found.name, PACKAGE_LIMIT).await;
                removed.map_err(|error| Failure::from(error).at(&format!("removing package {}", found.name)))?;
                changes.push(format!("removed {} {}", found.name, found.version));
            }
        }
    }
    Ok(changes)
}

async fn bring(machine: &dyn Machine, root: &str, package: &Package) -> Result<Change, Failure> {
    let unsupported = |kind: &str| {
        Err(Failure::fatal(format!("packages of kind {kind} are not supported by this version; declare an archive")))
    };
    match package.source() {
        Some(PackageSource::Archive(source)) => {
            let wanted = archive_package(package, source);
            Ok(archive::install_package(machine, root, &wanted, PACKAGE_LIMIT).await?)
        }
        Some(PackageSource::Apt(_)) => unsupported("apt"),
        Some(PackageSource::Dnf(_)) => unsupported("dnf"),
        Some(PackageSource::Script(_)) => unsupported("script"),
        None => Err(Failure::fatal("a package is exactly one of apt, dnf, archive or script")),
    }
}

fn archive_package(package: &Package, source: &Archive) -> ArchivePackage {
    ArchivePackage {
        name: package.name.clone(),
        version: package.version.clone(),
        url: source.url.clone(),
        sha256: source.sha256.clone(),
        destination: source.destination.clone(),
        install: source.install.clone(),
        remove: source.remove.clone(),
    }
}

/// What is installed, and the machine if it was rebooted since it was last seen.
async fn read_back(
    machine: &dyn Machine,
    root: &str,
    server: &Server,
) -> Result<(EnvironmentFact, Option<MachineFact>), Failure> {
    let found = archive::list_packages(machine, root, READ_LIMIT).await?;
    let packages = found
        .into_iter()
        .map(|p| InstalledPackage { name: p.name, version: p.version, sha256: Some(p.sha256) })
        .collect();
    let boot_id = ping(machine, READ_LIMIT).await?.boot_id;
    let rebooted = fact(server).filter(|known| known.boot_id.as_ref() != Some(&boot_id));
    let machine = rebooted.map(|known| MachineFact { boot_id: Some(boot_id), ..known.clone() });
    Ok((EnvironmentFact { verified: true, packages }, machine))
}

fn summary(server: &Server, changes: &[String]) -> String {
    if changes.is_empty() {
        format!("the {} declared packages are installed", server.spec.packages.len())
    } else {
        changes.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use berth_core::api::Outcome;
    use berth_machine::fake::{FakeMachine, Fault};
    use serde_json::{Value, json};

    use super::*;

    const ROOT: &str = "opt/berth";

    fn server(packages: impl Into<Value>, prune: bool) -> Server {
        serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s"},
            "spec": {"machine": {"className": "local"}, "packages": packages.into(), "prunePackages": prune},
            "status": {"machine": {"phase": "Running", "id": "local/u", "bootID": "fake-1"}},
        }))
        .unwrap()
    }

    fn package(name: &str, digit: &str) -> Value {
        json!({"name": name, "version": "1.2", "archive": {"url": "http://127.0.0.1/a", "sha256": digit.repeat(64)}})
    }

    fn names(finished: &Finished) -> Vec<&str> {
        finished.environment.iter().flat_map(|e| &e.packages).map(|p| p.name.as_str()).collect()
    }

    #[tokio::test]
    async fn what_is_declared_is_installed_once_and_read_back() {
        let machine = FakeMachine::new();
        let declared = server(json!([package("web", "a"), package("theme", "b")]), false);
        let first = install_on(&machine, ROOT, &declared).await;
        assert_eq!(
            (first.outcome, first.message.as_str()),
            (Outcome::Succeeded, "installed web 1.2, installed theme 1.2")
        );
        assert_eq!(names(&first), ["theme", "web"]);
        assert!(first.environment.as_ref().unwrap().verified);
        let second = install_on(&machine, ROOT, &declared).await;
        assert_eq!(second.message, "the 2 declared packages are installed");
        assert_eq!(second.environment, first.environment);
    }

    #[tokio::test]
    async fn only_pruning_removes_what_is_no_longer_declared() {
        let machine = FakeMachine::new();
        install_on(&machine, ROOT, &server(json!([package("web", "a"), package("theme", "b")]), false)).await;
        let kept = install_on(&machine, ROOT, &server(json!([package("web", "a")]), false)).await;
        assert_eq!(names(&kept), ["theme", "web"]);
        let pruned = install_on(&machine, ROOT, &server(json!([package("web", "a")]), true)).await;
        assert_eq!((names(&pruned), pruned.message.as_str()), (vec!["web"], "removed theme 1.2"));
    }

    #[tokio::test]
    async fn errors_name_the_package_and_whether_another_attempt_helps() {
        let declared = server(json!([package("web", "a")]), false);
        let machine = FakeMachine::new();
        machine.fail_next(Fault::WrongDigest("c".repeat(64)));
        let wrong = install_on(&machine, ROOT, &declared).await;
        assert_eq!(wrong.outcome, Outcome::Failed);
        assert!(
            wrong.message.starts_with("package web 1.2: ") && wrong.message.contains(&"c".repeat(64)),
            "{}",
            wrong.message
        );
        assert!(!wrong.environment.unwrap().verified);
        machine.fail_next(Fault::Unreachable);
        let away = install_on(&machine, ROOT, &declared).await;
        assert_eq!(away.outcome, Outcome::Retry, "{}", away.message);
        let apt = server(json!([{"name": "nginx", "version": "1", "apt": {}}]), false);
        let unsupported = install_on(&machine, ROOT, &apt).await;
        assert_eq!(unsupported.outcome, Outcome::Failed);
        assert!(unsupported.message.starts_with("package nginx 1: packages of kind apt are not supported"));
    }

    #[tokio::test]
    async fn a_reboot_that_nobody_reported_is_seen() {
        let machine = FakeMachine::new();
        let boot = ping(&machine, READ_LIMIT).await.unwrap().boot_id;
        let mut declared = server(json!([]), false);
        let known = declared.status.as_mut().unwrap().machine.as_mut().unwrap();
        known.boot_id = Some(boot.clone());
        assert_eq!(install_on(&machine, ROOT, &declared).await.machine, None);
        machine.reboot();
        let seen = install_on(&machine, ROOT, &declared).await.machine.unwrap();
        assert!(seen.boot_id != Some(boot) && seen.id.as_deref() == Some("local/u"));
    }
}
