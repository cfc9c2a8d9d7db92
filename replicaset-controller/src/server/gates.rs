//! Gates: what people have decided about a Server's gate tasks.
//!
//! An Approval is about one gate task of one Server, or about one kind of gate of all Servers of a set in one generation.
//! A Server's own Approval has precedence over its set's.

use berth_core::api::{
    Approval, ApprovalDecision, Executor, GatePoint, Outcome, Server, TargetKind, Task, TaskKind, VMReplicaSet,
};
use berth_runtime::ApiError;
use kube::{Api, Client};

use crate::set::template;

/// A person's decision that settles a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSettlement {
    /// The gate task.
    pub task_id: i64,
    /// The outcome to report.
    pub outcome: Outcome,
    /// Who decided, and why.
    pub message: String,
}

impl GateSettlement {
    /// From an Approval of this task; `scope` says what it was given for, if not for the Server alone.
    fn new(task_id: i64, approval: &Approval, scope: &str) -> Self {
        let (outcome, verb) = match approval.spec.decision {
            ApprovalDecision::Approve => (Outcome::Succeeded, "approved"),
            ApprovalDecision::Refuse => (Outcome::Failed, "refused"),
        };
        let by = approval.spec.approver.as_ref().map_or("nobody", |approver| approver.username.as_str());
        let mut message = format!("{verb} by {by}{scope}");
        if !approval.spec.reason.is_empty() {
            message = format!("{message}: {}", approval.spec.reason);
        }
        Self { task_id, outcome, message }
    }
}

fn open_gates(server: &Server) -> impl Iterator<Item = &Task> {
    server.open_tasks(Executor::Person).filter(|task| task.kind == TaskKind::Gate)
}

/// What the Server's own Approvals decide about its first open gate. Of several Approvals of one gate the oldest counts.
pub(super) fn settlement<'a>(server: &Server, approvals: impl Iterator<Item = &'a Approval>) -> Option<GateSettlement> {
    let gates: Vec<i64> = open_gates(server).map(|task| task.id).collect();
    if gates.is_empty() {
        return None;
    }
    let decided = approvals.filter(|approval| is_about_server(approval, server)).filter_map(|approval| {
        let id = approval.spec.task_id.filter(|id| gates.contains(id))?;
        Some((id, approval.spec.approver.as_ref()?.at.0, approval))
    });
    let (task_id, _, approval) = decided.min_by_key(|(id, at, approval)| (*id, *at, approval.name()))?;
    Some(GateSettlement::new(task_id, approval, ""))
}

/// Whether Approvals of its set may settle an open gate of the Server, depending on what the set is now.
pub(super) fn may_be_settled_by_set<'a>(server: &Server, mut approvals: impl Iterator<Item = &'a Approval>) -> bool {
    let gates: Vec<GatePoint> = open_gates(server).filter_map(|task| task.gate).collect();
    let Some(owner) = server.owner().filter(|_| !gates.is_empty()) else { return false };
    let created_for = template::set_generation(server);
    approvals.any(|approval| {
        let target = &approval.spec.target;
        let fits =
            |gate| gate != GatePoint::CreateMachine || target.generation.is_some() && target.generation == created_for;
        target.kind == TargetKind::VMReplicaSet
            && target.name == owner.name
            && target.uid.as_ref().is_none_or(|uid| *uid == owner.uid)
            && approval.metadata.namespace == server.metadata.namespace
            && approval.spec.gate.is_some_and(|gate| gates.contains(&gate) && fits(gate))
    })
}

/// What Approvals of the Server's set decide about its gates, by the set that the API server has now: an Approval that was
/// given for an older generation must not settle anything.
///
/// # Errors
/// When the set cannot be read.
pub async fn settlement_by_current_set<'a>(
    client: &Client,
    server: &Server,
    approvals: impl Iterator<Item = &'a Approval> + Clone + Send,
) -> Result<Option<GateSettlement>, ApiError> {
    let Some(owner) = server.owner().filter(|_| may_be_settled_by_set(server, approvals.clone())) else {
        return Ok(None);
    };
    let sets: Api<VMReplicaSet> = Api::namespaced(client.clone(), server.namespace());
    let read = sets.get_opt(&owner.name).await;
    let set = read.map_err(ApiError::doing(format!("read VMReplicaSet {}", owner.name)))?;
    Ok(set.and_then(|set| settlement_by_set(&set, server, &approvals)))
}

