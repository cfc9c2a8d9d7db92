//! Gates: what people have decided about a Server's gate tasks.
//!
//! An Approval is about one gate task of one Server, or about one kind of gate of all Servers of a set in one generation.
//! A Server's own Approval outranks the set's.

use berth_core::{
    api::{Approval, ApprovalDecision, Executor, GatePoint, Outcome, Server, TargetKind, Task, TaskKind, VMReplicaSet},
    lifecycle::open_tasks,
};
use berth_runtime::CallError as Error;
use kube::{Api, Client};

use crate::set::members;

/// A person's decision on a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The gate task.
    pub task_id: i64,
    /// What is reported on it.
    pub outcome: Outcome,
    /// Who decided, and why.
    pub message: String,
}

/// The gates whose turn has come.
fn open_gates(server: &Server) -> impl Iterator<Item = &Task> {
    open_tasks(server, Executor::Person).filter(|task| task.kind == TaskKind::Gate)
}

/// The first decision on a gate whose turn has come. Of several Approvals for one gate the oldest counts.
#[must_use]
pub fn verdict<'a>(server: &Server, approvals: impl Iterator<Item = &'a Approval>) -> Option<Verdict> {
    let gates: Vec<i64> = open_gates(server).map(|task| task.id).collect();
    if gates.is_empty() {
        return None;
    }
    let decided = approvals.filter(|a| is_about(a, server)).filter_map(|a| {
        let id = a.spec.task_id.filter(|id| gates.contains(id))?;
        let at = a.spec.approver.as_ref()?.at.0;
        Some((id, at, a.metadata.name.as_deref().unwrap_or_default(), a))
    });
    let (task_id, _, _, approval) = decided.min_by_key(|(id, at, name, _)| (*id, *at, *name))?;
    Some(passed_on(task_id, approval, ""))
}

fn passed_on(task_id: i64, approval: &Approval, about: &str) -> Verdict {
    let (outcome, verb) = match approval.spec.decision {
        ApprovalDecision::Approve => (Outcome::Succeeded, "approved"),
        ApprovalDecision::Refuse => (Outcome::Failed, "refused"),
    };
    let by = approval.spec.approver.as_ref().map_or("nobody", |a| a.username.as_str());
    let reason = approval.spec.reason.as_str();
    let message =
        if reason.is_empty() { format!("{verb} by {by}{about}") } else { format!("{verb} by {by}{about}: {reason}") };
    Verdict { task_id, outcome, message }
}

/// The gates of the Server that Approvals of its set may decide, if the set is still what they mean.
#[must_use]
pub fn may_be_decided_by_set<'a>(server: &Server, mut approvals: impl Iterator<Item = &'a Approval>) -> bool {
    let gates: Vec<GatePoint> = open_gates(server).filter_map(|task| task.gate).collect();
    let Some(owner) = members::owner(server).filter(|_| !gates.is_empty()) else { return false };
    let own = members::set_generation(server);
    approvals.any(|approval| {
        let target = &approval.spec.target;
        let fits = |gate| gate != GatePoint::CreateMachine || target.generation.is_some() && target.generation == own;
        target.kind == TargetKind::VMReplicaSet
            && target.name == owner.name
            && target.uid.as_ref().is_none_or(|uid| *uid == owner.uid)
            && approval.metadata.namespace == server.metadata.namespace
            && approval.spec.gate.is_some_and(|gate| gates.contains(&gate) && fits(gate))
    })
}

