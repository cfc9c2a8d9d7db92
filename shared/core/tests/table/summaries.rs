//! Conditions and `waitingFor`.

use berth_core::{
    api::{Executor, GatePoint, Outcome, TaskKind, TrafficPhase},
    conditions,
};

use berth_testing::{Fixture, unreachable};

fn says(fixture: &Fixture, ready: &str, reason: &str, stalled: &str, waiting_for: &str) {
    assert_eq!(fixture.waiting_for(), waiting_for);
    let waiting = waiting_for.to_owned();
    assert_eq!(fixture.condition("Ready"), (ready.into(), reason.into(), waiting));
    assert_eq!(fixture.condition("Stalled").0, stalled);
}

#[test]
fn waiting_for_names_the_open_tasks() {
    let mut fixture = Fixture::registering().decided();
    says(&fixture, "False", "Initializing", "False", "CreateMachine by replicaset-controller");
    assert_eq!(conditions::get(&fixture.status().conditions, "Stalled"), None, "absent while it is false");
    fixture.claim(TaskKind::CreateMachine, "a").unwrap();
    says(&fixture, "False", "Initializing", "False", "CreateMachine by replicaset-controller");
    fixture.report(TaskKind::CreateMachine, "a", Outcome::Retry).unwrap();
    fixture.perform(TaskKind::CreateMachine);
    let both = "InstallPackages by replicaset-controller, RegisterBackend by lb-controller";
    says(&fixture, "False", "Initializing", "False", both);
    fixture.perform(TaskKind::InstallPackages);
    fixture.perform(TaskKind::RegisterBackend);
    says(&fixture, "False", "Deploying", "False", "DeployApp by deployment-controller");
    fixture.perform(TaskKind::DeployApp);
    says(&fixture, "False", "Deploying", "False", "CheckHealth by monitor-controller");
    fixture.perform(TaskKind::CheckHealth);
    says(&fixture, "True", "Ready", "False", "ReleaseTraffic by lb-controller, BindMonitoring by monitor-controller");
    fixture.perform_all();
    says(&fixture, "True", "Ready", "False", "");
    assert_eq!(fixture.status().waiting_for, None);
}

#[test]
fn waiting_for_names_an_unreachable_machine() {
    let mut fixture = Fixture::ready().traffic(TrafficPhase::Held);
    let fact = unreachable(60, fixture.now);
    fixture.write(Executor::MonitorController, |write| write.reachability(fact)).unwrap();
    fixture.perform(TaskKind::PauseMonitoring);
    says(&fixture, "False", "Unknown", "False", "AwaitRecovery by monitor-controller");
}

#[test]
fn a_pending_gate_waits_for_a_person() {
    let fixture = Fixture::registering().gate(GatePoint::CreateMachine).decided();
    let id = fixture.task(TaskKind::Gate).id;
    says(
        &fixture,
        "False",
        "Initializing",
        "False",
        &format!("approval of task {id} (before CreateMachine) by a person"),
    );
}

#[test]
fn a_failed_task_waits_for_a_person() {
    let mut fixture = Fixture::registering().decided();
    fixture.claim(TaskKind::CreateMachine, "a").unwrap();
    fixture.report(TaskKind::CreateMachine, "a", Outcome::Failed).unwrap();
    says(&fixture, "False", "Initializing", "True", "a person: CreateMachine (task 1) failed: Failed");
    let stalled = ("True".to_owned(), "TaskFailed".to_owned(), "CreateMachine (task 1) failed: Failed".to_owned());
    assert_eq!(fixture.condition("Stalled"), stalled);
}

#[test]
fn a_failure_is_reported_before_other_open_tasks() {
    let mut fixture = Fixture::registering().running().decided();
    fixture.report(TaskKind::RegisterBackend, "a", Outcome::Failed).unwrap();
    let id = fixture.task(TaskKind::RegisterBackend).id;
    says(&fixture, "False", "Initializing", "True", &format!("a person: RegisterBackend (task {id}) failed: Failed"));
    assert_eq!(fixture.steps(), "InstallPackages", "it goes on meanwhile");
}

#[test]
fn a_retired_server_waits_for_replicaset_controller() {
    let mut fixture = Fixture::registering().decided();
    fixture.declare(|spec| spec.offline = true);
    says(&fixture, "False", "Offline", "False", "removal by replicaset-controller");
}

#[test]
fn observed_generation_is_the_generation_of_the_decision() {
    let mut fixture = Fixture::registering();
    fixture.server.metadata.generation = Some(7);
    fixture.acknowledge();
    assert_eq!(fixture.status().observed_generation, Some(7));
    let conditions: Vec<_> =
        fixture.status().conditions.iter().map(|c| (c.type_.as_str(), c.observed_generation)).collect();
    assert_eq!(conditions, [("Ready", None)], "the status says it once for all of them");
    fixture.server.metadata.generation = Some(8);
    let lost = unreachable(1, fixture.now);
    fixture.write(Executor::MonitorController, |write| write.reachability(lost)).unwrap();
    assert_eq!(fixture.status().observed_generation, Some(8), "any status write brings a decision on the newest");
}

#[test]
fn a_deleted_server_at_its_last_gate_says_how_it_ends_where_no_approval_can_be_created() {
    let mut fixture = Fixture::ready().gate(GatePoint::DestroyMachine).decided();
    let mut offline = fixture.clone();
    offline.declare(|spec| spec.offline = true);
    assert!(offline.waiting_for().ends_with("(before DestroyMachine) by a person"), "{}", offline.waiting_for());
    fixture.delete();
    let name = fixture.server.name().to_owned();
    let command = format!(r#"kubectl -n default patch server {name} --type=merge -p '{{"spec":{{"gates":null}}}}'"#);
    assert!(fixture.waiting_for().ends_with(&command), "{}", fixture.waiting_for());
    fixture.declare(|spec| spec.gates = Vec::new());
    assert_eq!(fixture.waiting_for(), "HoldTraffic by lb-controller");
}
