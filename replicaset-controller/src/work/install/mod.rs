//! InstallPackages: makes the machine's packages those that are declared, and reads back what is there.
//!
//! One script reads everything at once; then there is one for each package that has to change (all of apt's change
//! together, and all of dnf's), and one that reads back. A machine that is right costs a single round trip.

pub(crate) mod declared;

use std::time::Duration;

use berth_core::api::{EnvironmentFact, MachineFact, Server};
use berth_machine::{
    Machine, apt, archive,
    archive::Change,
    dnf,
    inventory::{self, Declared, Found, Inventory, Kind},
    managed::{ManagedPackage, Removal},
    scripted,
};

use super::{
    Finished, Tools,
    finished::Failure,
    machine::{fact, reach},
};

/// Limit for one package, or all of a package manager, downloads and waiting for locks included.
const CHANGE_LIMIT: Duration = Duration::from_mins(10);
/// Limit for looking at what is there, the checks of script packages included.
const READ_LIMIT: Duration = Duration::from_mins(1);

pub(super) async fn install(tools: &Tools, server: &Server) -> Finished {
    match reach(tools, server) {
        Ok((machine, root)) => install_on(&machine, &root, server).await,
        Err(failure) => failure.into(),
    }
}

/// Brings the declared packages onto a machine. What is installed is reported also when something failed, as far as it
/// can be read.
pub(super) async fn install_on(machine: &dyn Machine, root: &str, server: &Server) -> Finished {
    match attempt(machine, root, server).await {
        Ok(finished) => finished,
        Err(failure) => failure.into(),
    }
}

/// What is installed, for a look from outside a task; an error is in words. Takes no lock and changes nothing.
pub(crate) async fn look(tools: &Tools, server: &Server) -> Result<EnvironmentFact, String> {
    let looked = async {
        let (machine, root) = reach(tools, server)?;
        let declared = declared::packages(server)?;
        let inventory = inventory::read(&machine, &root, &declared, READ_LIMIT).await?;
        Ok(declared::fact(&declared, &inventory))
    };
    looked.await.map_err(|failure: Failure| Finished::from(failure).message)
}

async fn attempt(machine: &dyn Machine, root: &str, server: &Server) -> Result<Finished, Failure> {
    let declared = declared::packages(server)?;
    let work = Work { machine, root, declared: &declared };
    let before = work.read().await.map_err(|failure| failure.at("reading what is installed"))?;
    let mut changes = Vec::new();
    let done = work.act(&before, server.spec.prune_packages, &mut changes).await;
    let after = if done.is_ok() && changes.is_empty() { Ok(before) } else { work.read().await };
    let facts = |inventory: &Inventory| (declared::fact(&declared, inventory), rebooted(server, inventory));
    match (done, after) {
        (Ok(()), Ok(after)) => {
            let (environment, machine) = facts(&after);
            if let Some(words) = declared::difference(server, &environment) {
                let failure = Failure::retry(format!("after all was done the machine is not as declared: {words}"));
                return Ok(failed(failure, environment, machine));
            }
            Ok(Finished { environment: Some(environment), machine, ..Finished::succeeded(summary(server, &changes)) })
        }
        (Err(failure), Ok(after)) => {
            let (environment, machine) = facts(&after);
            Ok(failed(failure, environment, machine))
        }
        (Ok(()), Err(failure)) => Err(failure.at("reading back what is installed")),
        (Err(failure), Err(_)) => Err(failure),
    }
}

fn failed(failure: Failure, environment: EnvironmentFact, machine: Option<MachineFact>) -> Finished {
    let environment = Some(EnvironmentFact { verified: false, ..environment });
    Finished { machine, environment, ..failure.into() }
}

/// The machine, if it was rebooted since it was last seen.
fn rebooted(server: &Server, inventory: &Inventory) -> Option<MachineFact> {
    let boot_id = Some(inventory.machine.boot_id.clone());
    let known = fact(server).filter(|known| known.boot_id != boot_id)?;
    Some(MachineFact { boot_id, ..known.clone() })
}

/// What is to be done, and where.
struct Work<'a> {
    machine: &'a dyn Machine,
    root: &'a str,
    declared: &'a [Declared],
}

