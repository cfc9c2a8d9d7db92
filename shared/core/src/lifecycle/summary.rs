//! The summary of a Server for people: its conditions, what it waits for, and who has to act.

use k8s_openapi::jiff::Timestamp;

use super::tasks::state;
use crate::{
    api::{GatePoint, Server, State, Task, TaskKind, TaskPhase},
    conditions,
};

/// Brings conditions, `waitingFor` and `observedGeneration` up to date.
pub(super) fn summarise(server: &mut Server, now: Timestamp) {
    let stalled = stalled(server);
    let waiting_for = waiting_for(server, stalled.as_ref().map(|(_, message)| message.as_str()));
    let generation = server.metadata.generation;
    let status = server.status.get_or_insert_default();
    let state = state(status);
    // No condition says its own generation: `status.observedGeneration` is of the same write.
    // Absent while it is false, as tools read it: most Servers never have it, and six fields less make each write cheaper.
    match &stalled {
        Some((reason, message)) => {
            let stalled = conditions::STALLED;
            conditions::set(&mut status.conditions, stalled, true, reason, message, None, now);
        }
        None => status.conditions.retain(|condition| condition.type_ != conditions::STALLED),
    }
    let waiting = waiting_for.as_deref().unwrap_or_default();
    let reason = state.to_string();
    conditions::set(&mut status.conditions, conditions::READY, state == State::Ready, &reason, waiting, None, now);
    status.waiting_for = waiting_for;
    status.observed_generation = generation;
}

/// Reason and message of the condition `Stalled`; none while the Server is not stalled.
fn stalled(server: &Server) -> Option<(&'static str, String)> {
    let failures = server.blocking_failures();
    let failed = failures.first()?;
    Some(match failed.kind {
        TaskKind::Gate => {
            let other_way = other_way(server, failed).unwrap_or_default();
            ("GateRefused", format!("{}: {}{other_way}", name(failed), failed.message))
        }
        _ => ("TaskFailed", format!("{} failed: {}", name(failed), failed.message)),
    })
}

fn waiting_for(server: &Server, stalled: Option<&str>) -> Option<String> {
    if let Some(message) = stalled {
        return Some(format!("a person: {message}"));
    }
    let status = server.known_status();
    let open: Vec<String> =
        status.current_tasks().filter(|task| server.is_open(task)).map(|task| describe(server, task)).collect();
    if !open.is_empty() {
        return Some(open.join(", "));
    }
    match state(status) {
        State::Offline => Some("removal by replicaset-controller".to_owned()),
        State::Ready => None,
        State::Unknown if server.spec.retain.is_some() && server.spec.force.is_none() => {
            Some("a person: the machine is kept for diagnosis".to_owned())
        }
        other => Some(format!("a person: nothing is left to do in the forced state {other}")),
    }
}

fn describe(server: &Server, task: &Task) -> String {
    match task.gate {
        Some(point) => {
            let other_way = other_way(server, task).unwrap_or_default();
            format!("approval of task {} (before {point}) by a person{other_way}", task.id)
        }
        None if says_why_it_waits(task) => format!("{} by {}: {}", task.kind, task.executor(), task.message),
        None => format!("{} by {}", task.kind, task.executor()),
    }
}

/// Whether the last report on the task had the outcome `Waiting`: no attempt was begun, and its message says why.
fn says_why_it_waits(task: &Task) -> bool {
    task.phase == TaskPhase::Pending && task.attempts == 0 && !task.message.is_empty()
}

/// How a person lets a deleted Server's machine be destroyed where no Approval can be created: the API server refuses every creation
/// in a namespace that is being deleted. It takes the same right (see `deploy/base/gate-policies.yaml`).
fn other_way(server: &Server, gate: &Task) -> Option<String> {
    let is_end = server.is_being_deleted() && gate.gate == Some(GatePoint::DestroyMachine);
    is_end.then(|| {
        format!(
            "; in a namespace that is being deleted no Approval can be created: there, somebody with the right to approve lets the \
             machine be destroyed with: kubectl -n {} patch server {} --type=merge -p '{{\"spec\":{{\"gates\":null}}}}'",
            server.namespace(),
            server.name()
        )
    })
}

fn name(task: &Task) -> String {
    match task.gate {
        Some(point) => format!("the gate before {point} (task {})", task.id),
        None => format!("{} (task {})", task.kind, task.id),
    }
}
