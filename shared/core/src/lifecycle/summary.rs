//! What a Server says about itself: conditions, and what it waits for and on whom.

use k8s_openapi::jiff::Timestamp;

use super::{
    facts,
    tasks::{blocking_failures, current_tasks, is_open, state},
};
use crate::{
    api::{Server, State, Task, TaskKind},
    conditions,
};

/// Brings conditions, `waitingFor` and `observedGeneration` up to date.
pub(super) fn summarise(server: &mut Server, now: Timestamp) {
    let stalled = stalled(server);
    let waiting_for = waiting_for(server, stalled.as_ref().map(|(_, why)| why.as_str()));
    let generation = server.metadata.generation;
    let status = server.status.get_or_insert_default();
    let state = state(status);
    let (is_stalled, reason, message) = match &stalled {
        Some((reason, message)) => (true, *reason, message.as_str()),
        None => (false, "Progressing", ""),
    };
    conditions::set(&mut status.conditions, "Stalled", is_stalled, reason, message, generation, now);
    let waiting = waiting_for.as_deref().unwrap_or_default();
    let reason = state.to_string();
    conditions::set(&mut status.conditions, "Ready", state == State::Ready, &reason, waiting, generation, now);
    status.waiting_for = waiting_for;
    status.observed_generation = generation;
}

fn stalled(server: &Server) -> Option<(&'static str, String)> {
    let failures = blocking_failures(server);
    let failed = failures.first()?;
    Some(match failed.kind {
        TaskKind::Gate => ("GateRefused", format!("{}: {}", name(failed), failed.message)),
        _ => ("TaskFailed", format!("{} failed: {}", name(failed), failed.message)),
    })
}

fn waiting_for(server: &Server, stalled: Option<&str>) -> Option<String> {
    if let Some(why) = stalled {
        return Some(format!("a person: {why}"));
    }
    let status = facts::status(server);
    let open: Vec<String> = current_tasks(status).filter(|task| is_open(server, task)).map(describe).collect();
    if !open.is_empty() {
        return Some(open.join(", "));
    }
    match state(status) {
        State::Offline => Some("removal by replicaset-controller".to_owned()),
        State::Ready => None,
        State::Unknown if server.spec.retain.is_some() && server.spec.force.is_none() => {
            Some("a person: the machine is kept for diagnosis".to_owned())
        }
        other => Some(format!("a person: nothing is left to do in {other}, which was forced")),
    }
}

fn describe(task: &Task) -> String {
    match task.gate {
        Some(point) => format!("approval of task {} (before {point}) by a person", task.id),
        None => format!("{} by {}", task.kind, task.executor),
    }
}

fn name(task: &Task) -> String {
    match task.gate {
        Some(point) => format!("the gate before {point} (task {})", task.id),
        None => format!("{} (task {})", task.kind, task.id),
    }
}