impl Work<'_> {
    async fn read(&self) -> Result<Inventory, Failure> {
        Ok(inventory::read(self.machine, self.root, self.declared, READ_LIMIT).await?)
    }

    /// Makes it so, and says in words what was changed. What goes makes room first.
    async fn act(&self, before: &Inventory, prune: bool, changes: &mut Vec<String>) -> Result<(), Failure> {
        if prune {
            self.prune(before, changes).await?;
        }
        let wrong: Vec<&Declared> = self.declared.iter().filter(|package| !before.is_right(package)).collect();
        let mut managers = Vec::new();
        for package in &wrong {
            let kind = package.kind();
            let group: Vec<&Declared> = match kind {
                Kind::Apt | Kind::Dnf if managers.contains(&kind) => continue,
                Kind::Apt | Kind::Dnf => wrong.iter().copied().filter(|other| other.kind() == kind).collect(),
                Kind::Archive | Kind::Script => vec![package],
            };
            managers.push(kind);
            let done = self.bring(&group).await.map_err(|failure| failure.at(&place(&group)))?;
            if done == Change::Done {
                changes.extend(group.iter().map(|package| said(package, before)));
            }
        }
        Ok(())
    }

    async fn bring(&self, group: &[&Declared]) -> Result<Change, Failure> {
        let managed = || -> Vec<ManagedPackage> {
            let managed = |package: &&Declared| match package {
                Declared::Apt(package) | Declared::Dnf(package) => Some(package.clone()),
                Declared::Archive(_) | Declared::Script(_) => None,
            };
            group.iter().filter_map(managed).collect()
        };
        let (machine, root) = (self.machine, self.root);
        Ok(match group.first() {
            None => Change::None,
            Some(Declared::Apt(_)) => apt::MANAGER.install(machine, root, &managed(), CHANGE_LIMIT).await?,
            Some(Declared::Dnf(_)) => dnf::MANAGER.install(machine, root, &managed(), CHANGE_LIMIT).await?,
            Some(Declared::Archive(package)) => archive::install_package(machine, root, package, CHANGE_LIMIT).await?,
            Some(Declared::Script(package)) => scripted::install(machine, root, package, CHANGE_LIMIT).await?,
        })
    }

    /// Removes what Berth has installed and nobody declares any more, and gives up what it has only held.
    async fn prune(&self, before: &Inventory, changes: &mut Vec<String>) -> Result<(), Failure> {
        let is_declared = |found: &Found| {
            self.declared.iter().any(|package| package.kind() == found.kind && package.name() == found.name)
        };
        let leaving: Vec<&Found> = before.packages.iter().filter(|found| found.marked && !is_declared(found)).collect();
        for found in &leaving {
            let others = leaving.iter().filter(|other| other.kind == found.kind && other.own);
            let also: Vec<&str> = others.map(|other| other.name.as_str()).filter(|name| *name != found.name).collect();
            let removal = self.remove(found, &also).await;
            let removal = removal.map_err(|failure| failure.at(&format!("removing package {}", found.name)))?;
            let version = found.version.as_deref().unwrap_or_default();
            let named = format!("{} {version}", found.name);
            match removal {
                Removal::None => {}
                Removal::Removed => changes.push(format!("removed {}", named.trim_end())),
                Removal::Kept(reason) => changes.push(format!("gave up {}: {reason}", named.trim_end())),
            }
        }
        Ok(())
    }

    async fn remove(&self, found: &Found, also: &[&str]) -> Result<Removal, Failure> {
        let (machine, root, name) = (self.machine, self.root, found.name.as_str());
        Ok(match found.kind {
            Kind::Apt => apt::MANAGER.remove(machine, root, name, also, CHANGE_LIMIT).await?,
            Kind::Dnf => dnf::MANAGER.remove(machine, root, name, also, CHANGE_LIMIT).await?,
            Kind::Script => scripted::remove(machine, root, name, CHANGE_LIMIT).await?,
            Kind::Archive => match archive::remove_package(machine, root, name, CHANGE_LIMIT).await? {
                Change::Done => Removal::Removed,
                Change::None => Removal::None,
            },
        })
    }
}

