//! Metrics, in the text format of OpenMetrics.
//!
//! Names and labels follow Prometheus' and Kubernetes' conventions: units in the name, `_total` for counters (appended when
//! they are exposed), and the same label for the same thing everywhere: `controller`, `kind` (of objects), `task` (kind of a
//! task), `reason`, `result`. `docs/metrics.md` lists all of them.

use std::{fmt, time::Duration};

use parking_lot::Mutex;
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

/// Which controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ControllerLabels {
    pub(crate) controller: &'static str,
}

/// Which controller, and how its reconcile ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReconcileLabels {
    pub(crate) controller: &'static str,
    /// `ok`, `retry`, or `terminal`: waits for a change.
    pub(crate) result: &'static str,
}

/// Which kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabels {
    pub(crate) kind: String,
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabels {
    pub(crate) result: &'static str,
}

/// Which kind of task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TaskLabels {
    pub(crate) task: String,
}

/// Which kind of task, and how the attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TaskResultLabels {
    pub(crate) task: String,
    /// `succeeded`, `retry`, `failed`, or `unreported`: the report was not written.
    pub(crate) result: String,
}

/// A histogram for each set of labels.
type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of a process: those of this crate, and what a program registers beside them.
pub struct Metrics {
    registry: Mutex<Registry>,
    pub(crate) reconciles: Family<ReconcileLabels, Counter>,
    pub(crate) reconcile_seconds: Durations<ControllerLabels>,
    pub(crate) active_reconciles: Family<ControllerLabels, Gauge>,
    pub(crate) cached_objects: Family<KindLabels, Gauge>,
    pub(crate) undecodable_objects: Family<KindLabels, Gauge>,
    pub(crate) watch_errors: Family<KindLabels, Counter>,
    pub(crate) status_writes: Family<ResultLabels, Counter>,
    pub(crate) task_attempts: Family<TaskResultLabels, Counter>,
    pub(crate) task_attempt_seconds: Durations<TaskLabels>,
    pub(crate) failed_tasks: Family<TaskLabels, Counter>,
    pub(crate) events: Family<ResultLabels, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        // A reconcile takes from 1 ms to half a minute, an attempt at a task from 50 ms to half an hour.
        let fast = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let slow = || Histogram::new(exponential_buckets(0.05, 2.0, 16));
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("berth")),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(fast),
            active_reconciles: Family::default(),
            cached_objects: Family::default(),
            undecodable_objects: Family::default(),
            watch_errors: Family::default(),
            status_writes: Family::default(),
            task_attempts: Family::default(),
            task_attempt_seconds: Family::new_with_constructor(slow),
            failed_tasks: Family::default(),
            events: Family::default(),
        };
        metrics.register(|r| metrics.register_own(r));
        metrics
    }
}

impl Metrics {
    /// Registers a program's own metrics; their names get the prefix `berth_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    fn register_own(&self, r: &mut Registry) {
        r.register("reconciles", "Reconciles that ended, by controller and result", self.reconciles.clone());
        r.register("reconcile_seconds", "Duration of reconciles, by controller", self.reconcile_seconds.clone());
        r.register("active_reconciles", "Reconciles that run now, by controller", self.active_reconciles.clone());
        r.register("cached_objects", "Objects in the cache, by kind", self.cached_objects.clone());
        r.register(
            "undecodable_objects",
            "Objects that are ignored because they cannot be decoded, by kind",
            self.undecodable_objects.clone(),
        );
        r.register("watch_errors", "Watches that failed and were started again, by kind", self.watch_errors.clone());
        r.register(
            "status_writes",
            "Writes to the status of Servers, by result: written, refused, stale, unavailable or error",
            self.status_writes.clone(),
        );
        r.register(
            "task_attempts",
            "Attempts at tasks that need the lock, by task and result",
            self.task_attempts.clone(),
        );
        r.register(
            "task_attempt_seconds",
            "Duration of attempts at tasks that need the lock, by task",
            self.task_attempt_seconds.clone(),
        );
        r.register(
            "failed_tasks",
            "Tasks that failed for good, and gates that were refused, by task",
            self.failed_tasks.clone(),
        );
        r.register("events", "Kubernetes Events, by result: written, failed or dropped", self.events.clone());
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// When a collector fails to write its values.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }

    pub(crate) fn count_result(family: &Family<ResultLabels, Counter>, result: &'static str) {
        family.get_or_create(&ResultLabels { result }).inc();
    }

    pub(crate) fn count_attempt(&self, task: impl Into<String>, result: impl Into<String>) {
        let labels = TaskResultLabels { task: task.into(), result: result.into() };
        self.task_attempts.get_or_create(&labels).inc();
    }

    pub(crate) fn time_attempt(&self, task: impl Into<String>, duration: Duration) {
        let labels = TaskLabels { task: task.into() };
        self.task_attempt_seconds.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    pub(crate) fn count_failed_task(&self, task: impl Into<String>) {
        self.failed_tasks.get_or_create(&TaskLabels { task: task.into() }).inc();
    }

    pub(crate) fn set_by_kind(family: &Family<KindLabels, Gauge>, kind: &str, value: usize) {
        let labels = KindLabels { kind: kind.to_owned() };
        family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
}
