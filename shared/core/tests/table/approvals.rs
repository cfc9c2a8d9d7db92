//! Which decision of a person settles a gate.

use std::collections::BTreeMap;

use berth_core::{
    SET_GENERATION_ANNOTATION,
    api::{Approval, ApprovalStatus, GatePoint, Outcome, Server, Task, TaskPhase, VMReplicaSet},
    approvals::{GateSettlement, entered, may_be_settled_by_set, settlement, settlement_by_set},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::Resource as _;
use serde_json::{Value, json};

fn server() -> Server {
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
        "metadata": {"name": "web-0", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-02T00:00:00Z"},
        "spec": {"machine": {"className": "local"}, "gates": [{"before": "ReleaseTraffic"}]},
        "status": {"state": "Ready", "firstTaskID": 7, "lastTaskID": 8, "tasks": [
            {"id": 6, "kind": "Gate", "gate": "CreateMachine", "step": 1, "phase": "Succeeded"},
            {"id": 7, "kind": "Gate", "gate": "ReleaseTraffic", "step": 1, "phase": "Pending"},
            {"id": 8, "kind": "ReleaseTraffic", "step": 2, "phase": "Pending"},
        ]},
    }))
    .unwrap()
}

fn approval(name: &str, at: &str, change: impl FnOnce(&mut Value)) -> Approval {
    let mut value = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Approval",
        "metadata": {"name": name, "namespace": "n", "creationTimestamp": "2026-01-03T00:00:00Z"},
        "spec": {
            "target": {"kind": "Server", "name": "web-0"}, "taskID": 7, "decision": "Approve", "reason": "fine",
            "approver": {"username": "ann", "at": at},
        },
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn now() -> Timestamp {
    "2026-01-03T01:00:00Z".parse().unwrap()
}

const EARLY: &str = "2026-01-03T00:00:00Z";
const LATE: &str = "2026-01-03T00:00:09Z";

#[test]
fn the_newest_decision_counts_and_says_who_decided_and_why() {
    let yes = approval("b", EARLY, |_| {});
    let no = approval("a", LATE, |v| v["spec"]["decision"] = "Refuse".into());
    let settled = settlement(&server(), &[&yes, &no].into_iter(), now()).unwrap();
    assert_eq!((settled.task_id, settled.outcome), (7, Outcome::Failed));
    assert_eq!(settled.message, "refused by ann: fine");
}

#[test]
fn an_approval_of_another_gate_or_server_settles_nothing() {
    let others: [fn(&mut Value); 7] = [
        |v| v["spec"]["taskID"] = 6.into(),
        |v| v["spec"]["taskID"] = 8.into(),
        |v| v["spec"]["target"]["name"] = "web-1".into(),
        |v| v["spec"]["target"]["uid"] = "another".into(),
        |v| v["metadata"]["namespace"] = "m".into(),
        |v| v["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into(),
        |v| v["spec"]["approver"] = Value::Null,
    ];
    for (n, change) in others.into_iter().enumerate() {
        assert_eq!(settlement(&server(), &[&approval("a", EARLY, change)].into_iter(), now()), None, "case {n}");
    }
    let by_uid = approval("a", EARLY, |v| v["spec"]["target"]["uid"] = "u".into());
    assert_eq!(settlement(&server(), &[&by_uid].into_iter(), now()).unwrap().outcome, Outcome::Succeeded);
}

fn set(generation: i64) -> VMReplicaSet {
    let labels = json!({"app": "web"});
    let metadata = json!({
        "name": "web", "namespace": "n", "uid": "s", "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z",
    });
    let template = json!({"metadata": {"labels": labels}, "spec": {"machine": {"className": "local"}}});
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "metadata": metadata,
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }))
    .unwrap()
}

/// A Server of the set, created for its generation 3, with this gate open.
fn server_with_open(gate: GatePoint) -> Server {
    let mut server = server();
    server.metadata.owner_references = set(3).controller_owner_ref(&()).map(|owner| vec![owner]);
    server.metadata.annotations = Some(BTreeMap::from([(SET_GENERATION_ANNOTATION.to_owned(), "3".to_owned())]));
    server.status.as_mut().unwrap().tasks[1].gate = Some(gate);
    server
}

fn set_approval(gate: GatePoint, generation: i64, change: impl FnOnce(&mut Value)) -> Approval {
    approval("a", EARLY, |v| {
        v["spec"]["taskID"] = Value::Null;
        v["spec"]["gate"] = gate.to_string().into();
        v["spec"]["target"] = json!({"kind": "VMReplicaSet", "name": "web", "generation": generation});
        change(v);
    })
}

fn settled_by(generation: i64, gate: GatePoint, approvals: &[&Approval]) -> Option<GateSettlement> {
    let server = server_with_open(gate);
    let settled = settlement_by_set(&set(generation), &server, &approvals.iter().copied(), now());
    assert!(settled.is_none() || may_be_settled_by_set(&server, &approvals.iter().copied(), now()), "the set is read");
    settled
}

