//! What metrics say about artifacts that are brought ahead.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// How an attempt has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StagingLabels {
    /// `staged`, `present`: it was there already, or `failed`.
    result: &'static str,
}

/// Counts the attempts to bring artifacts ahead.
#[derive(Debug, Default)]
pub(crate) struct StagingMetrics {
    stagings: Family<StagingLabels, Counter>,
    failing_stagings: Gauge,
}

impl StagingMetrics {
    /// Adds the metrics to the registry.
    pub(crate) fn register(&self, r: &mut Registry) {
        r.register(
            "stagings",
            "Attempts to bring an artifact to a machine ahead of its Server's turn, by result",
            self.stagings.clone(),
        );
        r.register(
            "failing_stagings",
            "Servers of roll-outs to which the latest attempt to bring the artifact ahead has failed; DeployApp does without it",
            self.failing_stagings.clone(),
        );
    }

    pub(crate) fn count(&self, result: &'static str) {
        self.stagings.get_or_create(&StagingLabels { result }).inc();
    }

    pub(crate) fn set_failing(&self, servers: usize) {
        self.failing_stagings.set(i64::try_from(servers).unwrap_or(i64::MAX));
    }
}
