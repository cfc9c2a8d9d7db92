//! Metrics of the prober.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{probe::ProbeResult, probe_id::ProbeKind, survey::Survey};

/// Upper bounds in seconds: a probe on time is late by at most 2 ms, the resolution of the timers; the shortest period is 1 s.
const LATENESS_BUCKETS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Upper bounds in seconds: from an answer on the same network to a time limit, which is 2 s unless declared otherwise.
const DURATION_BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeResultLabels {
    kind: &'static str,
    /// `success` or `failure`.
    result: &'static str,
}

/// Metrics of the prober.
#[derive(Debug)]
pub struct ProbeMetrics {
    lateness: Family<ProbeLabels, Histogram>,
    duration: Family<ProbeLabels, Histogram>,
    probes: Family<ProbeResultLabels, Counter>,
    skipped: Family<ProbeLabels, Counter>,
    scheduled: Gauge,
    targets: Gauge,
    lost_targets: Gauge,
    blind: Gauge,
    withheld: Gauge,
}

impl Default for ProbeMetrics {
    fn default() -> Self {
        Self {
            lateness: Family::new_with_constructor(|| Histogram::new(LATENESS_BUCKETS)),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            probes: Family::default(),
            skipped: Family::default(),
            scheduled: Gauge::default(),
            targets: Gauge::default(),
            lost_targets: Gauge::default(),
            blind: Gauge::default(),
            withheld: Gauge::default(),
        }
    }
}

impl ProbeMetrics {
    /// Adds the metrics to the registry.
    pub fn register(&self, r: &mut Registry) {
        r.register(
            "probe_lateness_seconds",
            "Time from when a probe was due to its start, by kind",
            self.lateness.clone(),
        );
        r.register("probe_duration_seconds", "Duration of probes, by kind", self.duration.clone());
        r.register("probes", "Probes that have finished, by kind and result", self.probes.clone());
        r.register(
            "skipped_probes",
            "Probes that were skipped because the previous probe of the target had not finished, by kind",
            self.skipped.clone(),
        );
        r.register("scheduled_probes", "Periodic probes of Servers, waiting or under way", self.scheduled.clone());
        r.register(
            "monitor_targets",
            "Machines that are probed and ought to be reachable: they run, and the last fact does not say otherwise",
            self.targets.clone(),
        );
        r.register("monitor_lost_targets", "Those of them whose latest probe failed", self.lost_targets.clone());
        r.register(
            "monitor_blind",
            "1 while so many machines are lost at once that this copy may be blind, and nobody has confirmed the loss",
            self.blind.clone(),
        );
        r.register(
            "monitor_withheld_servers",
            "Servers that this copy would call unreachable if it were sure that it is not blind",
            self.withheld.clone(),
        );
    }

    pub(crate) fn probe_started(&self, kind: ProbeKind, lateness: Duration) {
        self.lateness.get_or_create(&labels(kind)).observe(lateness.as_secs_f64());
    }

    pub(crate) fn probe_finished(&self, kind: ProbeKind, result: &ProbeResult, duration: Duration) {
        let ProbeLabels { kind } = labels(kind);
        let result = match result {
            ProbeResult::Success => "success",
            ProbeResult::Failure(_) => "failure",
        };
        self.duration.get_or_create(&ProbeLabels { kind }).observe(duration.as_secs_f64());
        self.probes.get_or_create(&ProbeResultLabels { kind, result }).inc();
    }

    pub(crate) fn probes_skipped(&self, kind: ProbeKind, count: u64) {
        self.skipped.get_or_create(&labels(kind)).inc_by(count);
    }

    /// What a survey has found, and whether this copy doubts it.
    pub(crate) fn surveyed(&self, survey: &Survey, is_blind: bool) {
        let gauge = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        gauge(&self.targets, survey.targets);
        gauge(&self.lost_targets, survey.lost);
        gauge(&self.blind, usize::from(is_blind));
        gauge(&self.withheld, if is_blind { survey.unreachable } else { 0 });
    }

    pub(crate) fn set_scheduled(&self, probes: usize) {
        self.scheduled.set(i64::try_from(probes).unwrap_or(i64::MAX));
    }
}

fn labels(kind: ProbeKind) -> ProbeLabels {
    let kind = match kind {
        ProbeKind::Reachability => "reachability",
        ProbeKind::Health => "health",
    };
    ProbeLabels { kind }
}
