//! Metrics of the prober.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Which of a Server's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum Kind {
    /// That of its machine.
    Reachability,
    /// That of its application.
    Health,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Reachability, Self::Health];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    kind: Kind,
    good: String,
}

/// Metrics of the prober.
#[derive(Debug)]
pub struct ProbeMetrics {
    lateness: Family<KindLabel, Histogram>,
    duration: Family<KindLabel, Histogram>,
    probes: Family<ResultLabels, Counter>,
    missed: Counter,
    targets: Gauge,
}

impl Default for ProbeMetrics {
    fn default() -> Self {
        let lateness = || Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
        let duration = || Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0]);
        Self {
            lateness: Family::new_with_constructor(lateness),
            duration: Family::new_with_constructor(duration),
            probes: Family::default(),
            missed: Counter::default(),
            targets: Gauge::default(),
        }
    }
}

impl ProbeMetrics {
    /// Puts the metrics into the registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("probe_lateness_seconds", "How late probes begin", self.lateness.clone());
        registry.register("probe_duration_seconds", "How long probes take", self.duration.clone());
        registry.register("probes", "Probes that were finished", self.probes.clone());
        registry.register(
            "probes_missed",
            "Times that were skipped because the probe before was still under way",
            self.missed.clone(),
        );
        registry.register("probe_targets", "Probes that are planned", self.targets.clone());
    }

    pub(crate) fn started(&self, kind: Kind, late: Duration) {
        self.lateness.get_or_create(&KindLabel { kind }).observe(late.as_secs_f64());
    }

    pub(crate) fn finished(&self, kind: Kind, good: bool, took: Duration) {
        self.duration.get_or_create(&KindLabel { kind }).observe(took.as_secs_f64());
        self.probes.get_or_create(&ResultLabels { kind, good: good.to_string() }).inc();
    }

    pub(crate) fn missed(&self, times: u64) {
        self.missed.inc_by(times);
    }

    pub(crate) fn set_targets(&self, targets: usize) {
        self.targets.set(i64::try_from(targets).unwrap_or(i64::MAX));
    }

    /// Times that were skipped so far.
    #[must_use]
    pub fn missed_times(&self) -> u64 {
        self.missed.get()
    }
}
