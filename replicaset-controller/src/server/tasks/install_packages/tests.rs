use std::time::Duration;

use berth_core::{
    api::{EnvironmentFact, MachineFact, Outcome, Server},
    protocol::{Fact, TaskResult},
};
use berth_machine::ping::ping;
use berth_testing::{FakeMachine, FakePackage, MachineFault};
use serde_json::{Value, json};

use super::{declared, difference, environment, install_on, read::read_inventory};

const ROOT: &str = "opt/berth";

fn server(packages: impl Into<Value>, prune: bool) -> Server {
    berth_testing::server(json!({"metadata": {"name": "s"},
        "spec": {"machine": {"className": "local"}, "packages": packages.into(), "prunePackages": prune},
        "status": {"machine": {"phase": "Running", "id": "local/u", "bootID": "fake-1"}},
    }))
}

fn package(name: &str, digit: &str) -> Value {
    json!({"name": name, "version": "1.2", "archive": {"url": "http://127.0.0.1/a", "sha256": digit.repeat(64)}})
}

async fn install(machine: &FakeMachine, server: &Server) -> TaskResult {
    install_on(machine, ROOT, server).await.unwrap_or_else(|failed| failed)
}

fn environment_of(result: &TaskResult) -> Option<&EnvironmentFact> {
    result
        .facts
        .iter()
        .find_map(|fact| if let Fact::Environment(environment) = fact { Some(environment) } else { None })
}

fn machine_of(result: &TaskResult) -> Option<&MachineFact> {
    result.facts.iter().find_map(|fact| if let Fact::Machine(machine) = fact { Some(machine) } else { None })
}

fn names(result: &TaskResult) -> Vec<&str> {
    environment_of(result).into_iter().flat_map(|e| &e.packages).map(|p| p.name.as_str()).collect()
}

#[tokio::test]
async fn declared_packages_are_installed_once_and_read_back() {
    let machine = FakeMachine::new();
    let declared = server(json!([package("web", "a"), package("theme", "b")]), false);
    let first = install(&machine, &declared).await;
    assert_eq!((first.outcome, first.message.as_str()), (Outcome::Succeeded, "installed web 1.2, installed theme 1.2"));
    assert_eq!(names(&first), ["theme", "web"]);
    assert!(environment_of(&first).unwrap().verified);
    let second = install(&machine, &declared).await;
    assert_eq!(second.message, "the 2 declared packages are installed");
    assert_eq!(environment_of(&second), environment_of(&first));
}

#[tokio::test]
async fn packages_that_are_no_longer_declared_are_removed_only_by_pruning() {
    let machine = FakeMachine::new();
    install(&machine, &server(json!([package("web", "a"), package("theme", "b")]), false)).await;
    let kept = install(&machine, &server(json!([package("web", "a")]), false)).await;
    assert_eq!(names(&kept), ["theme", "web"]);
    let pruned = install(&machine, &server(json!([package("web", "a")]), true)).await;
    assert_eq!((names(&pruned), pruned.message.as_str()), (vec!["web"], "removed theme 1.2"));
}

#[tokio::test]
async fn errors_name_the_package_and_the_outcome_says_whether_another_attempt_helps() {
    let declared = server(json!([package("web", "a")]), false);
    let machine = FakeMachine::new();
    machine.fail_next(MachineFault::WrongDigest("c".repeat(64)));
    let wrong = install(&machine, &declared).await;
    assert_eq!(wrong.outcome, Outcome::Failed);
    assert!(
        wrong.message.starts_with("package web 1.2: ") && wrong.message.contains(&"c".repeat(64)),
        "{}",
        wrong.message
    );
    assert!(!environment_of(&wrong).unwrap().verified);
    machine.fail_next(MachineFault::Unreachable);
    let away = install(&machine, &declared).await;
    assert_eq!(away.outcome, Outcome::Retry, "{}", away.message);
    let apt = server(json!([{"name": "nginx", "version": "1", "apt": {}}]), false);
    let machine = FakeMachine::new();
    machine.fail_next(MachineFault::NoSuchVersion("E: Version '1' for 'nginx' was not found".to_owned()));
    let unknown = install(&machine, &apt).await;
    assert_eq!(unknown.outcome, Outcome::Failed);
    assert_eq!(unknown.message, "package nginx 1: nginx 1 does not exist: E: Version '1' for 'nginx' was not found");
    assert!(!environment_of(&unknown).unwrap().verified);
}

