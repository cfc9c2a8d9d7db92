//! What the webhook counts.

use berth_core::api::State;
use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::time::Duration;

use crate::admit::{Subject, Verdict};

/// Upper bounds of the latency histogram in seconds: a decision takes some ten microseconds, a limit some seconds.
const BUCKETS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0];

/// The webhook's metrics.
#[derive(Clone)]
pub struct Metrics {
    latency: Family<ResourceLabel, Histogram, fn() -> Histogram>,
    decisions: Family<TransitionLabels, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    panics: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabel {
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TransitionLabels {
    from: Option<State>,
    to: Option<State>,
}

impl EncodeLabelSet for TransitionLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        let name = |state: Option<State>| state.map_or_else(|| "None".to_owned(), |state| format!("{state:?}"));
        ("from", name(self.from)).encode(encoder.encode_label())?;
        ("to", name(self.to)).encode(encoder.encode_label())
    }
}

impl Metrics {
    /// Registers the metrics under `webhook_*`, to which the process puts its own prefix.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            latency: Family::new_with_constructor(histogram as fn() -> Histogram),
            decisions: Family::default(),
            refusals: Family::default(),
            panics: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("webhook");
        registry.register_with_unit(
            "request_duration",
            "Time from the request's headers to its answer, by resource",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        registry.register(
            "decisions",
            "Allowed status writes by the state before and after; the same state twice is a write without transition",
            metrics.decisions.clone(),
        );
        registry.register("refusals", "Denied requests by reason", metrics.refusals.clone());
        registry.register("panics", "Requests denied because their handling panicked", metrics.panics.clone());
        metrics
    }

    pub(crate) fn record(&self, verdict: &Verdict) {
        if let Some((from, to)) = verdict.transition {
            self.decisions.get_or_create(&TransitionLabels { from, to }).inc();
        }
        if let Some(denial) = &verdict.answer.denial {
            self.refusals.get_or_create(&ReasonLabel { reason: denial.cause }).inc();
        }
    }

    pub(crate) fn observe(&self, subject: Subject, elapsed: Duration) {
        self.latency.get_or_create(&ResourceLabel { resource: subject.as_str() }).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}
