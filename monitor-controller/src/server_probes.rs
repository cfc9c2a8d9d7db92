//! The probes of one Server: one of its machine, one of its application. No I/O.

use std::{mem, time::Duration};

use berth_core::api::{Executor, HealthCheck, HealthState, MachinePhase, Server, Task, TaskKind};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;

use crate::{
    observation::Observation,
    probe::{ProbeResult, ProbeTarget, seconds},
    probe_id::ProbeKind,
    probe_state::{ProbeState, ScheduleChange, URGENT_PERIOD},
    verdict::{ReachabilityVerdict, reachability_verdict, unreachable_at},
};

/// How long after the threshold of unreachability the probe comes that is to prove it: a timer may fire a little early.
const THRESHOLD_MARGIN: Duration = Duration::from_millis(20);

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
        self.unreachable_after_seconds = server.spec.reachability.unreachable_after_seconds;
        let machine = ProbeTarget::machine(server).filter(|_| exists);
        let machine_period = seconds(server.spec.reachability.period_seconds);
        let reset = self.must_prove_anew(server);
        if reset {
            self.failure_reported_at = None;
        }
        let application = ProbeTarget::application(server).filter(|_| exists);
        let changes = [
            (ProbeKind::Reachability, self.reachability.retarget(machine, machine_period, false)),
            (ProbeKind::Health, self.health.retarget(application, health_period(server), reset)),
        ];
        changes.into_iter().filter_map(|(kind, change)| Some((kind, change?))).collect()
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

    /// Records the result of a probe. Returns whether there is something new to act on.
    pub(crate) fn record(&mut self, kind: ProbeKind, result: &ProbeResult, now: Timestamp) -> bool {
        let before = self.actionable();
        match kind {
            ProbeKind::Reachability => self.reachability.history.record(result, now),
            ProbeKind::Health => self.health.history.record(result, now),
        }
        self.actionable() != before
    }

    /// What a reconcile acts on: the verdicts and the message of failing health checks. Times are left out, because they
    /// change with every probe.
    fn actionable(&mut self) -> (mem::Discriminant<ReachabilityVerdict>, Option<HealthState>, Option<String>) {
        let observation = self.observation();
        let message = observation.health_results.map(|results| results.message);
        (mem::discriminant(&observation.reachability), observation.health.map(|verdict| verdict.state), message)
    }

    /// What the probes have found so far.
    pub(crate) fn observation(&mut self) -> Observation {
        let check = self.health_check.as_ref();
        Observation {
            reachability: reachability_verdict(&self.reachability.history, self.unreachable_after_seconds),
            health: check.and_then(|check| self.health.history.health_verdict(check)),
            health_results: self.health.history.latest().cloned(),
            failure_reported_at: self.failure_reported_at,
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