/// What Approvals of its set decide about the Server's gates. A new machine's gate is decided for the generation of the set
/// that the Server was created for; any other for the generation that the set has now, as the API server says: so nothing
/// is done because of an Approval that meant an older declaration.
///
/// # Errors
/// When the set cannot be read.
pub async fn verdict_of_set<'a>(
    client: &Client,
    server: &Server,
    approvals: impl Iterator<Item = &'a Approval> + Clone + Send,
) -> Result<Option<Verdict>, Error> {
    if !may_be_decided_by_set(server, approvals.clone()) {
        return Ok(None);
    }
    let Some(owner) = members::owner(server) else { return Ok(None) };
    let namespace = server.metadata.namespace.as_deref().unwrap_or_default();
    let sets: Api<VMReplicaSet> = Api::namespaced(client.clone(), namespace);
    let set = sets.get_opt(&owner.name).await.map_err(Error::call("read the Server's VMReplicaSet"))?;
    Ok(set.and_then(|set| verdict_for(&set, server, &approvals)))
}

/// What Approvals of this set, as it is now, decide. Of several for one gate the oldest counts.
#[must_use]
pub fn verdict_for<'a>(
    set: &VMReplicaSet,
    server: &Server,
    approvals: &(impl Iterator<Item = &'a Approval> + Clone),
) -> Option<Verdict> {
    if !members::is_own(set, server) {
        return None;
    }
    open_gates(server).find_map(|task| {
        let gate = task.gate?;
        let generation = members::generation_of_gate(set, server, gate)?;
        let decided = approvals
            .clone()
            .filter(|a| {
                is_about_set(a, set) && a.spec.gate == Some(gate) && a.spec.target.generation == Some(generation)
            })
            .filter_map(|a| Some((a.spec.approver.as_ref()?.at.0, a.metadata.name.as_deref().unwrap_or_default(), a)));
        let (_, _, approval) = decided.min_by_key(|(at, name, _)| (*at, *name))?;
        let name = &approval.spec.target.name;
        Some(passed_on(task.id, approval, &format!(" for VMReplicaSet {name}, generation {generation}")))
    })
}

/// Whether the Approval is about this very set; see [`is_about`].
fn is_about_set(approval: &Approval, set: &VMReplicaSet) -> bool {
    let target = &approval.spec.target;
    let same = target.kind == TargetKind::VMReplicaSet
        && set.metadata.name.as_deref() == Some(target.name.as_str())
        && approval.metadata.namespace == set.metadata.namespace;
    same && match &target.uid {
        Some(uid) => set.metadata.uid.as_ref() == Some(uid),
        None => approval.metadata.creation_timestamp >= set.metadata.creation_timestamp,
    }
}

