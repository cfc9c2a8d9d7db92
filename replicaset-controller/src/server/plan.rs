//! What replicaset-controller does next about one Server. Pure.

use berth_core::{
    FINALIZER,
    api::{Approval, Executor, Server, Task},
    approvals::{GateSettlement, may_be_settled_by_set, settlement},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The id of a Server's first task.
pub(super) const FIRST_TASK: i64 = 1;

/// lb-controller sees a deletion within a second, but after many at once it has as many Servers to drain. Without it, people wait for
/// this long until the Server says what it waits for.
const DRAIN_BEGINS_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// What to do next about a Server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NextAction {
    /// The Server is retired: delete its object.
    DeleteObject,
    /// The Server is retired and its deletion was requested: remove Berth's finalizer.
    RemoveFinalizer,
    /// Claim the first task of a new Server by the write that asks for the first decision, which creates the task.
    ClaimFirstTask,
    /// Ask for a decision on the newest declaration.
    Acknowledge,
    /// Report what a person has decided about a gate.
    SettleGate(GateSettlement),
    /// Approvals of the Server's set may settle a gate: read the set.
    ReadSet,
    /// Carry out this task.
    RunTask(Task),
    /// Nothing before this time, unless the Server changes.
    RequeueAt(Timestamp),
    /// Nothing until the Server changes.
    AwaitChange,
}

impl NextAction {
    /// Whether it is one short write.
    pub(super) fn is_write(&self) -> bool {
        match self {
            Self::DeleteObject | Self::RemoveFinalizer | Self::Acknowledge | Self::SettleGate(_) | Self::ReadSet => {
                true
            }
            Self::ClaimFirstTask | Self::RunTask(_) | Self::RequeueAt(_) | Self::AwaitChange => false,
        }
    }
}

/// What this controller instance knows besides the Server.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThisInstance<'a> {
    /// The holder of its locks: `<executor>/<instance>`.
    pub(super) holder: &'a str,
    /// Whether it carries out a task of the Server now.
    pub(super) runs_task: bool,
}

/// What to do next.
pub(super) fn next_action<'a>(
    server: &Server,
    approvals: &(impl Iterator<Item = &'a Approval> + Clone),
    instance: ThisInstance<'_>,
    now: Timestamp,
) -> NextAction {
    if server.is_done() {
        return end(server);
    }
    if server.may_hold_before_decision()
        && let Some(at) = drain_is_late(server).filter(|at| *at > now)
    {
        return NextAction::RequeueAt(at);
    }
    // The report of a running task acknowledges the declaration as well; only a retirement does not wait for it.
    if server.needs_decision() && (!instance.runs_task || server.must_retire()) {
        return if server.may_begin() { NextAction::ClaimFirstTask } else { NextAction::Acknowledge };
    }
    if let Some(settled) = settlement(server, approvals, now) {
        return NextAction::SettleGate(settled);
    }
    let task = if instance.runs_task { NextAction::AwaitChange } else { next_task(server, instance.holder, now) };
    match task {
        NextAction::AwaitChange if may_be_settled_by_set(server, approvals, now) => NextAction::ReadSet,
        action => action,
    }
}

/// When lb-controller should have begun to drain a Server whose deletion was requested, which asks for the decision on that.
fn drain_is_late(server: &Server) -> Option<Timestamp> {
    let requested = server.metadata.deletion_timestamp.as_ref()?;
    requested.0.checked_add(DRAIN_BEGINS_WITHIN).ok()
}

/// What to do about a Server of which only the object is left.
fn end(server: &Server) -> NextAction {
    let has_finalizer = server.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    match (server.is_being_deleted(), has_finalizer) {
        (false, _) => NextAction::DeleteObject,
        (true, true) => NextAction::RemoveFinalizer,
        (true, false) => NextAction::AwaitChange,
    }
}

fn next_task(server: &Server, holder: &str, now: Timestamp) -> NextAction {
    let Some(task) = server.open_tasks(Executor::ReplicasetController).min_by_key(|task| task.id) else {
        return NextAction::AwaitChange;
    };
    match task.earliest_begin().max(locked_until(server, holder, now)).filter(|at| *at > now) {
        Some(at) => NextAction::RequeueAt(at),
        None => NextAction::RunTask(task.clone()),
    }
}

/// When the lock of another holder has expired for certain.
fn locked_until(server: &Server, holder: &str, now: Timestamp) -> Option<Timestamp> {
    let lock = server.lock().filter(|lock| lock.holder != holder && !lock.is_expired(now))?;
    // One second more, because the API's times are whole seconds.
    lock.expires_at().checked_add(SignedDuration::from_secs(1)).ok()
}
