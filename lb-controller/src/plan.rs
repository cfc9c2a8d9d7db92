//! What load balancers should show of a Server, and which report on a task is due. Pure.

use berth_core::{
    api::{self, Executor, Outcome, Server, ServerStatus, State, Task, TaskKind, Traffic, TrafficFact, TrafficPhase},
    lifecycle::HoldCause,
    protocol::{Fact, TaskResult},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{member::Registration, subsets::Belongs};

/// When a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportOrder {
    /// After the load balancers show what they should: the report says what is true.
    AfterTraffic,
    /// Before the load balancers change. ReleaseTraffic of a registered Server needs it: from its report on the Server counts as
    /// serving, so that it is drained before anything is done to its machine.
    BeforeTraffic,
}

/// A report that is due on a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficReport {
    /// The id of the task; none for one that only the decision makes which the report asks for.
    pub task: Option<i64>,
    /// The kind of the task.
    pub kind: TaskKind,
    /// What became of the task. A Running task is reported when draining begins.
    pub result: TaskResult,
    /// When the report is written.
    pub order: ReportOrder,
}

/// What to do about the traffic of a Server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficPlan {
    /// What load balancers should show; none when none should know the Server.
    pub desired: Option<Registration>,
    /// The report that is due.
    pub report: Option<TrafficReport>,
    /// When to reconcile the Server again although nothing changes.
    pub requeue_at: Option<Timestamp>,
    /// When draining may end, if no request is under way any more. Until then nobody needs to ask.
    pub idle_from: Option<Timestamp>,
    /// What traffic is held for, if the plan takes it away and a panic floor may withhold that.
    pub held_for: Option<HoldCause>,
}

/// What is known outside of the Server.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The time.
    pub now: Timestamp,
    /// Whether all load balancers of the Server say that no request is under way.
    pub is_idle: bool,
    /// The subsets that the Server is in.
    pub belongs: Belongs,
}

/// What to do about the traffic of a Server. While no task is open, load balancers should show what the fact promises; anything else
/// that they show is a fault to repair.
#[must_use]
pub fn plan(server: &Server, seen: Seen) -> TrafficPlan {
    let plan = plan_for_task(server, seen);
    TrafficPlan { held_for: held_for(server, plan.desired.as_ref()), ..plan }
}

/// What traffic is held for. None while it is not taken away, and where no panic floor may withhold that. Once the fact says
/// something else than `Serving`, the decision was made.
fn held_for(server: &Server, desired: Option<&Registration>) -> Option<HoldCause> {
    let fact = server.status.as_ref()?.traffic.as_ref()?;
    if fact.phase != TrafficPhase::Serving || desired?.phase == TrafficPhase::Serving {
        return None;
    }
    Some(server.hold_cause()).filter(|cause| *cause != HoldCause::Deliberate)
}

fn plan_for_task(server: &Server, seen: Seen) -> TrafficPlan {
    let Some(status) = &server.status else { return TrafficPlan::default() };
    let at_rest = TrafficPlan { desired: promised(server, seen.belongs), ..TrafficPlan::default() };
    let Some(task) = server.open_tasks(Executor::LbController).min_by_key(|task| task.step) else {
        return hold_before_decision(server, status, seen.belongs).unwrap_or(at_rest);
    };
    if let Some(begin) = task.earliest_begin().filter(|begin| *begin > seen.now) {
        return TrafficPlan { requeue_at: Some(begin), ..at_rest };
    }
    let planned = match task.kind {
        TaskKind::HoldTraffic => Some(hold(server, status, task, seen)),
        TaskKind::RegisterBackend => register(server, task, seen.belongs),
        TaskKind::ReleaseTraffic => release(server, task, seen),
        TaskKind::RemoveBackend => Some(remove(task, "no load balancer knows the Server")),
        _ => None,
    };
    planned.unwrap_or(at_rest)
}