#[tokio::test]
async fn an_unreported_reboot_is_reported() {
    let machine = FakeMachine::new();
    let boot = ping(&machine, Duration::from_secs(10)).await.unwrap().boot_id;
    let mut declared = server(json!([]), false);
    let known = declared.status.as_mut().unwrap().machine.as_mut().unwrap();
    known.boot_id = Some(boot.clone());
    assert_eq!(machine_of(&install(&machine, &declared).await), None);
    machine.reboot();
    let result = install(&machine, &declared).await;
    let seen = machine_of(&result).unwrap();
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
async fn each_change_takes_one_round_trip_and_a_machine_as_declared_takes_one() {
    let machine = FakeMachine::new();
    let declared = server(mixed(), true);
    let first = install(&machine, &declared).await;
    assert_eq!(first.outcome, Outcome::Succeeded, "{}", first.message);
    assert_eq!(
        first.message,
        "installed nginx 1.2-3, installed curl 8, installed web 1.2, installed podman 4-1, installed agent 7"
    );
    assert_eq!(names(&first), ["agent", "curl", "nginx", "podman", "web"]);
    assert_eq!(machine.calls(), 6, "two reads, apt, dnf, an archive, a script");
    let second = install(&machine, &declared).await;
    assert_eq!((environment_of(&second), machine.calls()), (environment_of(&first), 7));
    let held = |kind: &str, name: &str| machine.state().managed[&(kind.to_owned(), name.to_owned())].held;
    assert!(held("apt", "nginx") && !held("apt", "curl") && held("dnf", "podman"));
    machine.change(|state| state.managed.get_mut(&("apt".into(), "nginx".into())).unwrap().held = false);
    assert_eq!(install(&machine, &declared).await.message, "held nginx 1.2-3");
}

#[tokio::test]
async fn pruning_removes_only_packages_that_berth_installed() {
    let machine = FakeMachine::new();
    let there = FakePackage { version: Some("7".to_owned()), held: false, mark: None };
    machine.change(|state| {
        state.managed.insert(("apt".into(), "curl".into()), there.clone());
        state.managed.insert(("apt".into(), "libc6".into()), there);
    });
    install(&machine, &server(mixed(), true)).await;
    let kept = install(&machine, &server(json!([]), false)).await;
    assert_eq!(names(&kept), ["agent", "nginx", "podman", "web"], "what was there before is not Berth's");
    let pruned = install(&machine, &server(json!([]), true)).await;
    assert_eq!(pruned.outcome, Outcome::Succeeded, "{}", pruned.message);
    assert!(names(&pruned).is_empty(), "{:?}", environment_of(&pruned));
    let left = machine.state();
    let managed: Vec<_> = left.managed.iter().map(|((_, name), package)| (name.as_str(), package.mark)).collect();
    assert_eq!(managed, [("curl", None), ("libc6", None)]);
    assert!(left.archives.is_empty() && left.script_packages.is_empty() && left.script_marks.is_empty());
}

#[tokio::test]
async fn a_package_that_changes_its_kind_is_installed_once() {
    let machine = FakeMachine::new();
    install(&machine, &server(json!([package("web", "a")]), true)).await;
    let apt = server(json!([{"name": "web", "version": "3", "apt": {}}]), true);
    let changed = install(&machine, &apt).await;
    assert_eq!((changed.message.as_str(), changed.outcome), ("removed web 1.2, installed web 3", Outcome::Succeeded));
    let packages = &environment_of(&changed).unwrap().packages;
    assert_eq!((packages.len(), packages[0].version.as_str(), &packages[0].sha256), (1, "3", &None));
}

#[tokio::test]
async fn a_script_package_whose_check_fails_is_missing_in_spite_of_its_mark() {
    let machine = FakeMachine::new();
    let declared = server(mixed(), false);
    install(&machine, &declared).await;
    machine.change(|state| state.script_packages.clear());
    let packages = declared::packages(&declared).unwrap();
    let inventory = read_inventory(&machine, ROOT, &packages).await.unwrap();
    let fact = environment::fact(&packages, &inventory);
    assert_eq!(difference(&declared, &fact).as_deref(), Some("agent 7 is missing"));
    assert_eq!(install(&machine, &declared).await.message, "installed agent 7");
}
