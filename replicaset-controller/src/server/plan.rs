//! What replicaset-controller does next about one Server.

use berth_core::{
    FINALIZER,
    api::{Approval, Executor, GatePoint, Server, State, Task, TaskPhase},
    lifecycle::{current_tasks, is_retired, lock_expired, not_before, open_tasks},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::gates::{self, Verdict};

/// The id of a Server's first task.
pub const FIRST_TASK: i64 = 1;

/// The next step about a Server.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing is left of it: delete the object.
    Delete,
    /// Nothing is left of it and its deletion was requested: let the object go.
    Release,
    /// Claim the first task of a new Server. The decision that brings the task about comes with the same write.
    Begin,
    /// Ask for a decision on the newest declaration.
    Acknowledge,
    /// Pass a person's decision on.
    Gate(Verdict),
    /// Approvals of the Server's set may decide a gate: ask the set what it is now.
    AskSet,
    /// Carry this task out.
    Work(Task),
    /// Nothing before this time, unless the Server changes.
    Wait(Timestamp),
    /// Nothing, unless the Server changes.
    Rest,
}

/// What this process knows besides the Server.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// `<executor>/<instance>`.
    pub holder: &'a str,
    /// Whether this process carries out a task of this Server at the moment.
    pub at_work: bool,
}

/// The next step.
#[must_use]
pub fn next<'a>(
    server: &Server,
    approvals: impl Iterator<Item = &'a Approval> + Clone,
    own: Own<'_>,
    now: Timestamp,
) -> Step {
    if is_done(server) {
        let deleted = server.metadata.deletion_timestamp.is_some();
        let held = server.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        return match (deleted, held) {
            (false, _) => Step::Delete,
            (true, true) => Step::Release,
            (true, false) => Step::Rest,
        };
    }
    if needs_decision(server) && (!own.at_work || must_retire(server)) {
        return if may_begin(server) { Step::Begin } else { Step::Acknowledge };
    }
    if let Some(verdict) = gates::verdict(server, approvals.clone()) {
        return Step::Gate(verdict);
    }
    match if own.at_work { Step::Rest } else { work(server, own.holder, now) } {
        Step::Rest if gates::may_be_decided_by_set(server, approvals) => Step::AskSet,
        step => step,
    }
}

/// Whether the Server is retired and nothing is left to do.
fn is_done(server: &Server) -> bool {
    let Some(status) = &server.status else { return false };
    status.state == Some(State::Offline)
        && must_retire(server)
        && is_retired(server)
        && current_tasks(status).all(|t| matches!(t.phase, TaskPhase::Succeeded | TaskPhase::Cancelled))
}

fn must_retire(server: &Server) -> bool {
    server.metadata.deletion_timestamp.is_some() || server.spec.offline
}

/// Whether the webhook has not decided on the newest declaration yet, or on the request for deletion, which comes
/// without a write of its own.
fn needs_decision(server: &Server) -> bool {
    let Some(status) = &server.status else { return true };
    status.observed_generation != server.metadata.generation
        || server.metadata.deletion_timestamp.is_some() && status.state != Some(State::Offline)
}

/// Whether the first decision is going to be that the machine has to be created now.
fn may_begin(server: &Server) -> bool {
    let gated = server.spec.gates.iter().any(|gate| gate.before == GatePoint::CreateMachine);
    server.status.is_none() && !must_retire(server) && server.spec.force.is_none() && !gated
}

fn work(server: &Server, holder: &str, now: Timestamp) -> Step {
    let lock = server.status.as_ref().and_then(|s| s.lock.as_ref());
    let locked = lock.filter(|lock| lock.holder != holder && !lock_expired(lock, now));
    let Some(task) = open_tasks(server, Executor::ReplicasetController).min_by_key(|task| task.id) else {
        return Step::Rest;
    };
    let free_at = locked.and_then(|lock| {
        // One second more, because expiry is judged in whole seconds.
        let seconds = i64::from(lock.duration_seconds) + 1;
        lock.renewed_at.0.checked_add(SignedDuration::from_secs(seconds)).ok()
    });
    let begin = not_before(task).into_iter().chain(free_at).max();
    match begin.filter(|at| *at > now) {
        Some(at) => Step::Wait(at),
        None => Step::Work(task.clone()),
    }
}
