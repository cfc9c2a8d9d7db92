//! The probes of one Server: one of its machine, one of its application. No I/O.

use std::{mem, time::Duration};

use berth_core::api::{Executor, HealthCheck, HealthState, MachinePhase, Server, State, Task, TaskKind};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;

use crate::{
    known_facts::{FactNews, KnownFacts},
    observation::Observation,
    probe::{ProbeResult, ProbeTarget, seconds},
    probe_id::ProbeKind,
    probe_state::{ProbeState, ScheduleChange, URGENT_PERIOD},
    sight::Trust,
    survey::{Look, Target},
    verdict::{ReachabilityVerdict, reachability_verdict, unreachable_at},
};

/// How long after the threshold of unreachability the probe comes that is to prove it: a timer may fire a little early.
const THRESHOLD_MARGIN: Duration = Duration::from_millis(20);

/// What a reconcile acts on. Times are left out, because they change with every probe.
#[derive(PartialEq, Eq)]
struct Actionable {
    reachability: mem::Discriminant<ReachabilityVerdict>,
    health: Option<HealthState>,
    /// The message of a failing health check.
    message: Option<String>,
    /// Whether the machine was looked at since the health check began to fail.
    is_machine_looked_at: bool,
}

/// The probes of one Server.
#[derive(Debug)]
pub(crate) struct ServerProbes {
    server: ObjectRef<Server>,
    reachability: ProbeState,
    health: ProbeState,
    unreachable_after_seconds: i32,
    health_check: Option<HealthCheck>,
    epoch: Option<i64>,
    /// The last CheckHealth task that was open.
    check_health_task: Option<i64>,
    failure_reported_at: Option<Timestamp>,
    health_is_forgotten: bool,
    /// Whether the machine ought to be reachable: it runs, and the last fact says so.
    is_target: bool,
    set: Option<String>,
    /// The facts as they were last seen; none before that.
    known_facts: Option<KnownFacts>,
}

impl ServerProbes {
    /// No probes yet: [`Self::update`] adds them.
    pub(crate) fn new(server: &Server) -> Self {
        Self {
            server: ObjectRef::from_obj(server),
            reachability: ProbeState::default(),
            health: ProbeState::default(),
            unreachable_after_seconds: 0,
            health_check: None,
            epoch: None,
            check_health_task: None,
            failure_reported_at: None,
            health_is_forgotten: false,
            is_target: false,
            set: None,
            known_facts: None,
        }
    }

    pub(crate) fn server(&self) -> &ObjectRef<Server> {
        &self.server
    }

    /// The state of the probe of this kind.
    pub(crate) fn state(&self, kind: ProbeKind) -> &ProbeState {
        match kind {
            ProbeKind::Reachability => &self.reachability,
            ProbeKind::Health => &self.health,
        }
    }

    /// Whether nothing is probed.
    pub(crate) fn is_idle(&self) -> bool {
        self.reachability.is_idle() && self.health.is_idle()
    }

    /// Probes the Server as it is now. Returns the probes whose schedule changes.
    pub(crate) fn update(&mut self, server: &Server) -> Vec<(ProbeKind, ScheduleChange)> {
        let exists = server.machine().is_some_and(|machine| machine.phase != MachinePhase::Gone);
        self.set = server.owner().map(|owner| owner.name.clone());
        self.unreachable_after_seconds = server.spec.reachability.unreachable_after_seconds;
        let machine = ProbeTarget::machine(server).filter(|_| exists);
        self.is_target = machine.is_some() && ought_to_be_reachable(server);
        let machine_period = seconds(server.spec.reachability.period_seconds);
        let must_look = self.hear(server);
        let reset = self.must_prove_anew(server);
        if reset {
            self.failure_reported_at = None;
            self.health_is_forgotten = false;
        }
        let application = ProbeTarget::application(server).filter(|_| exists);
        let mut look = self.reachability.retarget(machine, machine_period, must_look);
        if let Some(ScheduleChange::Start { at_once, .. }) = &mut look {
            *at_once |= must_look;
        }
        let changes = [
            (ProbeKind::Reachability, look),
            (ProbeKind::Health, self.health.retarget(application, health_period(server), reset)),
        ];
        changes.into_iter().filter_map(|(kind, change)| Some((kind, change?))).collect()
    }