fn place(group: &[&Declared]) -> String {
    let names: Vec<String> = group.iter().map(|package| format!("{} {}", package.name(), package.version())).collect();
    format!("package{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

fn said(package: &Declared, before: &Inventory) -> String {
    let (name, version) = (package.name(), package.version());
    let was = before.get(package.kind(), name).and_then(|found| found.version.as_deref());
    match (package, was) {
        (Declared::Apt(managed) | Declared::Dnf(managed), Some(was)) if was == version => {
            format!("{} {name} {version}", if managed.hold { "held" } else { "no longer holds" })
        }
        (_, Some(was)) if was != version => format!("installed {name} {version} instead of {was}"),
        _ => format!("installed {name} {version}"),
    }
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
    use berth_machine::{
        fake::{FakeMachine, FakePackage, Fault},
        ping::ping,
    };
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
        let machine = FakeMachine::new();
        machine.fail_next(Fault::NoSuchVersion("E: Version '1' for 'nginx' was not found".to_owned()));
        let unknown = install_on(&machine, ROOT, &apt).await;
        assert_eq!(unknown.outcome, Outcome::Failed);
        assert_eq!(
            unknown.message,
            "package nginx 1: nginx 1 does not exist: E: Version '1' for 'nginx' was not found"
        );
        assert!(!unknown.environment.unwrap().verified);
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

    fn mixed() -> Value {
        json!([
            {"name": "nginx", "version": "1.2-3", "apt": {}},
            package("web", "a"),
            {"name": "curl", "version": "8", "apt": {"unheld": true}},
            {"name": "podman", "version": "4-1", "dnf": {}},
            {"name": "agent", "version": "7", "script": {"check": "c", "install": "i", "remove": "r"}},
        ])
    }

    #[tokio::test]
    async fn packages_of_all_kinds_take_one_round_trip_each_and_one_when_nothing_is_to_be_done() {
        let machine = FakeMachine::new();
        let declared = server(mixed(), true);
        let first = install_on(&machine, ROOT, &declared).await;
        assert_eq!(first.outcome, Outcome::Succeeded, "{}", first.message);
        assert_eq!(
            first.message,
            "installed nginx 1.2-3, installed curl 8, installed web 1.2, installed podman 4-1, installed agent 7"
        );
        assert_eq!(names(&first), ["agent", "curl", "nginx", "podman", "web"]);
        assert_eq!(machine.calls(), 6, "two looks, apt, dnf, an archive, a script");
        let second = install_on(&machine, ROOT, &declared).await;
        assert_eq!((second.environment, machine.calls()), (first.environment, 7));
        let held = |kind: &str, name: &str| machine.state().managed[&(kind.to_owned(), name.to_owned())].held;
        assert!(held("apt", "nginx") && !held("apt", "curl") && held("dnf", "podman"));
        machine.change(|state| state.managed.get_mut(&("apt".into(), "nginx".into())).unwrap().held = false);
        assert_eq!(install_on(&machine, ROOT, &declared).await.message, "held nginx 1.2-3");
    }

    #[tokio::test]
    async fn pruning_removes_what_berth_installed_and_only_gives_up_what_was_there() {
        let machine = FakeMachine::new();
        let there = FakePackage { version: Some("7".to_owned()), held: false, mark: None };
        machine.change(|state| {
            state.managed.insert(("apt".into(), "curl".into()), there.clone());
            state.managed.insert(("apt".into(), "libc6".into()), there);
        });
        install_on(&machine, ROOT, &server(mixed(), true)).await;
        let kept = install_on(&machine, ROOT, &server(json!([]), false)).await;
        assert_eq!(names(&kept), ["agent", "nginx", "podman", "web"], "what was there before is not Berth's");
        let pruned = install_on(&machine, ROOT, &server(json!([]), true)).await;
        assert_eq!(pruned.outcome, Outcome::Succeeded, "{}", pruned.message);
        assert!(names(&pruned).is_empty(), "{:?}", pruned.environment);
        let left = machine.state();
        let managed: Vec<_> = left.managed.iter().map(|((_, name), package)| (name.as_str(), package.mark)).collect();
        assert_eq!(managed, [("curl", None), ("libc6", None)]);
        assert!(left.packages.is_empty() && left.scripted.is_empty() && left.script_marks.is_empty());
    }

    #[tokio::test]
    async fn a_package_that_changes_its_kind_is_there_once() {
        let machine = FakeMachine::new();
        install_on(&machine, ROOT, &server(json!([package("web", "a")]), true)).await;
        let apt = server(json!([{"name": "web", "version": "3", "apt": {}}]), true);
        let changed = install_on(&machine, ROOT, &apt).await;
        assert_eq!(
            (changed.message.as_str(), changed.outcome),
            ("removed web 1.2, installed web 3", Outcome::Succeeded)
        );
        let packages = changed.environment.unwrap().packages;
        assert_eq!((packages.len(), packages[0].version.as_str(), &packages[0].sha256), (1, "3", &None));
    }

    #[tokio::test]
    async fn a_script_whose_check_fails_is_not_there_whatever_its_mark_says() {
        let machine = FakeMachine::new();
        let declared = server(mixed(), false);
        install_on(&machine, ROOT, &declared).await;
        machine.change(|state| state.scripted.clear());
        let packages = declared::packages(&declared).unwrap();
        let inventory = inventory::read(&machine, ROOT, &packages, READ_LIMIT).await.unwrap();
        let fact = declared::fact(&packages, &inventory);
        assert_eq!(declared::difference(&declared, &fact).as_deref(), Some("agent 7 is missing"));
        assert_eq!(install_on(&machine, ROOT, &declared).await.message, "installed agent 7");
    }
}
