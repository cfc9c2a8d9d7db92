//! What is probed of one Server, and what was found: a lane for its machine, one for its application. No I/O.

use std::time::Duration;

use berth_core::{
    api::{Executor, HealthCheck, MachinePhase, Server, TaskKind},
    lifecycle,
};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;

use crate::{
    facts::{self, Observed},
    metrics::Kind,
    probe::Aim,
    verdict::{Finding, Reach, Track, reachability},
};

/// Period of the health probe while somebody waits for health to be proven.
const URGENT: Duration = Duration::from_secs(1);
/// An early probe comes this much after the moment that it is meant to prove.
const MARGIN: Duration = Duration::from_millis(20);

/// How a probe's place in the agenda changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is due once a period, and the first time at once or at its place in the period.
    Ask {
        /// The period.
        period: Duration,
        /// Whether somebody waits.
        at_once: bool,
    },
    /// It is not due any more.
    Stop,
}

/// One kind of probe of one Server.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    aim: Option<Aim>,
    period: Duration,
    generation: u64,
    track: Track,
}

impl Lane {
    /// What to ask now; the number tells answers to this question from answers to earlier ones.
    pub(crate) fn question(&self) -> Option<(Aim, u64)> {
        Some((self.aim.clone()?, self.generation))
    }

    /// Whether this is the question that is asked now.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        self.aim.is_some() && self.generation == generation
    }

    /// Asks this from now on; `afresh` forgets what was found. Says how its place in the agenda changes.
    fn ask(&mut self, aim: Option<Aim>, period: Duration, afresh: bool) -> Option<Change> {
        let another = self.aim != aim || afresh;
        if another {
            self.track = Track::default();
        } else if self.period == period {
            return None;
        }
        let had_none = self.aim.is_none() && aim.is_none();
        self.generation += 1;
        (self.aim, self.period) = (aim, period);
        // Who waits is served at once; everybody else at their place in the period, also when thousands come at once.
        let ask = Change::Ask { period, at_once: period <= URGENT };
        (!had_none).then_some(if self.aim.is_some() { ask } else { Change::Stop })
    }
}

/// Everything about one Server.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The Server.
    pub(crate) server: ObjectRef<Server>,
    /// When news of failing health was last reported.
    pub(crate) reported: Option<Timestamp>,
    machine: Lane,
    health: Lane,
    threshold: i32,
    check: Option<HealthCheck>,
    epoch: Option<i64>,
    /// The last CheckHealth task whose turn came.
    checking: Option<i64>,
}

impl Entry {
    pub(crate) fn new(server: &Server) -> Self {
        Self {
            server: ObjectRef::from_obj(server),
            reported: None,
            machine: Lane::default(),
            health: Lane::default(),
            threshold: 0,
            check: None,
            epoch: None,
            checking: None,
        }
    }

    pub(crate) fn lane(&self, kind: Kind) -> &Lane {
        match kind {
            Kind::Reachability => &self.machine,
            Kind::Health => &self.health,
        }
    }

    /// Whether nothing is probed.
    pub(crate) fn is_idle(&self) -> bool {
        self.machine.aim.is_none() && self.health.aim.is_none()
    }

    /// Probes the Server as it is now. Returns which of its probes change, and how.
    pub(crate) fn follow(&mut self, server: &Server) -> Vec<(Kind, Change)> {
        let status = server.status.as_ref();
        let exists = status.and_then(|s| s.machine.as_ref()).is_some_and(|m| m.phase != MachinePhase::Gone);
        self.threshold = server.spec.reachability.unreachable_after_seconds;
        let period = seconds(server.spec.reachability.period_seconds);
        let machine = self.machine.ask(Aim::reachability(server).filter(|_| exists), period, false);
        let afresh = self.is_health_in_question(server);
        let health = self.health.ask(Aim::health(server).filter(|_| exists), health_period(server), afresh);
        if afresh {
            self.reported = None;
        }
        let changes = [(Kind::Reachability, machine), (Kind::Health, health)];
        changes.into_iter().filter_map(|(kind, change)| change.map(|change| (kind, change))).collect()
    }

    /// Whether what was found of the application's health does not count any more: another check, another epoch, or
    /// a CheckHealth task has come up, which asks for proof from now on.
    fn is_health_in_question(&mut self, server: &Server) -> bool {
        let epoch = server.status.as_ref().and_then(|status| status.epoch);
        let open = lifecycle::open_tasks(server, Executor::MonitorController)
            .find(|task| task.kind == TaskKind::CheckHealth)
            .map(|task| task.id);
        let task_came_up = open.is_some() && open != self.checking;
        let question = self.epoch != epoch || self.check != server.spec.health_check || task_came_up;
        self.epoch = epoch;
        self.check.clone_from(&server.spec.health_check);
        self.checking = open.or(self.checking);
        question
    }

    /// Takes a finding in, and says whether it is news.
    pub(crate) fn observe(&mut self, kind: Kind, finding: &Finding, now: Timestamp) -> bool {
        let before = self.gist(now);
        match kind {
            Kind::Reachability => self.machine.track.observe(finding, now),
            Kind::Health => self.health.track.observe(finding, now),
        }
        self.gist(now) != before
    }

    /// What a controller would act upon. The times move with every probe and are no news.
    fn gist(&mut self, now: Timestamp) -> (u8, Option<berth_core::api::HealthState>, Option<String>) {
        let seen = self.observed(now);
        let reach = match seen.reach {
            Reach::Undecided => 0,
            Reach::Reachable(_) => 1,
            Reach::Unreachable { .. } => 2,
        };
        (reach, seen.health.map(|(state, _)| state), seen.streak.map(|streak| streak.message))
    }

    /// What was found, in sum.
    pub(crate) fn observed(&mut self, now: Timestamp) -> Observed {
        let check = self.check.as_ref();
        Observed {
            reach: reachability(&self.machine.track, self.threshold, now).0,
            health: check.and_then(|check| self.health.track.health(check)),
            streak: self.health.track.streak().cloned(),
            reported: self.reported,
        }
    }

    /// When to probe again earlier than planned, because a verdict is due by then.
    pub(crate) fn look_again(&self, kind: Kind, now: Timestamp) -> Option<Duration> {
        if kind != Kind::Reachability {
            return None;
        }
        let wait = reachability(&self.machine.track, self.threshold, now).1?;
        Some(Duration::try_from(wait).unwrap_or_default() + MARGIN)
    }
}

fn health_period(server: &Server) -> Duration {
    let declared = server.spec.health_check.as_ref().map_or(URGENT, |check| seconds(check.period_seconds));
    if facts::is_urgent(server) { declared.min(URGENT) } else { declared }
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1))
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