#[test]
fn the_gate_of_a_new_machine_is_settled_for_the_generation_it_was_created_for() {
    let gate = GatePoint::CreateMachine;
    let settled = settled_by(9, gate, &[&set_approval(gate, 3, |_| {})]).unwrap();
    assert_eq!((settled.task_id, settled.outcome), (7, Outcome::Succeeded));
    assert_eq!(settled.message, "approved by ann for VMReplicaSet web, generation 3: fine");
    for other in [2, 9] {
        assert_eq!(settled_by(9, gate, &[&set_approval(gate, other, |_| {})]), None, "generation {other}");
        assert!(!may_be_settled_by_set(
            &server_with_open(gate),
            &[&set_approval(gate, other, |_| {})].into_iter(),
            now()
        ));
    }
}

#[test]
fn every_other_gate_is_settled_for_the_current_generation() {
    for gate in GatePoint::ALL.into_iter().filter(|gate| *gate != GatePoint::CreateMachine) {
        let (older, newer) =
            (set_approval(gate, 3, |_| {}), set_approval(gate, 9, |v| v["spec"]["decision"] = "Refuse".into()));
        assert_eq!(settled_by(9, gate, &[&older]), None, "{gate}");
        assert_eq!(settled_by(9, gate, &[&older, &newer]).unwrap().outcome, Outcome::Failed, "{gate}");
        assert_eq!(settled_by(3, gate, &[&older, &newer]).unwrap().outcome, Outcome::Succeeded, "{gate}");
    }
}

#[test]
fn an_approval_of_another_set_or_gate_settles_nothing() {
    let gate = GatePoint::DestroyMachine;
    let others: [fn(&mut Value); 7] = [
        |v| v["spec"]["target"]["name"] = "other".into(),
        |v| v["spec"]["target"]["uid"] = "another".into(),
        |v| v["spec"]["target"]["kind"] = "Server".into(),
        |v| v["spec"]["gate"] = "CreateMachine".into(),
        |v| v["metadata"]["namespace"] = "m".into(),
        |v| v["metadata"]["creationTimestamp"] = "2025-12-31T00:00:00Z".into(),
        |v| v["spec"]["approver"] = Value::Null,
    ];
    for (n, change) in others.into_iter().enumerate() {
        assert_eq!(settled_by(9, gate, &[&set_approval(gate, 9, change)]), None, "case {n}");
    }
    assert!(settled_by(9, gate, &[&set_approval(gate, 9, |v| v["spec"]["target"]["uid"] = "s".into())]).is_some());
    let mut stranger = server_with_open(gate);
    stranger.metadata.owner_references.as_mut().unwrap()[0].uid = "another".into();
    assert_eq!(settlement_by_set(&set(9), &stranger, &[&set_approval(gate, 9, |_| {})].into_iter(), now()), None);
}

/// The Server with its gate refused in this second of the minute, in an earlier pass through its state if `again`.
fn refused(mut server: Server, second: i64, again: bool) -> Server {
    let declared = json!({"backends": [{"service": "web", "port": 80}]});
    // Fields that have their default do not count in the digest of what a gate is about.
    let digest = berth_core::digest::short(&declared);
    server.spec.traffic = serde_json::from_value(declared).unwrap();
    let status = server.status.as_mut().unwrap();
    let finished = format!("2026-01-03T00:00:{second:02}Z").parse::<Timestamp>().unwrap();
    let gate = &mut status.tasks[1];
    gate.phase = TaskPhase::Failed;
    gate.finished_at = Some(Time(finished));
    gate.digest = digest;
    if again {
        let later = Task { id: 9, ..gate.clone() };
        status.tasks.remove(2);
        status.tasks.push(later);
        status.first_task_id = Some(9);
    }
    server
}

fn at(second: i64) -> String {
    format!("2026-01-03T00:00:{second:02}Z")
}

#[test]
fn a_later_approval_revises_a_refusal_and_an_earlier_one_does_not() {
    let no = approval("no", &at(10), |v| v["spec"]["decision"] = "Refuse".into());
    for again in [false, true] {
        let server = refused(server(), 11, again);
        let gate = server.refused_gates().next().unwrap().id;
        let decided = |approvals: &[&Approval]| settlement(&server, &approvals.iter().copied(), now());
        assert_eq!(decided(&[&no]), None, "it is refused already");
        assert_eq!(decided(&[&approval("yes", &at(9), |_| {}), &no]), None);
        assert_eq!(decided(&[&approval("yes", &at(10), |_| {}), &no]), None, "in doubt it stays refused");
        assert_eq!(decided(&[&approval("yes", &at(11), |_| {})]), None, "nor when the refusal's object is gone");
        let settled = decided(&[&no, &approval("yes", &at(12), |_| {})]).unwrap();
        assert_eq!((settled.task_id, settled.outcome), (gate, Outcome::Succeeded));
    }
    // Once a person has asked for a retry, the refusal of the earlier task is no decision on the new one.
    let mut retried = refused(server(), 11, true);
    retried.status.as_mut().unwrap().tasks[2].phase = TaskPhase::Pending;
    assert_eq!(settlement(&retried, &[&no, &approval("yes", &at(12), |_| {})].into_iter(), now()), None);
}

