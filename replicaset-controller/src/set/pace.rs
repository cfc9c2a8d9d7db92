//! The pace of a roll-out: seconds between two Servers.

use berth_core::{
    api::{Server, VMReplicaSet},
    budget::{self, Pace},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

/// Keeps `updateStrategy.intervalSeconds` between the beginnings of two disturbances of Ready Servers. When the last one
/// began stands in the status, entered by the same write as the Server: so a restart or a second controller keeps it, too.
#[derive(Debug)]
pub struct Pacer {
    interval: SignedDuration,
    now: Timestamp,
    last: Option<Timestamp>,
    has_begun: bool,
    has_waiting: bool,
}

impl Pacer {
    /// The pace of the set.
    #[must_use]
    pub fn of(set: &VMReplicaSet, now: Timestamp) -> Self {
        let last = set.status.as_ref().and_then(|s| s.last_disturbed_at.as_ref()).map(|time| time.0);
        let interval = SignedDuration::from_secs(i64::from(set.spec.update_strategy.interval_seconds));
        Self { interval, now, last, has_begun: false, has_waiting: false }
    }

    /// Whether Servers are to be begun one at a time.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        !self.interval.is_zero()
    }

    /// How many more Ready Servers may be begun now.
    #[must_use]
    pub fn pace(&self) -> Pace {
        if self.is_slow() { Pace::Ready(usize::from(self.is_due())) } else { Pace::Free }
    }

    fn is_due(&self) -> bool {
        !self.has_begun && self.next().is_none_or(|at| at <= self.now)
    }

    /// Those of the Servers that may be changed now: they are begun with this.
    ///
    /// One that was entered before and is Ready waits for its turn, too. Whoever entered it may have died before it was
    /// touched, or it was not Ready then.
    pub fn admit<'a>(&mut self, servers: Vec<&'a Server>) -> Vec<&'a Server> {
        servers.into_iter().filter(|server| self.admits(server)).collect()
    }

    fn admits(&mut self, server: &Server) -> bool {
        let admits = !self.is_slow() || !budget::is_ready(server) || self.is_due();
        self.has_begun |= admits && budget::is_ready(server);
        self.has_waiting |= !admits;
        admits
    }

    /// Notes that a Ready Server waits for its turn.
    pub fn wait(&mut self) {
        self.has_waiting = true;
    }

    /// When a Ready Server was last begun, if one is begun now. The status has whole seconds: it is rounded up, so that
    /// the interval is never shorter than declared.
    #[must_use]
    pub fn last(&self) -> Option<Time> {
        let seconds = self.now.as_second() + i64::from(self.now.subsec_nanosecond() > 0);
        self.has_begun.then(|| Time(Timestamp::from_second(seconds).unwrap_or(self.now)))
    }

    /// When the next one that waits may be begun.
    #[must_use]
    pub fn wake(&self) -> Option<Timestamp> {
        let last = self.last().map(|time| time.0).or(self.last);
        let next = last.and_then(|last| last.checked_add(self.interval).ok());
        next.filter(|at| self.has_waiting && self.is_slow() && *at > self.now)
    }

    fn next(&self) -> Option<Timestamp> {
        self.last.and_then(|last| last.checked_add(self.interval).ok())
    }
}
