//! Which facts and reports are due. Pure.

use berth_core::{
    api::{
        Executor, GatePoint, HealthCheck, HealthFact, HealthState, MonitoringFact, MonitoringPhase, Outcome,
        ReachabilityFact, Server, ServerStatus, State, Task, TaskKind, TaskPhase,
    },
    lifecycle,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::verdict::{Reach, Streak};

/// Failures are reported on a CheckHealth task when they last this long: an application that is only starting costs
/// no write.
const PATIENCE: SignedDuration = SignedDuration::from_secs(3);
/// A new message of a failing check is written at most this often.
const NEWS: SignedDuration = SignedDuration::from_secs(30);

/// What the probes have found of a Server, as it is declared now and in the epoch that it is in.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Whether the machine can be reached.
    pub reach: Reach,
    /// The verdict on health, and since when it holds.
    pub health: Option<(HealthState, Timestamp)>,
    /// The health probe's last findings.
    pub streak: Option<Streak>,
    /// When news of a failing check was last reported.
    pub reported: Option<Timestamp>,
}

impl Default for Observed {
    fn default() -> Self {
        Self { reach: Reach::Undecided, health: None, streak: None, reported: None }
    }
}

/// A report on a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The task.
    pub task: i64,
    /// Its kind.
    pub kind: TaskKind,
    /// What becomes of it.
    pub outcome: Outcome,
    /// In words.
    pub message: String,
}

/// What one write is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The new fact about reachability.
    pub reachability: Option<ReachabilityFact>,
    /// The new fact about health.
    pub health: Option<HealthFact>,
    /// The new fact about monitoring; the inner `None` removes it.
    pub monitoring: Option<Option<MonitoringFact>>,
    /// The report.
    pub note: Option<Note>,
    /// When to look again though no probe brings news.
    pub again: Option<Timestamp>,
}

impl Due {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reachability.is_none() && self.health.is_none() && self.monitoring.is_none() && self.note.is_none()
    }
}

/// What is to be written about the Server. One write carries one report, so more may be due after it.
#[must_use]
pub fn due(server: &Server, seen: &Observed, now: Timestamp) -> Due {
    let Some(status) = &server.status else { return Due::default() };
    let mut due = Due {
        reachability: reachability(server, status, &seen.reach),
        health: health(server, status, seen),
        ..Due::default()
    };
    for task in lifecycle::open_tasks(server, Executor::MonitorController) {
        if let Some(begin) = lifecycle::not_before(task).filter(|begin| *begin > now) {
            sooner(&mut due.again, begin);
        } else if due.note.is_none() {
            report(server, status, task, seen, now, &mut due);
        }
    }
    if due.monitoring.is_none() && due.note.as_ref().is_some_and(makes_ready) {
        due.monitoring = bound_early(server, status).map(Some);
    }
    due
}

fn makes_ready(note: &Note) -> bool {
    note.kind == TaskKind::CheckHealth && note.outcome == Outcome::Succeeded
}

/// What the proof of health says about monitoring, too, if that is news: the first thing that is to be done about the Server
/// once it is Ready costs no write of its own then. Nothing while a person has to agree first.
fn bound_early(server: &Server, status: &ServerStatus) -> Option<MonitoringFact> {
    let is_gated = server.spec.gates.iter().any(|gate| gate.before == GatePoint::ReleaseTraffic);
    bound(server).filter(|fact| !is_gated && status.monitoring.as_ref() != Some(fact))
}

fn bound(server: &Server) -> Option<MonitoringFact> {
    lifecycle::monitoring_digest(server).map(|digest| MonitoringFact { phase: MonitoringPhase::Bound, digest })
}

/// Whether the health of the Server is waited for: then it is probed every second.
#[must_use]
pub fn is_urgent(server: &Server) -> bool {
    lifecycle::open_tasks(server, Executor::MonitorController).any(|task| task.kind == TaskKind::CheckHealth)
}

/// Written when it changes. Without a fact a machine counts as reachable, so the first one is written only when it is
/// not. A retired Server's machine is about to go: whether it answers is no news.
fn reachability(server: &Server, status: &ServerStatus, reach: &Reach) -> Option<ReachabilityFact> {
    if status.state == Some(State::Offline) {
        return None;
    }
    let fact = status.reachability.as_ref();
    match reach {
        Reach::Undecided => None,
        Reach::Reachable(since) => fact.filter(|fact| !fact.reachable).map(|_| ReachabilityFact {
            reachable: true,
            since: whole(*since),
            observed_at: whole(*since),
            message: String::new(),
        }),
        Reach::Unreachable { since, observed, message } => {
            let threshold = i64::from(server.spec.reachability.unreachable_after_seconds);
            let said =
                fact.is_some_and(|f| !f.reachable && f.observed_at.0.as_second() - f.since.0.as_second() >= threshold);
            (!said).then(|| ReachabilityFact {
                reachable: false,
                since: whole(*since),
                observed_at: whole(*observed),
                message: message.clone(),
            })
        }
    }
}