    /// Notices where other copies contradict this one. A copy that sees the machine looks again before it says so: what it has seen
    /// before the other one lost it proves nothing. Returns whether it has to look.
    fn hear(&mut self, server: &Server) -> bool {
        let now = server.status.as_ref().map(KnownFacts::of).unwrap_or_default();
        let news = self.known_facts.as_ref().map_or_else(FactNews::default, |known| known.news(&now));
        self.known_facts = Some(now);
        let history = &mut self.reachability.history;
        let verdict = reachability_verdict(history, self.unreachable_after_seconds);
        if news.reachable == Some(true) && matches!(verdict, ReachabilityVerdict::Unreachable { .. }) {
            history.contradict();
        }
        if news.health == Some(HealthState::Healthy) && self.health.history.was_unhealthy() {
            self.health.history.contradict();
        }
        news.reachable == Some(false) && matches!(verdict, ReachabilityVerdict::Reachable { .. })
    }

    /// Whether the results of the health probe so far no longer count: the health check or the epoch is another one, or
    /// a CheckHealth task has opened, which asks for a proof from now on.
    fn must_prove_anew(&mut self, server: &Server) -> bool {
        let epoch = server.status.as_ref().and_then(|status| status.epoch);
        let open_task = open_check_health(server).map(|task| task.id);
        let has_opened = open_task.is_some() && open_task != self.check_health_task;
        let anew = has_opened || self.epoch != epoch || self.health_check != server.spec.health_check;
        self.epoch = epoch;
        self.health_check.clone_from(&server.spec.health_check);
        self.check_health_task = open_task.or(self.check_health_task);
        anew
    }

    /// How the machine looks, if it ought to be reachable.
    pub(crate) fn look(&self) -> Option<Look> {
        let history = &self.reachability.history;
        let failures = history.latest().filter(|results| !results.success);
        let is_unreachable = || unreachable_at(history, self.unreachable_after_seconds).is_none();
        self.is_target.then(|| Look {
            round: self.reachability.round(),
            is_lost: failures.is_some(),
            is_unreachable: failures.is_some() && is_unreachable(),
        })
    }

    /// The same, with the names that a question needs.
    pub(crate) fn as_target(&self, uid: &str) -> Option<Target> {
        let look = self.look()?;
        Some(Target {
            namespace: self.server.namespace.clone().unwrap_or_default(),
            name: self.server.name.clone(),
            uid: uid.to_owned(),
            set: self.set.clone(),
            look,
        })
    }

    /// Whether the latest probe reached the machine; none if there is no result.
    pub(crate) fn reaches_machine(&self) -> Option<bool> {
        self.reachability.history.latest().map(|results| results.success)
    }

    /// Whether the machine has to be looked at now, because the health check has begun to fail since it was looked at.
    pub(crate) fn must_look_at_machine(&self) -> bool {
        let failures = self.health.history.latest().filter(|results| !results.success && results.count == 1);
        let looked_at = self.reachability.history.latest().map(|results| results.last);
        !self.reachability.is_idle() && failures.is_some_and(|results| looked_at.is_none_or(|at| at < results.since))
    }

    /// The probe of the machine; none while it is not known where it is.
    pub(crate) fn machine_probe(&self) -> Option<ProbeTarget> {
        self.reachability.target().map(|(target, _)| target)
    }

    /// The period of the probe of the machine.
    pub(crate) fn machine_period(&self) -> Duration {
        self.reachability.period()
    }

    /// Forgets the failures of a machine that was out of sight, and of its application.
    pub(crate) fn forget_failures(&mut self) {
        if self.reaches_machine() == Some(false) {
            self.reachability.history.forget_failures();
            self.forget_sickness();
        }
    }

