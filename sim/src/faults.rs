//! Which faults exist in a world, and how often they happen.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::timeout};

use crate::{Dice, coverage::Coverage, machine_faults::MachineFaults};

/// How often each fault happens. A run draws which faults exist at all: a world in which everything fails a little hides what
/// needs one fault to happen often (swarm testing: Groce and others, 2012).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Share of requests that never arrive.
    pub lost_requests: f64,
    /// Share of requests that take effect and are never answered.
    pub lost_answers: f64,
    /// Share of requests that the API server answers with 429 (and when to come back), 500 or 503, without any effect.
    pub refusals: f64,
    /// Share of writes that reach the API server twice. The answer is that to the first or to the second.
    pub repeats: f64,
    /// Share of writes that reach the API server when the client has given up, or that it ends without knowing the outcome (504).
    pub timeouts: f64,
    /// Share of writes that the API server answers with 409, because others write again and again, without any effect.
    pub conflicts: f64,
    /// Share of watches, and of further pages of lists, that refer to what was compacted (410).
    pub expirations: f64,
    /// The longest that a request is under way.
    pub latency: Duration,
    /// Share of watches that break after a while.
    pub broken_watches: f64,
    /// The most that a watch is behind.
    pub watch_delay: Duration,
    /// Share of the lines of watches before which nothing passes for minutes.
    pub stuck_watches: f64,
    /// How far the clocks of the webhook's copies are apart: at most a minute, as the protocol allows.
    pub webhook_skew: Duration,
    /// How far the clocks of the controllers' copies may be apart.
    pub controller_skew: Duration,
    /// Share of the calls of the provider that fail, and as many again whose answer is lost.
    pub provider_failures: f64,
    /// What happens to connections to machines and to scripts.
    pub machines: MachineFaults,
}

impl Faults {
    /// Draws which faults exist, and how often they happen.
    #[must_use]
    pub fn draw(dice: &Dice) -> Self {
        let rate = |most: f64| if dice.chance(0.5) { most * dice.pick(&[0.1, 0.3, 1.0]) } else { 0.0 };
        let time = |seconds: &[u64]| Duration::from_secs(if dice.chance(0.5) { dice.pick(seconds) } else { 0 });
        Self {
            lost_requests: rate(0.1),
            lost_answers: rate(0.1),
            refusals: rate(0.3),
            repeats: rate(0.3),
            timeouts: rate(0.1),
            conflicts: rate(0.3),
            expirations: rate(0.3),
            latency: Duration::from_millis(dice.pick(&[1, 20, 500, 3_000])),
            broken_watches: rate(1.0),
            watch_delay: time(&[1, 5, 60]),
            stuck_watches: rate(0.03),
            webhook_skew: time(&[2, 20, 59]),
            controller_skew: time(&[2, 20, 60]),
            provider_failures: rate(0.3),
            machines: MachineFaults::draw(dice),
        }
    }
}

/// The faults of a world, until they end.
#[derive(Clone)]
pub(crate) struct ActiveFaults {
    faults: Arc<Faults>,
    none: Arc<Faults>,
    is_over: Arc<AtomicBool>,
    end: Arc<Notify>,
    lies: Arc<AtomicBool>,
    lease_writes_fail: Arc<AtomicBool>,
    /// Counts what happens.
    pub(crate) coverage: Coverage,
}

impl ActiveFaults {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            faults: Arc::new(faults),
            none: Arc::default(),
            is_over: Arc::default(),
            end: Arc::default(),
            lies: Arc::default(),
            lease_writes_fail: Arc::default(),
            coverage: Coverage::default(),
        }
    }

    /// The faults that happen now.
    pub(crate) fn now(&self) -> &Faults {
        if self.is_over.load(Ordering::Relaxed) { &self.none } else { &self.faults }
    }

    /// How far the clocks of the controllers' copies may be apart, also when all else goes well.
    pub(crate) fn controller_skew(&self) -> Duration {
        self.faults.controller_skew
    }

    /// Whether the API server fails to write Leases.
    pub(crate) fn lease_writes_fail(&self) -> bool {
        self.lease_writes_fail.load(Ordering::Relaxed) && !self.is_over.load(Ordering::Relaxed)
    }

    pub(crate) fn set_lease_writes_fail(&self, fail: bool) {
        self.lease_writes_fail.store(fail, Ordering::Relaxed);
    }

    /// Whether writes that take Servers out of EndpointSlices are answered as done, and have no effect.
    pub(crate) fn lies(&self) -> bool {
        self.lies.load(Ordering::Relaxed)
    }

    pub(crate) fn lie(&self) {
        self.lies.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.end.notify_waiters();
    }

    /// Waits for so long, or until the faults end.
    pub(crate) async fn at_most(&self, time: Duration) {
        let mut end = pin!(self.end.notified());
        end.as_mut().enable();
        if !self.is_over.load(Ordering::Relaxed) {
            let _ = timeout(time, end).await;
        }
    }
}