/// What load balancers should show of a Server, whether or not they can: for load balancers that read the Server again.
#[must_use]
pub fn desired(server: &Server, now: Timestamp, belongs: Belongs) -> Option<Registration> {
    plan(server, Seen { now, is_idle: false, belongs }).desired
}

/// What the fact promises.
fn promised(server: &Server, belongs: Belongs) -> Option<Registration> {
    let phase = server.promised_traffic()?;
    registration(server, server.status.as_ref()?.traffic.as_ref()?, phase, belongs)
}

/// None while the fact names no address.
fn registration(server: &Server, fact: &TrafficFact, phase: TrafficPhase, belongs: Belongs) -> Option<Registration> {
    Some(Registration::new(phase, fact.address.clone()?, &fact.backends, server.spec.traffic.as_ref(), belongs))
}

/// Drains, then holds. A Server that retires is removed from load balancers in the same write, because it never comes back.
fn hold(server: &Server, status: &ServerStatus, task: &Task, seen: Seen) -> TrafficPlan {
    let Some(fact) = &status.traffic else {
        let result = TaskResult::succeeded("no load balancer knows the Server");
        return TrafficPlan { report: Some(after_traffic(task, result)), ..TrafficPlan::default() };
    };
    match drain(server, status, fact, task) {
        Drain::NotBegun { seconds } => {
            let result = TaskResult::new(Outcome::Running, format!("draining for {seconds} s"));
            with_phase(server, task, (fact, TrafficPhase::Draining), result, seen.belongs)
        }
        Drain::Until { end, idle_from } if end > seen.now && !(seen.is_idle && idle_from <= seen.now) => {
            let desired = registration(server, fact, TrafficPhase::Draining, seen.belongs);
            TrafficPlan { desired, requeue_at: Some(end), idle_from: Some(idle_from), ..TrafficPlan::default() }
        }
        _ if status.state == Some(State::Offline) => remove(task, "drained, and no load balancer knows the Server"),
        _ => {
            let result = TaskResult::succeeded("the Server receives no traffic");
            with_phase(server, task, (fact, TrafficPhase::Held), result, seen.belongs)
        }
    }
}

/// Drains a Server whose deletion was requested, or removes it if that takes no time, although the webhook has not decided on the deletion
/// yet. None if that is not to be done.
fn hold_before_decision(server: &Server, status: &ServerStatus, belongs: Belongs) -> Option<TrafficPlan> {
    let fact = status.traffic.as_ref().filter(|_| server.may_hold_before_decision())?;
    let (desired, shown) = if drain_of(server).seconds > 0 {
        let drains = TrafficFact { phase: TrafficPhase::Draining, ..fact.clone() };
        (registration(server, fact, TrafficPhase::Draining, belongs), Some(drains))
    } else {
        (None, None)
    };
    // Nothing but the fact is written: there is no task yet to report on.
    let result = TaskResult::new(Outcome::Running, "").with(Fact::Traffic(shown));
    let report = TrafficReport { task: None, kind: TaskKind::HoldTraffic, result, order: ReportOrder::AfterTraffic };
    Some(TrafficPlan { desired, report: Some(report), ..TrafficPlan::default() })
}

fn drain_of(server: &Server) -> api::Drain {
    server.spec.traffic.as_ref().and_then(|traffic| traffic.drain).unwrap_or_default()
}

/// How far draining has come.
enum Drain {
    /// It has not begun.
    NotBegun { seconds: i32 },
    /// It has begun.
    Until {
        /// When it ends.
        end: Timestamp,
        /// From when on it ends if no request is under way.
        idle_from: Timestamp,
    },
    /// There is nothing to wait for.
    NotNeeded,
}