/// Whether the Approval is about this very Server. One without a UID must be younger than the Server: it cannot have
/// meant a later one of the same name.
fn is_about(approval: &Approval, server: &Server) -> bool {
    let target = &approval.spec.target;
    let same = target.kind == TargetKind::Server
        && server.metadata.name.as_deref() == Some(target.name.as_str())
        && approval.metadata.namespace == server.metadata.namespace;
    same && match &target.uid {
        Some(uid) => server.metadata.uid.as_ref() == Some(uid),
        None => approval.metadata.creation_timestamp >= server.metadata.creation_timestamp,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn server() -> Server {
        serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
            "metadata": {"name": "web-0", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-02T00:00:00Z"},
            "spec": {"machine": {"className": "local"}, "gates": [{"before": "ReleaseTraffic"}]},
            "status": {"state": "Ready", "firstTaskID": 7, "lastTaskID": 8, "tasks": [
                {"id": 6, "kind": "Gate", "gate": "CreateMachine", "step": 1, "executor": "person", "phase": "Succeeded"},
                {"id": 7, "kind": "Gate", "gate": "ReleaseTraffic", "step": 1, "executor": "person", "phase": "Pending"},
                {"id": 8, "kind": "ReleaseTraffic", "step": 2, "executor": "lb-controller", "phase": "Pending"},
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

    const EARLY: &str = "2026-01-03T00:00:00Z";
    const LATE: &str = "2026-01-03T00:00:09Z";

    #[test]
    fn the_oldest_decision_counts_and_names_who_and_why() {
        let yes = approval("b", LATE, |_| {});
        let no = approval("a", EARLY, |v| v["spec"]["decision"] = "Refuse".into());
        let verdict = verdict(&server(), [&yes, &no].into_iter()).unwrap();
        assert_eq!((verdict.task_id, verdict.outcome), (7, Outcome::Failed));
        assert_eq!(verdict.message, "refused by ann: fine");
    }

    #[test]
    fn what_is_about_something_else_decides_nothing() {
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
            assert_eq!(verdict(&server(), [&approval("a", EARLY, change)].into_iter()), None, "case {n}");
        }
        let by_uid = approval("a", EARLY, |v| v["spec"]["target"]["uid"] = "u".into());
        assert_eq!(verdict(&server(), [&by_uid].into_iter()).unwrap().outcome, Outcome::Succeeded);
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
    fn member(gate: GatePoint) -> Server {
        let mut server = server();
        server.metadata.owner_references = members::new_server(&set(3), "web-0").metadata.owner_references;
        server.metadata.annotations = members::new_server(&set(3), "web-0").metadata.annotations;
        server.status.as_mut().unwrap().tasks[1].gate = Some(gate);
        server
    }

    fn of_set(gate: GatePoint, generation: i64, change: impl FnOnce(&mut Value)) -> Approval {
        approval("a", EARLY, |v| {
            v["spec"]["taskID"] = Value::Null;
            v["spec"]["gate"] = gate.to_string().into();
            v["spec"]["target"] = json!({"kind": "VMReplicaSet", "name": "web", "generation": generation});
            change(v);
        })
    }

    fn decided(now: i64, gate: GatePoint, approvals: &[&Approval]) -> Option<Verdict> {
        let server = member(gate);
        let verdict = verdict_for(&set(now), &server, &approvals.iter().copied());
        assert!(verdict.is_none() || may_be_decided_by_set(&server, approvals.iter().copied()), "the set is asked");
        verdict
    }

    #[test]
    fn a_machine_is_created_for_the_generation_that_asked_for_it() {
        let gate = GatePoint::CreateMachine;
        let verdict = decided(9, gate, &[&of_set(gate, 3, |_| {})]).unwrap();
        assert_eq!((verdict.task_id, verdict.outcome), (7, Outcome::Succeeded));
        assert_eq!(verdict.message, "approved by ann for VMReplicaSet web, generation 3: fine");
        for other in [2, 9] {
            assert_eq!(decided(9, gate, &[&of_set(gate, other, |_| {})]), None, "generation {other}");
            assert!(!may_be_decided_by_set(&member(gate), [&of_set(gate, other, |_| {})].into_iter()));
        }
    }

    #[test]
    fn all_else_is_done_for_the_generation_that_holds() {
        for gate in GatePoint::ALL.into_iter().filter(|gate| *gate != GatePoint::CreateMachine) {
            let (older, newer) =
                (of_set(gate, 3, |_| {}), of_set(gate, 9, |v| v["spec"]["decision"] = "Refuse".into()));
            assert_eq!(decided(9, gate, &[&older]), None, "{gate}");
            assert_eq!(decided(9, gate, &[&older, &newer]).unwrap().outcome, Outcome::Failed, "{gate}");
            assert_eq!(decided(3, gate, &[&older, &newer]).unwrap().outcome, Outcome::Succeeded, "{gate}");
        }
    }

    #[test]
    fn an_approval_of_another_set_or_gate_decides_nothing() {
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
            assert_eq!(decided(9, gate, &[&of_set(gate, 9, change)]), None, "case {n}");
        }
        assert!(decided(9, gate, &[&of_set(gate, 9, |v| v["spec"]["target"]["uid"] = "s".into())]).is_some());
        let mut stranger = member(gate);
        stranger.metadata.owner_references.as_mut().unwrap()[0].uid = "another".into();
        assert_eq!(verdict_for(&set(9), &stranger, &[&of_set(gate, 9, |_| {})].into_iter()), None);
    }
}
