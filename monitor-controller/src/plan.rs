//! Plans what to write about a Server: from its declaration and what the probes have found to facts and a report. Pure.

use berth_core::{
    api::{
        Executor, GatePoint, HealthCheck, HealthFact, HealthState, MonitoringFact, MonitoringPhase, Outcome,
        ReachabilityFact, Server, ServerStatus, State, Task, TaskKind, TaskPhase,
    },
    protocol::{Fact, TaskResult},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::{observation::Observation, sight::Belief, verdict::ReachabilityVerdict};

/// A failing health check is reported only after this long: most applications have started by then, and a start without
/// trouble costs no write.
const FIRST_FAILURE_REPORT_AFTER: SignedDuration = SignedDuration::from_secs(3);

/// The least time between two reports of a failing health check: its message may change with every probe, once a second.
const FAILURE_REPORT_INTERVAL: SignedDuration = SignedDuration::from_secs(30);

/// What one write has to say about a Server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DueWrite {
    /// New facts, besides those of the report.
    pub(crate) facts: Vec<Fact>,
    pub(crate) report: Option<DueReport>,
    /// If there is nothing to write now: when there may be, even if the probes find nothing new.
    pub(crate) requeue_at: Option<Timestamp>,
}

impl DueWrite {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.report.is_none()
    }

    /// Adds the fact, unless it may come from blindness. A fact that is not believed is due when this process sees again, or
    /// when others confirm it: then the Server is reconciled.
    fn add_if_believed(&mut self, belief: Belief, fact: Fact) {
        match belief {
            Belief::True => self.facts.push(fact),
            Belief::Wait(until) => self.requeue_at = self.requeue_at.into_iter().chain([until]).min(),
            Belief::Doubtful => {}
        }
    }
}

/// A report on a task, with the facts that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DueReport {
    pub(crate) task_id: i64,
    pub(crate) kind: TaskKind,
    pub(crate) result: TaskResult,
}

/// How far a task is.
enum TaskProgress {
    /// There is something to report.
    Report(TaskResult),
    /// There is nothing to report before this time, unless the probes find something new.
    Wait(Option<Timestamp>),
}

/// What is to be written about the Server now. A write carries one report, so more may be due after it.
pub(crate) fn plan(server: &Server, observation: &Observation, now: Timestamp) -> DueWrite {
    let Some(status) = &server.status else { return DueWrite::default() };
    let mut due = DueWrite::default();
    let loss = |fact: &ReachabilityFact| if fact.reachable { Belief::True } else { observation.belief_in_loss() };
    if let Some(fact) = reachability_fact(server, status, &observation.reachability) {
        due.add_if_believed(loss(&fact), Fact::Reachability(fact));
    }
    let sickness = |fact: &HealthFact| {
        if fact.state == HealthState::Healthy { Belief::True } else { observation.belief_in_sickness() }
    };
    if let Some(fact) = health_fact(server, status, observation) {
        due.add_if_believed(sickness(&fact), Fact::Health(fact));
    }
    for task in server.open_tasks(Executor::MonitorController) {
        match task_progress(server, status, task, observation, now) {
            TaskProgress::Report(result) => {
                due.report = Some(DueReport { task_id: task.id, kind: task.kind, result });
                break;
            }
            TaskProgress::Wait(at) => due.requeue_at = due.requeue_at.into_iter().chain(at).min(),
        }
    }
    due
}

/// The fact about reachability, when it changes. Without a fact a machine counts as reachable, so the first fact is written
/// only when it is not. A retired Server's machine is about to be destroyed: whether it answers no longer matters.
fn reachability_fact(
    server: &Server,
    status: &ServerStatus,
    verdict: &ReachabilityVerdict,
) -> Option<ReachabilityFact> {
    if status.state == Some(State::Offline) {
        return None;
    }
    let known = status.reachability.as_ref();
    match verdict {
        ReachabilityVerdict::Undecided => None,
        ReachabilityVerdict::Reachable { since } => known.filter(|fact| !fact.reachable).map(|_| ReachabilityFact {
            reachable: true,
            since: whole_seconds(*since),
            observed_at: whole_seconds(*since),
            message: String::new(),
        }),
        ReachabilityVerdict::Unreachable { since, observed_at, message } => {
            (!known.is_some_and(|fact| proves_unreachable(server, fact))).then(|| ReachabilityFact {
                reachable: false,
                since: whole_seconds(*since),
                observed_at: whole_seconds(*observed_at),
                message: message.clone(),
            })
        }
    }
}

/// Whether the fact meets the threshold that is declared now.
fn proves_unreachable(server: &Server, fact: &ReachabilityFact) -> bool {
    let threshold = i64::from(server.spec.reachability.unreachable_after_seconds);
    !fact.reachable && fact.observed_at.0.as_second() - fact.since.0.as_second() >= threshold
}

/// The fact about health, when it changes: a proof of health when one is wanted, and the loss of health that was proven. In
/// states in which the application may be down anyway, that is no news.
fn health_fact(server: &Server, status: &ServerStatus, observation: &Observation) -> Option<HealthFact> {
    let verdict = observation.health?;
    // Health counts in its epoch only. A Server that has never had a machine has no epoch.
    let epoch = status.epoch?;
    let known = status.health.as_ref().filter(|fact| fact.epoch == epoch).map(|fact| fact.state);
    let is_news = match verdict.state {
        HealthState::Healthy => known != Some(HealthState::Healthy) && server.wants_health_proof(),
        HealthState::Unhealthy => {
            known == Some(HealthState::Healthy)
                && matches!(status.state, Some(State::Ready | State::Deploying | State::Initializing))
        }
    };
    let message = failure_message(observation).to_owned();
    is_news.then(|| HealthFact { state: verdict.state, epoch, since: whole_seconds(verdict.since), message })
}