    /// Forgets the failures of the health check.
    fn forget_sickness(&mut self) {
        if self.health.history.latest().is_some_and(|results| !results.success) {
            self.health.history.forget_failures();
            self.health_is_forgotten = true;
        }
    }

    /// Records the result of a probe, while this process may be blind or not. Returns whether there is something new to act on.
    pub(crate) fn record(&mut self, kind: ProbeKind, result: &ProbeResult, now: Timestamp, in_doubt: bool) -> bool {
        let before = self.actionable();
        match kind {
            ProbeKind::Reachability => {
                let is_back = self.reaches_machine() == Some(false) && *result == ProbeResult::Success;
                self.reachability.history.record(result, now);
                // What the health check has found while the machine was out of sight proves nothing.
                if is_back && in_doubt {
                    self.forget_sickness();
                }
            }
            ProbeKind::Health => {
                self.health_is_forgotten = false;
                self.health.history.record(result, now);
            }
        }
        self.actionable() != before
    }

    /// What a reconcile acts on.
    fn actionable(&mut self) -> Actionable {
        let observation = self.observation(Trust::Full);
        let failing_since = observation.health_results.as_ref().filter(|results| !results.success).map(|r| r.since);
        let looked_at = observation.machine_results.as_ref().map(|results| results.last);
        Actionable {
            reachability: mem::discriminant(&observation.reachability),
            health: observation.health.map(|verdict| verdict.state),
            message: observation.health_results.map(|results| results.message),
            is_machine_looked_at: failing_since.is_none_or(|since| looked_at >= Some(since)),
        }
    }

    /// What the probes have found so far.
    pub(crate) fn observation(&mut self, trust: Trust) -> Observation {
        let check = self.health_check.as_ref();
        Observation {
            reachability: reachability_verdict(&self.reachability.history, self.unreachable_after_seconds),
            machine_results: self.reachability.history.latest().cloned(),
            health: check.and_then(|check| self.health.history.health_verdict(check)),
            health_results: self.health.history.latest().cloned(),
            failure_reported_at: self.failure_reported_at,
            health_is_forgotten: self.health_is_forgotten,
            // A machine that is not probed says nothing about blindness.
            trust: if self.reachability.is_idle() { Trust::Full } else { trust },
        }
    }

    /// Remembers when a failing health check was last reported.
    pub(crate) fn failure_reported(&mut self, now: Timestamp) {
        self.failure_reported_at = Some(now);
    }

    /// How soon the next probe has to come, whatever its period: a failed probe proves that the machine is unreachable only
    /// if it comes after the threshold.
    pub(crate) fn next_probe_within(&self, kind: ProbeKind, now: Timestamp) -> Option<Duration> {
        if kind != ProbeKind::Reachability {
            return None;
        }
        let at = unreachable_at(&self.reachability.history, self.unreachable_after_seconds)?;
        Some(Duration::try_from(at.duration_since(now)).unwrap_or_default() + THRESHOLD_MARGIN)
    }
}

/// Whether the Server's machine ought to be reachable: it runs, nobody takes it away, and no fact says that it is not.
fn ought_to_be_reachable(server: &Server) -> bool {
    let Some(status) = &server.status else { return false };
    let runs = status.machine.as_ref().is_some_and(|machine| machine.phase == MachinePhase::Running);
    let is_known_lost = status.reachability.as_ref().is_some_and(|fact| !fact.reachable);
    runs && !is_known_lost && status.state != Some(State::Offline)
}

fn health_period(server: &Server) -> Duration {
    let declared = server.spec.health_check.as_ref().map_or(URGENT_PERIOD, |check| seconds(check.period_seconds));
    if open_check_health(server).is_some() { declared.min(URGENT_PERIOD) } else { declared }
}

/// The CheckHealth task that asks for a proof of health now.
fn open_check_health(server: &Server) -> Option<&Task> {
    server.open_tasks(Executor::MonitorController).find(|task| task.kind == TaskKind::CheckHealth)
}

#[cfg(test)]
#[path = "server_probes_tests.rs"]
mod tests;
