//! What replicaset-controller does next about a Server, on objects that the real life cycle has produced.

use berth_core::{
    api::{
        Approval, Claim, EnvironmentFact, Executor, MachineFact, MachinePhase, Outcome, Report, Request, Server, State,
        TaskKind,
    },
    identity::{Author, Identities},
    lifecycle::{admit_create, admit_status},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use super::plan::{FIRST_TASK, NextAction, ThisInstance, next_action};

const ME: &str = "replicaset-controller/a";
const OTHER: &str = "replicaset-controller/b";

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn later(seconds: i64) -> Timestamp {
    now().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

fn server(spec: impl Into<Value>) -> Server {
    let server = berth_testing::server(json!({
        "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec.into(),
    }));
    admit_create(server, &Author::new("ann"), now()).unwrap()
}

/// A status write of replicaset-controller, as the webhook admits it.
fn write(server: &Server, at: Timestamp, change: impl FnOnce(&mut Value)) -> Server {
    let mut value = serde_json::to_value(server).unwrap();
    if value.get("status").is_none() {
        value["status"] = json!({});
    }
    value["status"]["observedGeneration"] = server.metadata.generation.into();
    change(&mut value["status"]);
    let (ids, new) = (Identities::default(), serde_json::from_value(value).unwrap());
    let author = Author::new(ids.username(berth_core::api::Executor::ReplicasetController));
    admit_status(server, new, &author, &ids, at).unwrap()
}

fn claim(server: &Server, id: i64, holder: &str) -> Server {
    let claim = Claim { task_id: id, holder: holder.into(), duration_seconds: 30, again: false };
    write(server, now(), |status| status["claim"] = serde_json::to_value(claim).unwrap())
}

fn report(server: &Server, id: i64, outcome: Outcome, facts: impl FnOnce(&mut Value)) -> Server {
    let report = Report {
        task_id: id,
        holder: ME.into(),
        outcome,
        message: String::new(),
        retry_after_seconds: Some(20),
        successors: Vec::new(),
    };
    write(server, now(), |status| {
        status["report"] = serde_json::to_value(report).unwrap();
        facts(status);
    })
}

fn action(server: &Server, runs_task: bool, at: Timestamp) -> NextAction {
    next_action(server, &std::iter::empty(), ThisInstance { holder: ME, runs_task }, at)
}

fn kind(action: &NextAction) -> TaskKind {
    let NextAction::RunTask(task) = action else { panic!("{action:?}") };
    task.kind
}

fn machine(phase: MachinePhase) -> Value {
    let fact = MachineFact {
        phase,
        provider: Some("local".into()),
        place: None,
        id: Some("u".into()),
        address: None,
        ssh: None,
        boot_id: None,
        created_at: None,
    };
    serde_json::to_value(fact).unwrap()
}

#[test]
fn a_new_server_gets_a_machine_and_then_its_packages() {
    let server = server(json!({}));
    assert_eq!(action(&server, false, now()), NextAction::ClaimFirstTask);
    let server = claim(&server, FIRST_TASK, ME);
    assert_eq!(action(&server, true, now()), NextAction::AwaitChange);
    assert_eq!(kind(&action(&server, false, now())), TaskKind::CreateMachine, "a restarted controller continues");
    let server = report(&server, 1, Outcome::Succeeded, |status| status["machine"] = machine(MachinePhase::Running));
    assert_eq!(kind(&action(&server, false, now())), TaskKind::InstallPackages);
    let server = claim(&server, 2, ME);
    let environment = EnvironmentFact { verified: true, packages: Vec::new() };
    let server =
        report(&server, 2, Outcome::Succeeded, |s| s["environment"] = serde_json::to_value(environment).unwrap());
    assert_eq!(action(&server, false, now()), NextAction::AwaitChange);
}

#[test]
fn nothing_is_claimed_before_the_gate_of_the_machine_is_settled() {
    let server = server(json!({"gates": [{"before": "CreateMachine"}]}));
    assert_eq!(action(&server, false, now()), NextAction::Acknowledge);
    let server = write(&server, now(), |_| {});
    assert_eq!(action(&server, false, now()), NextAction::AwaitChange);
    let approval: Approval =
        berth_testing::approval(json!({"metadata": {"name": "yes", "creationTimestamp": "2026-01-02T00:00:00Z"},
            "spec": {"target": {"kind": "Server", "name": "web-0"}, "taskID": 1, "decision": "Approve",
                     "approver": {"username": "ann", "at": "2026-01-02T00:00:00Z"}},
        }));
    let NextAction::SettleGate(settlement) =
        next_action(&server, &std::iter::once(&approval), ThisInstance { holder: ME, runs_task: false }, now())
    else {
        panic!("the gate is settled");
    };
    assert_eq!((settlement.task_id, settlement.message.as_str()), (1, "approved by ann"));
    let server = report(&server, 1, Outcome::Succeeded, |_| {});
    assert_eq!(kind(&action(&server, false, now())), TaskKind::CreateMachine);
}

/// Its first state is Unknown, which has no CreateMachine: the claim would be refused for ever.
#[test]
fn nothing_is_claimed_of_a_server_that_a_person_keeps_from_the_beginning() {
    let server = server(json!({"retain": {"until": "2026-12-31T00:00:00Z", "reason": "a person looks at it"}}));
    assert_eq!(action(&server, false, now()), NextAction::Acknowledge);
}

#[test]
fn a_task_waits_for_the_lock_of_another_holder_and_for_its_pause_after_a_failure() {
    let locked = claim(&server(json!({})), 1, OTHER);
    assert_eq!(action(&locked, false, now()), NextAction::RequeueAt(later(91)));
    assert_eq!(kind(&action(&locked, false, later(91))), TaskKind::CreateMachine, "the lock has expired");
    let failed = report(&claim(&server(json!({})), 1, ME), 1, Outcome::Retry, |_| {});
    assert_eq!(action(&failed, false, now()), NextAction::RequeueAt(later(20)));
    assert_eq!(kind(&action(&failed, false, later(20))), TaskKind::CreateMachine);
}

#[test]
fn a_new_declaration_is_acknowledged_unless_the_report_of_a_running_task_does_it() {
    let mut server = claim(&server(json!({})), 1, ME);
    server.metadata.generation = Some(2);
    assert_eq!(action(&server, true, now()), NextAction::AwaitChange);
    assert_eq!(action(&server, false, now()), NextAction::Acknowledge);
    server.spec.offline = true;
    assert_eq!(action(&server, true, now()), NextAction::Acknowledge, "a retirement does not wait");
}

#[test]
fn lb_controller_has_time_to_ask_for_the_decision_on_a_deletion_by_draining() {
    let mut server = server(json!({"traffic": {"backends": [{"service": "web", "port": 8080}]}}));
    let traffic = json!({"phase": "Serving", "backends": [], "address": "10.0.0.1"});
    server = write(&server, now(), |_| {});
    server.status.as_mut().unwrap().traffic = serde_json::from_value(traffic).unwrap();
    server.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(action(&server, false, now()), NextAction::RequeueAt(later(10)));
    assert_eq!(action(&server, false, later(10)), NextAction::Acknowledge, "it is away");
    server.status.as_mut().unwrap().traffic = None;
    assert_eq!(action(&server, false, now()), NextAction::Acknowledge, "there is nothing to drain");
}

#[test]
fn the_object_is_deleted_last() {
    let running = report(&claim(&server(json!({})), 1, ME), 1, Outcome::Succeeded, |status| {
        status["machine"] = machine(MachinePhase::Running);
        status["environment"] = json!({"verified": false});
    });
    let mut server = running;
    server.spec.offline = true;
    server.metadata.generation = Some(2);
    let server = write(&server, now(), |_| {});
    assert_eq!(server.status.as_ref().unwrap().state, Some(State::Offline));
    let NextAction::RunTask(task) = action(&server, false, now()) else {
        panic!("{:?}", action(&server, false, now()))
    };
    assert_eq!(task.kind, TaskKind::DestroyMachine);
    let server = claim(&server, task.id, ME);
    let mut server =
        report(&server, task.id, Outcome::Succeeded, |status| status["machine"] = machine(MachinePhase::Gone));
    assert_eq!(action(&server, false, now()), NextAction::DeleteObject);
    server.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(action(&server, false, now()), NextAction::RemoveFinalizer);
    server.metadata.finalizers = None;
    assert_eq!(action(&server, false, now()), NextAction::AwaitChange);
}

#[test]
fn the_object_goes_also_when_the_machine_was_destroyed_only_after_a_persons_retry() {
    let created = report(&claim(&server(json!({"taskAttempts": 1})), 1, ME), 1, Outcome::Succeeded, |status| {
        status["machine"] = machine(MachinePhase::Running);
    });
    let mut server = created;
    server.spec.offline = true;
    server.metadata.generation = Some(2);
    let server = write(&server, now(), |_| {});
    let first = destroys(&server);
    let mut failed = report(&claim(&server, first, ME), first, Outcome::Failed, |_| {});
    assert_eq!(action(&failed, false, now()), NextAction::AwaitChange);
    failed.spec.retry = Some(Request { id: "again".into(), reason: "repaired".into(), by: None, at: None });
    failed.metadata.generation = Some(3);
    let retried = write(&failed, now(), |_| {});
    let second = destroys(&retried);
    assert_ne!(first, second);
    let gone = report(&claim(&retried, second, ME), second, Outcome::Succeeded, |status| {
        status["machine"] = machine(MachinePhase::Gone);
    });
    assert_eq!(action(&gone, false, now()), NextAction::DeleteObject);
}

#[test]
fn the_object_goes_also_when_its_end_was_refused_once() {
    let gates = json!({"gates": [{"before": "DestroyMachine"}]});
    let mut server = report(&claim(&server(gates), 1, ME), 1, Outcome::Succeeded, |status| {
        status["machine"] = machine(MachinePhase::Running);
    });
    server.spec.offline = true;
    server.metadata.generation = Some(2);
    let server = write(&server, now(), |_| {});
    let settle = |server: &Server, outcome| {
        let gate = server.open_tasks(Executor::Person).next().unwrap().id;
        report(server, gate, outcome, |_| {})
    };
    let mut refused = settle(&server, Outcome::Failed);
    refused.spec.retry = Some(Request { id: "again".into(), reason: "thought again".into(), by: None, at: None });
    refused.metadata.generation = Some(3);
    let approved = settle(&write(&refused, now(), |_| {}), Outcome::Succeeded);
    let task = destroys(&approved);
    let gone = report(&claim(&approved, task, ME), task, Outcome::Succeeded, |status| {
        status["machine"] = machine(MachinePhase::Gone);
    });
    assert_eq!(action(&gone, false, now()), NextAction::DeleteObject);
}

/// The id of the task DestroyMachine, which is to be carried out now.
fn destroys(server: &Server) -> i64 {
    let NextAction::RunTask(task) = action(server, false, now()) else { panic!("{:?}", action(server, false, now())) };
    assert_eq!(task.kind, TaskKind::DestroyMachine);
    task.id
}

#[test]
fn a_server_deleted_before_its_first_decision_gets_no_machine() {
    let mut server = server(json!({}));
    server.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(action(&server, false, now()), NextAction::Acknowledge);
    let server = write(&server, now(), |_| {});
    assert_eq!(action(&server, false, now()), NextAction::RemoveFinalizer);
}