/// The message of the latest health probe; empty if it succeeded.
fn failure_message(observation: &Observation) -> &str {
    observation.health_results.as_ref().map_or("", |results| &results.message)
}

fn task_progress(
    server: &Server,
    status: &ServerStatus,
    task: &Task,
    observation: &Observation,
    now: Timestamp,
) -> TaskProgress {
    if let Some(begin) = task.earliest_begin().filter(|begin| *begin > now) {
        return TaskProgress::Wait(Some(begin));
    }
    let result = match task.kind {
        TaskKind::CheckHealth => return check_health(server, status, task, observation, now),
        TaskKind::AwaitRecovery => await_recovery(observation),
        TaskKind::BindMonitoring => bind_monitoring(server),
        TaskKind::PauseMonitoring => Some(pause_monitoring(status)),
        TaskKind::UnbindMonitoring => {
            Some(TaskResult::succeeded("it is no longer a monitoring target").with(Fact::Monitoring(None)))
        }
        _ => None,
    };
    result.map_or(TaskProgress::Wait(None), TaskProgress::Report)
}

fn check_health(
    server: &Server,
    status: &ServerStatus,
    task: &Task,
    observation: &Observation,
    now: Timestamp,
) -> TaskProgress {
    let Some(check) = &server.spec.health_check else { return TaskProgress::Wait(None) };
    if observation.health.is_some_and(|verdict| verdict.state == HealthState::Healthy) {
        let result = TaskResult::succeeded("healthy");
        return TaskProgress::Report(match monitoring_after_proof(server, status) {
            Some(fact) => result.with(Fact::Monitoring(Some(fact))),
            None => result,
        });
    }
    match observation.belief_in_sickness() {
        Belief::True if !observation.health_is_forgotten => {}
        Belief::Wait(until) => return TaskProgress::Wait(Some(until)),
        Belief::True | Belief::Doubtful => return TaskProgress::Wait(None),
    }
    let deadline = health_deadline(task, check);
    if deadline.is_some_and(|deadline| deadline <= now) {
        let message = format!("not healthy within {} s: {}", check.deadline_seconds, failure_message(observation));
        return TaskProgress::Report(TaskResult::failed(message));
    }
    match failure_report_at(task, observation, now) {
        Some(at) if at <= now => TaskProgress::Report(TaskResult::new(Outcome::Running, failure_message(observation))),
        at => TaskProgress::Wait(deadline.into_iter().chain(at).min()),
    }
}

/// When the attempt at the CheckHealth task has failed. None before the first report on it, which begins the attempt.
fn health_deadline(task: &Task, check: &HealthCheck) -> Option<Timestamp> {
    let started = task.started_at.as_ref().filter(|_| task.phase == TaskPhase::Running)?;
    Some(later(started.0, SignedDuration::from_secs(i64::from(check.deadline_seconds))))
}

/// When to report that the health check fails, and how. None if it does not fail, or the task says so already.
fn failure_report_at(task: &Task, observation: &Observation, now: Timestamp) -> Option<Timestamp> {
    let failures = observation.health_results.as_ref().filter(|results| !results.success)?;
    match (task.phase, observation.failure_reported_at) {
        (TaskPhase::Pending, _) => Some(later(failures.since, FIRST_FAILURE_REPORT_AFTER)),
        _ if task.message == failures.message => None,
        (_, Some(reported)) => Some(later(reported, FAILURE_REPORT_INTERVAL)),
        (_, None) => Some(now),
    }
}

/// The new fact about monitoring that the proof of health brings: to bind monitoring is the first task of a Ready Server, and
/// this way it costs no write of its own. None if a person has to agree to the traffic first.
fn monitoring_after_proof(server: &Server, status: &ServerStatus) -> Option<MonitoringFact> {
    let is_gated = server.spec.gates.iter().any(|gate| gate.before == GatePoint::ReleaseTraffic);
    bound_monitoring(server).filter(|fact| !is_gated && status.monitoring.as_ref() != Some(fact))
}

/// The fact that monitoring is bound as declared; none if no monitoring is declared.
fn bound_monitoring(server: &Server) -> Option<MonitoringFact> {
    server.monitoring_digest().map(|digest| MonitoringFact { phase: MonitoringPhase::Bound, digest })
}

fn await_recovery(observation: &Observation) -> Option<TaskResult> {
    let is_reachable = matches!(observation.reachability, ReachabilityVerdict::Reachable { .. });
    is_reachable.then(|| TaskResult::succeeded("the machine can be reached again"))
}

fn bind_monitoring(server: &Server) -> Option<TaskResult> {
    let fact = bound_monitoring(server)?;
    Some(TaskResult::succeeded("it is a monitoring target").with(Fact::Monitoring(Some(fact))))
}

fn pause_monitoring(status: &ServerStatus) -> TaskResult {
    let paused = status.monitoring.clone().map(|fact| MonitoringFact { phase: MonitoringPhase::Paused, ..fact });
    TaskResult::succeeded("its monitoring target is marked as paused").with(Fact::Monitoring(paused))
}

fn later(start: Timestamp, after: SignedDuration) -> Timestamp {
    start.checked_add(after).unwrap_or(Timestamp::MAX)
}

/// The API stores whole seconds.
fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
