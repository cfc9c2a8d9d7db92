//! Gates: tasks that a person approves or refuses.

use berth_core::{
    api::{Approval, Approver, Executor, GatePoint, Outcome, State, TaskKind, TaskPhase},
    lifecycle::{RefusalReason, admit_approval},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::json;

use berth_testing::{Fixture, holder, person, reason, refusal, report, start, unreachable};

use RefusalReason as R;
use TaskKind::{CreateMachine, DeployApp, Gate, ReleaseTraffic};

fn gated() -> Fixture {
    Fixture::registering().gate(GatePoint::CreateMachine).decided()
}

#[test]
fn an_approved_gate_opens_its_task_and_stays_approved() {
    let mut fixture = gated();
    assert_eq!(fixture.steps(), "Gate(CreateMachine) > CreateMachine > InstallPackages + RegisterBackend");
    fixture.report(Gate, "a", Outcome::Succeeded).unwrap();
    assert_eq!(fixture.steps(), "CreateMachine > InstallPackages + RegisterBackend");
    fixture.acknowledge();
    assert_eq!(fixture.steps(), "CreateMachine > InstallPackages + RegisterBackend");
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.report(CreateMachine, "a", Outcome::Retry).unwrap();
    assert_eq!(
        fixture.steps(),
        "CreateMachine > InstallPackages + RegisterBackend",
        "another attempt asks nobody again"
    );
}

#[test]
fn only_replicaset_controller_reports_on_gates() {
    let mut fixture = gated();
    for executor in [Executor::DeploymentController, Executor::LbController, Executor::MonitorController] {
        let yes = report(fixture.task(Gate), &holder(executor, "a"), Outcome::Succeeded);
        assert_eq!(
            refusal(fixture.write(executor, |write| write.report(yes))),
            ("status.report.taskID".into(), R::WrongExecutor)
        );
    }
    let yes = report(fixture.task(Gate), "person/ann", Outcome::Succeeded);
    assert_eq!(reason(fixture.write_as(&person("ann"), |write| write.report(yes))), R::WrongExecutor);
    assert_eq!(fixture.task(Gate).executor(), Executor::Person);
    assert_eq!(reason(fixture.claim(CreateMachine, "a")), R::NotOpen);
}

#[test]
fn a_gate_has_to_be_approved_again_when_its_part_of_the_declaration_changes() {
    let mut fixture = Fixture::registering().running().installed().registered().gate(GatePoint::DeployApp).decided();
    fixture.report(Gate, "a", Outcome::Succeeded).unwrap();
    let first = fixture.task(Gate).id;
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    assert_eq!(fixture.steps(), "Gate(DeployApp) > DeployApp > CheckHealth");
    assert!(fixture.task(Gate).id > first);
    // A change of another part of the declaration does not affect this gate.
    fixture.report(Gate, "a", Outcome::Succeeded).unwrap();
    fixture.declare(|spec| spec.monitoring = None);
    assert_eq!(fixture.steps(), "DeployApp > CheckHealth");
    // The approval counts again when the declaration is again the one that was approved.
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r1".into()));
    assert_eq!(fixture.steps(), "DeployApp > CheckHealth");
}

#[test]
fn a_pending_gate_is_replaced_and_not_changed() {
    let mut fixture = Fixture::registering().running().installed().registered().gate(GatePoint::DeployApp).decided();
    let shown = fixture.task(Gate).clone();
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    let old = fixture.status().tasks.iter().find(|task| task.id == shown.id).unwrap();
    assert_eq!((old.phase, old.digest.as_str()), (TaskPhase::Cancelled, shown.digest.as_str()));
    assert_ne!(fixture.task(Gate).digest, shown.digest);
    let late = report(&shown, "replicaset-controller/a", Outcome::Succeeded);
    assert_eq!(reason(fixture.write(Executor::ReplicasetController, |write| write.report(late))), R::NotOpen);
    // The task after the gate was never begun, so it takes the newer declaration instead of being replaced.
    assert_eq!(fixture.status().tasks.iter().filter(|task| task.kind == DeployApp).count(), 1);
}

#[test]
fn a_refused_gate_stalls_the_server() {
    let mut fixture = gated();
    let task_id = fixture.task(Gate).id;
    fixture.report(Gate, "a", Outcome::Failed).unwrap();
    let message = format!("the gate before CreateMachine (task {task_id}): Failed");
    assert_eq!(fixture.condition("Stalled"), ("True".into(), "GateRefused".into(), message.clone()));
    assert_eq!(fixture.waiting_for(), format!("a person: {message}"));
    for _ in 0..3 {
        fixture.acknowledge();
    }
    assert_eq!(fixture.steps(), "CreateMachine > InstallPackages + RegisterBackend");
    assert_eq!(reason(fixture.claim(CreateMachine, "a")), R::NotOpen);
    fixture.declare(|spec| spec.monitoring = None);
    assert_eq!(reason(fixture.claim(CreateMachine, "a")), R::NotOpen, "another change does not undo it");
}

#[test]
fn a_retry_or_another_declaration_asks_for_a_refused_gate_again() {
    let mut fixture = gated();
    fixture.report(Gate, "a", Outcome::Failed).unwrap();
    let mut other = fixture.clone();
    fixture.declare(|spec| {
        spec.retry = Some(berth_core::api::Request { id: "1".into(), reason: String::new(), by: None, at: None });
    });
    assert_eq!(fixture.steps(), "Gate(CreateMachine) > CreateMachine > InstallPackages + RegisterBackend");
    assert_eq!(fixture.condition("Stalled").0, "False");
    other = other.spec(|spec| spec.machine.flavor = Some("large".into())).decided();
    assert_eq!(other.steps(), "Gate(CreateMachine) > CreateMachine > InstallPackages + RegisterBackend");
}

#[test]
fn a_refusal_outlives_the_state_that_it_was_given_in() {
    let mut fixture = Fixture::registering().running().installed().registered().gate(GatePoint::DeployApp).decided();
    let no = berth_core::api::Report {
        message: "refused by ann: no".into(),
        ..report(fixture.task(Gate), "replicaset-controller/a", Outcome::Failed)
    };
    fixture.write(Executor::ReplicasetController, |write| write.report(no)).unwrap();
    let refused = fixture.task(Gate).clone();
    // Many other things happen meanwhile: the machine is lost and comes back more often than finished tasks are kept.
    for _ in 0..8 {
        fixture.advance(600);
        let lost = unreachable(90, fixture.now);
        fixture.write(Executor::MonitorController, |write| write.reachability(lost)).unwrap();
        assert_eq!(fixture.state(), State::Unknown);
        fixture.perform_all();
        assert_eq!(fixture.state(), State::Deploying);
        let gate = fixture.task(Gate);
        assert_eq!((gate.phase, gate.message.as_str()), (TaskPhase::Failed, "refused by ann: no"));
        assert_eq!(gate.finished_at, refused.finished_at, "when it was decided");
        assert_eq!(fixture.condition("Stalled").1, "GateRefused");
        assert_eq!(reason(fixture.claim(DeployApp, "a")), R::NotOpen);
    }
    let mut other = fixture.clone();
    other.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    assert_eq!(other.phase(Gate), TaskPhase::Pending, "it was about another content");
    other.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r1".into()));
    assert_eq!(other.condition("Stalled").1, "GateRefused", "the refused content again");
    fixture.declare(|spec| {
        spec.retry = Some(berth_core::api::Request { id: "1".into(), reason: String::new(), by: None, at: None });
    });
    assert_eq!(fixture.phase(Gate), TaskPhase::Pending, "a person asks again");
}

#[test]
fn a_later_approval_revises_a_refusal_and_nothing_else_reports_on_it() {
    let mut fixture = gated();
    fixture.report(Gate, "a", Outcome::Failed).unwrap();
    assert_eq!(reason(fixture.report(Gate, "a", Outcome::Failed)), R::NotOpen);
    assert_eq!(reason(fixture.report(Gate, "a", Outcome::Retry)), R::NotOpen);
    fixture.report(Gate, "a", Outcome::Succeeded).unwrap();
    assert_eq!((fixture.phase(Gate), fixture.condition("Stalled").0.as_str()), (TaskPhase::Succeeded, "False"));
    assert_eq!(reason(fixture.report(Gate, "a", Outcome::Succeeded)), R::NotOpen);
    fixture.claim(CreateMachine, "a").unwrap();
    // A refused gate that is no longer declared, or whose content has changed, is history.
    let mut fixture = gated();
    fixture.report(Gate, "a", Outcome::Failed).unwrap();
    let refused = report(fixture.task(Gate), "replicaset-controller/a", Outcome::Succeeded);
    fixture = fixture.spec(|spec| spec.machine.flavor = Some("large".into())).decided();
    assert_eq!(reason(fixture.write(Executor::ReplicasetController, |write| write.report(refused))), R::NotOpen);
}

#[test]
fn a_gate_that_is_no_longer_declared_is_cancelled() {
    let mut fixture = gated();
    fixture.report(Gate, "a", Outcome::Failed).unwrap();
    fixture.declare(|spec| spec.gates.clear());
    fixture.claim(CreateMachine, "a").unwrap();
    let mut waiting = gated();
    waiting.declare(|spec| spec.gates.clear());
    assert_eq!((waiting.phase(Gate), waiting.steps().starts_with("CreateMachine")), (TaskPhase::Cancelled, true));
}

#[test]
fn the_gate_before_traffic_has_to_be_approved_each_time_the_server_becomes_ready() {
    let mut fixture = Fixture::registering().gate(GatePoint::ReleaseTraffic).decided();
    for kind in [CreateMachine, TaskKind::InstallPackages, TaskKind::RegisterBackend, DeployApp, TaskKind::CheckHealth]
    {
        fixture.perform(kind);
    }
    assert_eq!(
        (fixture.state(), fixture.steps().as_str()),
        (State::Ready, "Gate(ReleaseTraffic) > ReleaseTraffic + BindMonitoring")
    );
    assert_eq!(reason(fixture.report(ReleaseTraffic, "a", Outcome::Succeeded)), R::NotOpen);
    fixture.perform_all();
    assert_eq!(fixture.steps(), "");
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    fixture.perform(TaskKind::HoldTraffic);
    fixture.perform(DeployApp);
    fixture.perform(TaskKind::CheckHealth);
    assert_eq!(fixture.steps(), "Gate(ReleaseTraffic) > ReleaseTraffic");
}

#[test]
fn a_gated_retirement_changes_nothing_before_its_approval() {
    let mut fixture = Fixture::registering().gate(GatePoint::DestroyMachine).decided();
    fixture.perform_all();
    fixture.declare(|spec| spec.offline = true);
    assert_eq!(
        fixture.steps(),
        "Gate(DestroyMachine) > HoldTraffic > RemoveBackend + UnbindMonitoring > DestroyMachine"
    );
    assert_eq!(reason(fixture.report(TaskKind::HoldTraffic, "a", Outcome::Running)), R::NotOpen);
    fixture.report(Gate, "a", Outcome::Succeeded).unwrap();
    fixture.perform_all();
    assert!(fixture.server.is_retired());
}

#[test]
fn the_approver_of_an_approval_is_overwritten_at_admission() {
    let approval = |approver: Option<Approver>| -> Approval {
        let mut approval: Approval = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Approval", "metadata": {"name": "yes"},
            "spec": {"target": {"kind": "Server", "name": "web-0"}, "taskID": 1, "decision": "Approve"}
        }))
        .unwrap();
        approval.spec.approver = approver;
        approval
    };
    let now = start() + SignedDuration::from_millis(400);
    let of_set = |decision: &str, expires_at: Option<Time>| {
        let mut approval = approval(None);
        approval.spec.target.kind = berth_core::api::TargetKind::VMReplicaSet;
        approval.spec.decision = serde_json::from_value(decision.into()).unwrap();
        approval.spec.expires_at = expires_at;
        admit_approval(approval, &person("ann"), now).spec.expires_at.map(|at| at.0)
    };
    assert_eq!(of_set("Approve", None), Some(start() + SignedDuration::from_hours(24)), "not for ever");
    assert_eq!(of_set("Approve", Some(Time(start()))), Some(start()));
    assert_eq!(of_set("Refuse", None), None);
    assert_eq!(admit_approval(approval(None), &person("ann"), now).spec.expires_at, None);
    let forged = Approver { username: "boss".into(), at: Time(Timestamp::UNIX_EPOCH) };
    for written in [None, Some(forged)] {
        let stamped = admit_approval(approval(written), &person("ann"), now);
        assert_eq!(stamped.spec.approver, Some(Approver { username: "ann".into(), at: Time(start()) }));
    }
}
