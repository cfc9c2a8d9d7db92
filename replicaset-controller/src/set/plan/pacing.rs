//! The interval between two Ready Servers of a roll-out.

use berth_core::{
    api::{Server, State, VMReplicaSet},
    fleet::Pace,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

/// Keeps `updateStrategy.intervalSeconds` between the beginnings of two changes of Ready Servers. When the last one began stands
/// in the status, written together with the ledger: so a restart and a second controller keep the interval, too.
#[derive(Debug)]
pub(super) struct Pacing {
    interval: SignedDuration,
    now: Timestamp,
    last: Option<Timestamp>,
    has_begun: bool,
    has_waiting: bool,
}

impl Pacing {
    /// The interval that the set declares, and when it last began.
    pub(super) fn of(set: &VMReplicaSet, now: Timestamp) -> Self {
        let last = set.status.as_ref().and_then(|s| s.last_disturbed_at.as_ref()).map(|time| time.0);
        let interval = SignedDuration::from_secs(i64::from(set.spec.update_strategy.interval_seconds));
        Self { interval, now, last, has_begun: false, has_waiting: false }
    }

    /// Whether an interval is declared, so that Ready Servers are changed one at a time.
    pub(super) fn is_paced(&self) -> bool {
        !self.interval.is_zero()
    }

    /// How many more Ready Servers may be begun now.
    pub(super) fn pace(&self) -> Pace {
        if self.is_paced() { Pace::ReadyServers(usize::from(self.is_due())) } else { Pace::Unlimited }
    }

    fn is_due(&self) -> bool {
        !self.has_begun && self.next().is_none_or(|at| at <= self.now)
    }

    /// Of these Servers, those that may be changed now; this counts as their beginning.
    ///
    /// A Server that was entered before and is Ready waits for its turn, too: the copy that entered it may have died before
    /// it was changed, or the Server was not Ready at that time.
    pub(super) fn admit<'a>(&mut self, servers: Vec<&'a Server>) -> Vec<&'a Server> {
        servers.into_iter().filter(|server| self.admits(server)).collect()
    }

    fn admits(&mut self, server: &Server) -> bool {
        let is_free = !may_be_in_service(server);
        let admits = !self.is_paced() || is_free || self.is_due();
        self.has_begun |= admits && !is_free;
        self.has_waiting |= !admits;
        admits
    }

    /// Notes that a Ready Server waits for its turn.
    pub(super) fn note_waiting(&mut self) {
        self.has_waiting = true;
    }

    /// When a Ready Server was last begun, if one is begun now. The status has whole seconds: it is rounded up, so that
    /// the interval is never shorter than declared.
    pub(super) fn last_begun(&self) -> Option<Time> {
        let seconds = self.now.as_second() + i64::from(self.now.subsec_nanosecond() > 0);
        self.has_begun.then(|| Time(Timestamp::from_second(seconds).unwrap_or(self.now)))
    }

    /// When the next one that waits may be begun.
    pub(super) fn requeue_at(&self) -> Option<Timestamp> {
        let last = self.last_begun().map(|time| time.0).or(self.last);
        let next = last.and_then(|last| last.checked_add(self.interval).ok());
        next.filter(|at| self.has_waiting && self.is_paced() && *at > self.now)
    }

    fn next(&self) -> Option<Timestamp> {
        self.last.and_then(|last| last.checked_add(self.interval).ok())
    }
}

/// Whether the Server is in service or may be at any moment, because it is Ready. The others are changed without an interval.
pub(in crate::set) fn may_be_in_service(server: &Server) -> bool {
    server.is_in_service() || server.state() == Some(State::Ready)
}