#[test]
fn a_sets_newest_decision_counts_and_its_approvals_undo_no_refusal_of_the_server_itself() {
    let gate = GatePoint::ReleaseTraffic;
    let of_set = |second, decision: &str| {
        set_approval(gate, 3, |v| {
            v["metadata"]["name"] = format!("set-{second}").into();
            v["spec"]["approver"]["at"] = at(second).into();
            v["spec"]["decision"] = decision.into();
        })
    };
    let decided = |server: &Server, approvals: &[&Approval]| {
        let settled = settlement_by_set(&set(3), server, &approvals.iter().copied(), now());
        settled.map(|settled| settled.outcome)
    };
    let open = server_with_open(gate);
    let (no, yes) = (of_set(10, "Refuse"), of_set(20, "Approve"));
    assert_eq!(decided(&open, &[&no, &of_set(9, "Approve")]), Some(Outcome::Failed));
    assert_eq!(decided(&open, &[&no, &yes]), Some(Outcome::Succeeded));
    let own = approval("own", &at(15), |v| v["spec"]["decision"] = "Refuse".into());
    for again in [false, true] {
        let server = refused(server_with_open(gate), 15, again);
        assert_eq!(decided(&server, &[&no]), None, "it is refused already");
        assert_eq!(decided(&server, &[&of_set(9, "Approve")]), None, "in another pass, too");
        assert_eq!(decided(&server, &[&no, &yes]), Some(Outcome::Succeeded), "the set's refusal is revised");
        assert_eq!(decided(&server, &[&own, &yes]), None, "the Server's own outranks the set's");
        let mut retried = server.clone();
        let tasks = &mut retried.status.as_mut().unwrap().tasks;
        let open = Task { id: 10, phase: TaskPhase::Pending, finished_at: None, ..tasks[1].clone() };
        tasks.push(open);
        assert_eq!(decided(&retried, &[&own, &of_set(9, "Approve")]), None, "older than what was refused");
        assert_eq!(decided(&retried, &[&of_set(9, "Approve")]), None, "also when the refusal's object is gone");
        assert_eq!(decided(&retried, &[&own, &yes]), Some(Outcome::Succeeded), "a person has asked again");
    }
}

#[test]
fn an_approval_of_destruction_covers_the_servers_that_it_names_once_and_not_what_comes_later() {
    let gate = GatePoint::DestroyMachine;
    let named = |uid: &str, name: &str, created: &str| {
        let mut server = server_with_open(gate);
        server.metadata.name = Some(name.into());
        server.metadata.uid = Some(uid.into());
        server.metadata.creation_timestamp = Some(Time(created.parse().unwrap()));
        server
    };
    let decided = |server: &Server, approval: &Approval, at: Timestamp| {
        settlement_by_set(&set(3), server, &[approval].into_iter(), at).map(|settled| settled.enter_in)
    };
    let (early, late) = ("2026-01-02T00:00:00Z", "2026-01-03T00:30:00Z");
    let mut listed = set_approval(gate, 3, |v| v["spec"]["servers"] = json!(["web-0", "web-1"]));
    assert_eq!(
        decided(&named("u", "web-0", early), &listed, now()),
        Some(Some("a".into())),
        "entered before it settles"
    );
    assert_eq!(decided(&named("x", "web-2", early), &listed, now()), None);
    assert_eq!(decided(&named("y", "web-1", late), &listed, now()), None, "younger than the Approval");
    let servers = entered(&listed, &named("u", "web-0", early), now()).unwrap();
    listed.status = Some(ApprovalStatus { servers });
    assert_eq!(decided(&named("u", "web-0", early), &listed, now()), Some(None), "it is entered");
    assert_eq!(decided(&named("v", "web-0", early), &listed, now()), None, "another Server of that name");

    let mut two = set_approval(gate, 3, |v| v["spec"]["maxServers"] = 2.into());
    for (n, uid) in ["a", "b"].into_iter().enumerate() {
        let server = named(uid, &format!("web-{n}"), late);
        assert_eq!(decided(&server, &two, now()), Some(Some("a".into())));
        two.status = Some(ApprovalStatus { servers: entered(&two, &server, now()).unwrap() });
    }
    assert_eq!(decided(&named("c", "web-0", late), &two, now()), None, "the third");
    assert_eq!(entered(&two, &named("c", "web-0", late), now()), None);
    assert_eq!(decided(&named("b", "web-1", late), &two, now()), Some(None));

    let expiring = set_approval(gate, 3, |v| v["spec"]["expiresAt"] = "2026-01-03T01:00:01Z".into());
    assert!(decided(&named("u", "web-0", early), &expiring, now()).is_some());
    let later = now() + k8s_openapi::jiff::SignedDuration::from_secs(1);
    assert_eq!(decided(&named("u", "web-0", early), &expiring, later), None);
}