/// What Approvals of this set decide about the Server's gates. The gate of a new machine is settled for the generation of
/// the set that the Server was created for, every other gate for the set's current generation. Of several Approvals of one
/// gate the oldest counts.
pub(super) fn settlement_by_set<'a>(
    set: &VMReplicaSet,
    server: &Server,
    approvals: &(impl Iterator<Item = &'a Approval> + Clone),
) -> Option<GateSettlement> {
    if !set.owns(server) {
        return None;
    }
    open_gates(server).find_map(|task| {
        let gate = task.gate?;
        let generation = template::generation_of_gate(set, server, gate)?;
        let is_about_gate = |approval: &&Approval| {
            let spec = &approval.spec;
            is_about_set(approval, set) && spec.gate == Some(gate) && spec.target.generation == Some(generation)
        };
        let decided = approvals.clone().filter(is_about_gate);
        let decided = decided.filter_map(|approval| Some((approval.spec.approver.as_ref()?.at.0, approval)));
        let (_, approval) = decided.min_by_key(|(at, approval)| (*at, approval.name()))?;
        let scope = format!(" for VMReplicaSet {}, generation {generation}", set.name());
        Some(GateSettlement::new(task.id, approval, &scope))
    })
}

/// Whether the Approval is about this very set and not about another one of the same name. An Approval without a UID must
/// be younger than the set.
fn is_about_set(approval: &Approval, set: &VMReplicaSet) -> bool {
    let target = &approval.spec.target;
    let same_name = target.kind == TargetKind::VMReplicaSet
        && set.name() == target.name
        && approval.metadata.namespace == set.metadata.namespace;
    same_name
        && match &target.uid {
            Some(uid) => set.uid() == uid,
            None => approval.metadata.creation_timestamp >= set.metadata.creation_timestamp,
        }
}

/// Whether the Approval is about this very Server: see [`is_about_set`].
fn is_about_server(approval: &Approval, server: &Server) -> bool {
    let target = &approval.spec.target;
    let same_name = target.kind == TargetKind::Server
        && server.name() == target.name
        && approval.metadata.namespace == server.metadata.namespace;
    same_name
        && match &target.uid {
            Some(uid) => server.uid() == uid,
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
    fn the_oldest_approval_counts_and_says_who_decided_and_why() {
        let yes = approval("b", LATE, |_| {});
        let no = approval("a", EARLY, |v| v["spec"]["decision"] = "Refuse".into());
        let settled = settlement(&server(), [&yes, &no].into_iter()).unwrap();
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
            assert_eq!(settlement(&server(), [&approval("a", EARLY, change)].into_iter()), None, "case {n}");
        }
        let by_uid = approval("a", EARLY, |v| v["spec"]["target"]["uid"] = "u".into());
        assert_eq!(settlement(&server(), [&by_uid].into_iter()).unwrap().outcome, Outcome::Succeeded);
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
        server.metadata.owner_references = template::new_server(&set(3), "web-0").metadata.owner_references;
        server.metadata.annotations = template::new_server(&set(3), "web-0").metadata.annotations;
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

    fn settled_by(now: i64, gate: GatePoint, approvals: &[&Approval]) -> Option<GateSettlement> {
        let server = server_with_open(gate);
        let settled = settlement_by_set(&set(now), &server, &approvals.iter().copied());
        assert!(settled.is_none() || may_be_settled_by_set(&server, approvals.iter().copied()), "the set is read");
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
            assert!(!may_be_settled_by_set(&server_with_open(gate), [&set_approval(gate, other, |_| {})].into_iter()));
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
        assert_eq!(settlement_by_set(&set(9), &stranger, &[&set_approval(gate, 9, |_| {})].into_iter()), None);
    }
}