fn health(server: &Server, status: &ServerStatus, seen: &Observed) -> Option<HealthFact> {
    let (state, since) = seen.health?;
    // Health counts in an epoch only, and a Server that never had a machine has none.
    let epoch = status.epoch?;
    let known = status.health.as_ref().filter(|fact| fact.epoch == epoch).map(|fact| fact.state);
    let news = match state {
        HealthState::Healthy => known != Some(HealthState::Healthy) && is_proof_wanted(server, status),
        HealthState::Unhealthy => {
            known == Some(HealthState::Healthy)
                && matches!(status.state, Some(State::Ready | State::Deploying | State::Initializing))
        }
    };
    let message = seen.streak.as_ref().map(|streak| streak.message.clone()).unwrap_or_default();
    news.then(|| HealthFact { state, epoch, since: whole(since), message })
}

/// Health is proven when it is asked for, not before: what answers until then may be the code that is about to go. A
/// check that failed is still wanted, and so is the proof for a Server that a person declared Ready without one.
fn is_proof_wanted(server: &Server, status: &ServerStatus) -> bool {
    status.state == Some(State::Ready)
        || lifecycle::current_tasks(status).any(|task| {
            task.kind == TaskKind::CheckHealth && (task.phase == TaskPhase::Failed || lifecycle::is_open(server, task))
        })
}

fn report(server: &Server, status: &ServerStatus, task: &Task, seen: &Observed, now: Timestamp, due: &mut Due) {
    match task.kind {
        TaskKind::CheckHealth => check_health(server, task, seen, now, due),
        TaskKind::AwaitRecovery => await_recovery(task, seen, due),
        TaskKind::BindMonitoring => {
            if let Some(fact) = bound(server) {
                due.monitoring = Some(Some(fact));
                due.note = Some(succeeded(task, "it is a monitoring target"));
            }
        }
        TaskKind::PauseMonitoring => {
            due.monitoring =
                Some(status.monitoring.clone().map(|fact| MonitoringFact { phase: MonitoringPhase::Paused, ..fact }));
            due.note = Some(succeeded(task, "its monitoring target is marked as paused"));
        }
        TaskKind::UnbindMonitoring => {
            due.monitoring = Some(None);
            due.note = Some(succeeded(task, "it is no monitoring target any more"));
        }
        _ => {}
    }
}

fn check_health(server: &Server, task: &Task, seen: &Observed, now: Timestamp, due: &mut Due) {
    let Some(check) = &server.spec.health_check else { return };
    if seen.health.is_some_and(|(state, _)| state == HealthState::Healthy) {
        due.note = Some(succeeded(task, "healthy"));
        return;
    }
    let message = seen.streak.as_ref().map(|streak| streak.message.as_str()).unwrap_or_default();
    match deadline(task, check) {
        Some(deadline) if deadline <= now => {
            let message = format!("not healthy within {} s: {message}", check.deadline_seconds);
            due.note = Some(note(task, Outcome::Failed, &message));
            return;
        }
        Some(deadline) => sooner(&mut due.again, deadline),
        None => {}
    }
    let Some(streak) = seen.streak.as_ref().filter(|streak| !streak.good) else { return };
    let begin = match (task.phase, seen.reported) {
        (TaskPhase::Pending, _) => at(streak.since, PATIENCE),
        _ if task.message == streak.message => return,
        (_, Some(reported)) => at(reported, NEWS),
        (_, None) => now,
    };
    if begin <= now {
        due.note = Some(note(task, Outcome::Running, message));
    } else {
        sooner(&mut due.again, begin);
    }
}

fn deadline(task: &Task, check: &HealthCheck) -> Option<Timestamp> {
    let started = task.started_at.as_ref().filter(|_| task.phase == TaskPhase::Running)?;
    Some(at(started.0, SignedDuration::from_secs(i64::from(check.deadline_seconds))))
}

fn await_recovery(task: &Task, seen: &Observed, due: &mut Due) {
    if let Reach::Reachable(_) = seen.reach {
        due.note = Some(succeeded(task, "the machine can be reached again"));
    }
}

fn succeeded(task: &Task, message: &str) -> Note {
    note(task, Outcome::Succeeded, message)
}

fn note(task: &Task, outcome: Outcome, message: &str) -> Note {
    Note { task: task.id, kind: task.kind, outcome, message: message.to_owned() }
}

fn at(start: Timestamp, after: SignedDuration) -> Timestamp {
    start.checked_add(after).unwrap_or(Timestamp::MAX)
}

fn sooner(again: &mut Option<Timestamp>, other: Timestamp) {
    *again = Some(again.map_or(other, |known| known.min(other)));
}

/// The API stores whole seconds.
fn whole(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
#[path = "facts_tests.rs"]
mod tests;
