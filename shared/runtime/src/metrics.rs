//! Metrics, in the text format of OpenMetrics.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// One label: which controller, kind of object, kind of task or result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Of {
    pub(crate) name: String,
}

/// What it was, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Result {
    pub(crate) name: String,
    pub(crate) result: String,
}

type Timings = Family<Of, Histogram, fn() -> Histogram>;

/// The metrics of a process: those of this crate, and what a binary registers beside them.
pub struct Metrics {
    registry: Mutex<Registry>,
    pub(crate) reconciles: Family<Result, Counter>,
    pub(crate) reconcile_seconds: Timings,
    pub(crate) reconciling: Family<Of, Gauge>,
    pub(crate) objects: Family<Of, Gauge>,
    pub(crate) undecodable: Family<Of, Gauge>,
    pub(crate) watch_errors: Family<Of, Counter>,
    pub(crate) writes: Family<Of, Counter>,
    pub(crate) tasks: Family<Result, Counter>,
    pub(crate) task_seconds: Timings,
    pub(crate) events: Family<Of, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let fast = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let slow = || Histogram::new(exponential_buckets(0.05, 2.0, 16));
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("berth")),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(fast),
            reconciling: Family::default(),
            objects: Family::default(),
            undecodable: Family::default(),
            watch_errors: Family::default(),
            writes: Family::default(),
            tasks: Family::default(),
            task_seconds: Family::new_with_constructor(slow),
            events: Family::default(),
        };
        metrics.register(|r| metrics.register_own(r));
        metrics
    }
}

impl Metrics {
    /// Registers a binary's own metrics; their names get the prefix `berth_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn register_own(&self, r: &mut Registry) {
        r.register("reconciles", "Reconciles, by controller and result", self.reconciles.clone());
        r.register("reconcile_seconds", "Duration of reconciles, by controller", self.reconcile_seconds.clone());
        r.register("reconciling", "Reconciles under way, by controller", self.reconciling.clone());
        r.register("cache_objects", "Objects in the cache, by kind", self.objects.clone());
        r.register(
            "undecodable_objects",
            "Objects set aside because they cannot be decoded, by kind",
            self.undecodable.clone(),
        );
        r.register("watch_errors", "Failures of watches, by kind", self.watch_errors.clone());
        r.register("status_writes", "Writes to Servers' status, by result", self.writes.clone());
        r.register("tasks", "Attempts at tasks that need the lock, by kind and result", self.tasks.clone());
        r.register(
            "task_seconds",
            "Duration of attempts at tasks that need the lock, by kind",
            self.task_seconds.clone(),
        );
        r.register("events", "Kubernetes Events, by what became of them", self.events.clone());
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// When a collector fails to write its values.
    pub fn encode(&self) -> std::result::Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }

    pub(crate) fn count(family: &Family<Of, Counter>, name: impl Into<String>) {
        family.get_or_create(&Of { name: name.into() }).inc();
    }

    pub(crate) fn count_result(family: &Family<Result, Counter>, name: impl Into<String>, result: &str) {
        family.get_or_create(&Result { name: name.into(), result: result.to_owned() }).inc();
    }

    pub(crate) fn time(family: &Timings, name: impl Into<String>, duration: Duration) {
        family.get_or_create(&Of { name: name.into() }).observe(duration.as_secs_f64());
    }

    pub(crate) fn set(family: &Family<Of, Gauge>, name: impl Into<String>, value: usize) {
        family.get_or_create(&Of { name: name.into() }).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}