/// The connections of a machine that is out of reach are not waited for.
fn drain(server: &Server, status: &ServerStatus, fact: &TrafficFact, task: &Task) -> Drain {
    let api::Drain { seconds, min_seconds } = drain_of(server);
    if status.state == Some(State::Unknown) || fact.phase == TrafficPhase::Held || seconds <= 0 {
        return Drain::NotNeeded;
    }
    match (fact.phase, &task.started_at) {
        (TrafficPhase::Draining, Some(started)) => {
            let after = |seconds: i32| started.0.saturating_add(SignedDuration::from_secs(i64::from(seconds)));
            let (Ok(end), Ok(idle_from)) = (after(seconds), after(min_seconds)) else { return Drain::NotNeeded };
            Drain::Until { end, idle_from }
        }
        _ => Drain::NotBegun { seconds },
    }
}

/// None while the machine has no address yet.
fn register(server: &Server, task: &Task, belongs: Belongs) -> Option<TrafficPlan> {
    let Some(traffic) = server.declared_traffic() else {
        return Some(remove(task, "the Server declares no load balancer"));
    };
    let fact = declared_fact(traffic, server.address()?, TrafficPhase::Held);
    let result = TaskResult::succeeded("registered, without traffic");
    Some(with_phase(server, task, (&fact, TrafficPhase::Held), result, belongs))
}

/// None while the Server is not Ready: then the task is about to be cancelled.
///
/// A Server that the load balancers do not know as declared is registered first, without traffic.
///
/// The webhook accepts the report only while no lock is held. The holder may have crashed, and nothing changes when its lock
/// expires, so the end of the lock is waited for.
fn release(server: &Server, task: &Task, Seen { now, belongs, .. }: Seen) -> Option<TrafficPlan> {
    if server.state() != Some(State::Ready) {
        return None;
    }
    if let Some(lock) = server.status.as_ref().and_then(|status| status.lock.as_ref()).filter(|l| !l.is_expired(now)) {
        let after = lock.expires_at().checked_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX);
        let desired = promised(server, belongs);
        return Some(TrafficPlan { desired, requeue_at: Some(after), ..TrafficPlan::default() });
    }
    let traffic = server.declared_traffic()?;
    let fact = declared_fact(traffic, server.address()?, TrafficPhase::Serving);
    let known = server.status.as_ref().and_then(|status| status.traffic.as_ref());
    let is_known = known.is_some_and(|known| server.is_registered_as(traffic, known));
    let (desired, order) = if is_known {
        (promised(server, belongs), ReportOrder::BeforeTraffic)
    } else {
        // Registered in the same step. What a load balancer refuses is found before the Server counts as serving.
        (registration(server, &fact, TrafficPhase::Held, belongs), ReportOrder::AfterTraffic)
    };
    let result = TaskResult::succeeded("load balancers may send traffic").with(Fact::Traffic(Some(fact)));
    let report = TrafficReport { order, ..after_traffic(task, result) };
    Some(TrafficPlan { desired, report: Some(report), ..TrafficPlan::default() })
}

fn declared_fact(traffic: &Traffic, address: &str, phase: TrafficPhase) -> TrafficFact {
    TrafficFact { phase, backends: traffic.registered_backends(), address: Some(address.to_owned()) }
}

/// The Server is shown in this phase, and then that is reported as a fact.
fn with_phase(
    server: &Server,
    task: &Task,
    (fact, phase): (&TrafficFact, TrafficPhase),
    result: TaskResult,
    belongs: Belongs,
) -> TrafficPlan {
    let shown = TrafficFact { phase, ..fact.clone() };
    TrafficPlan {
        desired: registration(server, fact, phase, belongs),
        report: Some(after_traffic(task, result.with(Fact::Traffic(Some(shown))))),
        ..TrafficPlan::default()
    }
}

/// The Server is removed from all load balancers, and then that is reported as a fact.
fn remove(task: &Task, message: &str) -> TrafficPlan {
    let result = TaskResult::succeeded(message).with(Fact::Traffic(None));
    TrafficPlan { report: Some(after_traffic(task, result)), ..TrafficPlan::default() }
}

fn after_traffic(task: &Task, result: TaskResult) -> TrafficReport {
    TrafficReport { task: Some(task.id), kind: task.kind, result, order: ReportOrder::AfterTraffic }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
