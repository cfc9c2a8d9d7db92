//! Gates: what people have decided about a Server's gate tasks.

use berth_core::api::{Approval, ApprovalDecision, Executor, Outcome, Server, TargetKind, TaskKind};
use berth_core::lifecycle::open_tasks;

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

/// The first decision on a gate whose turn has come. Of several Approvals for one gate the oldest counts.
#[must_use]
pub fn verdict<'a>(server: &Server, approvals: impl Iterator<Item = &'a Approval>) -> Option<Verdict> {
    let gates: Vec<i64> =
        open_tasks(server, Executor::Person).filter(|t| t.kind == TaskKind::Gate).map(|t| t.id).collect();
    if gates.is_empty() {
        return None;
    }
    let decided = approvals.filter(|a| is_about(a, server)).filter_map(|a| {
        let id = a.spec.task_id.filter(|id| gates.contains(id))?;
        let at = a.spec.approver.as_ref()?.at.0;
        Some((id, at, a.metadata.name.as_deref().unwrap_or_default(), a))
    });
    let (task_id, _, _, approval) = decided.min_by_key(|(id, at, name, _)| (*id, *at, *name))?;
    let (outcome, verb) = match approval.spec.decision {
        ApprovalDecision::Approve => (Outcome::Succeeded, "approved"),
        ApprovalDecision::Refuse => (Outcome::Failed, "refused"),
    };
    let by = approval.spec.approver.as_ref().map_or("nobody", |a| a.username.as_str());
    let reason = approval.spec.reason.as_str();
    let message = if reason.is_empty() { format!("{verb} by {by}") } else { format!("{verb} by {by}: {reason}") };
    Some(Verdict { task_id, outcome, message })
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
}
