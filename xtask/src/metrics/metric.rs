//! A metric as it is exposed.

/// A metric as it is exposed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metric {
    /// Name without the prefix `berth_`, with the suffix of its type and unit.
    pub(super) name: String,
    pub(super) type_: MetricType,
    pub(super) labels: Vec<MetricLabel>,
    pub(super) help: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricType {
    Counter,
    Gauge,
    Histogram,
}

impl MetricType {
    /// The type of metric that a Rust type of this name is.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "Counter" => Some(Self::Counter),
            "Gauge" => Some(Self::Gauge),
            "Histogram" => Some(Self::Histogram),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MetricLabel {
    pub(super) name: String,
    /// The comment of its field: its values, where they are not obvious.
    pub(super) values: String,
}
