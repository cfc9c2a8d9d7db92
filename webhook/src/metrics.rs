//! The webhook's own metrics.

use berth_core::api::State;
use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{sync::atomic::AtomicU64, time::Duration};

use crate::admit::{Admission, ReviewedResource};

/// Upper bounds of the duration histogram, in seconds. A decision takes tens of microseconds, and a request that reaches its
/// time limit takes seconds.
const DURATION_BUCKETS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0];

/// The metrics that only the webhook has.
#[derive(Clone)]
pub struct WebhookMetrics {
    duration: Family<ResourceLabel, Histogram, fn() -> Histogram>,
    decisions: Family<TransitionLabels, Counter>,
    denied: Family<ReasonLabel, Counter>,
    panics: Counter,
    clock_behind: Gauge<f64, AtomicU64>,
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

impl WebhookMetrics {
    /// Registers the metrics as `webhook_*`; the process adds its own prefix `berth_`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            decisions: Family::default(),
            denied: Family::default(),
            panics: Counter::default(),
            clock_behind: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("webhook");
        registry.register_with_unit(
            "request_duration",
            "Time from the headers of a request to its response, by resource",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register(
            "decisions",
            "Allowed status writes, by the state before (from) and after (to); both are the same without a transition",
            metrics.decisions.clone(),
        );
        registry.register("denied_requests", "Requests that the webhook denied, by reason", metrics.denied.clone());
        registry.register(
            "panics",
            "Requests that the webhook denied because it panicked while handling them",
            metrics.panics.clone(),
        );
        registry.register_with_unit(
            "clock_behind",
            "How far this copy's clock is behind the time in a Server's lock, at the latest write to a locked Server",
            Unit::Seconds,
            metrics.clock_behind.clone(),
        );
        metrics
    }

    pub(crate) fn count(&self, admission: &Admission) {
        if let Some((from, to)) = admission.transition {
            self.decisions.get_or_create(&TransitionLabels { from, to }).inc();
        }
        if let Some(behind) = admission.clock_behind {
            self.clock_behind.set(behind.as_secs_f64());
        }
        if let Some(denial) = &admission.response.denial {
            self.denied.get_or_create(&ReasonLabel { reason: denial.cause }).inc();
        }
    }

    pub(crate) fn observe_duration(&self, resource: ReviewedResource, elapsed: Duration) {
        self.duration.get_or_create(&ResourceLabel { resource: resource.as_str() }).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn count_panic(&self) {
        self.panics.inc();
    }
}

fn histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}
