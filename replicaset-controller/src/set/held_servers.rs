//! The metric of the Servers that failover does nothing about.

use std::collections::BTreeMap;

use berth_runtime::Metrics;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};

use super::plan::Hold;

/// Why a Server is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HoldLabels {
    reason: &'static str,
}

/// How many Servers of all sets are held, by reason. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldGauge {
    servers: Family<HoldLabels, Gauge>,
}

impl HeldGauge {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let held = Self::default();
        metrics.register(|r| {
            let about = "Unreachable Servers that failover does nothing about, by reason";
            r.register("failover_held_servers", about, held.servers.clone());
        });
        held
    }
}

/// How many Servers of one set are held, by reason. When it is dropped, they count no more.
#[derive(Debug, Default)]
pub(super) struct HeldServers {
    counts: BTreeMap<&'static str, i64>,
    gauge: Option<HeldGauge>,
}

impl HeldServers {
    /// Counts these Servers, and those from before no more.
    pub(super) fn update(&mut self, held: &[Hold], gauge: &HeldGauge) {
        self.gauge = Some(gauge.clone());
        let mut counts = BTreeMap::new();
        for hold in held {
            *counts.entry(hold.reason).or_default() += 1;
        }
        self.replace(counts);
    }

    fn replace(&mut self, counts: BTreeMap<&'static str, i64>) {
        let Some(gauge) = &self.gauge else { return };
        let before = std::mem::replace(&mut self.counts, counts);
        let of = |counts: &BTreeMap<_, _>, reason| counts.get(reason).copied().unwrap_or(0);
        for reason in before.keys().chain(self.counts.keys().filter(|reason| !before.contains_key(*reason))) {
            let more = of(&self.counts, reason) - of(&before, reason);
            if more != 0 {
                gauge.servers.get_or_create(&HoldLabels { reason }).inc_by(more);
            }
        }
    }
}

impl Drop for HeldServers {
    fn drop(&mut self) {
        self.replace(BTreeMap::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_is_the_sum_over_all_sets() {
        let gauge = HeldGauge::default();
        let hold = |reason| Hold { server: "web-0".to_owned(), reason };
        let count = |reason| gauge.servers.get_or_create(&HoldLabels { reason }).get();
        let (mut one, mut other) = (HeldServers::default(), HeldServers::default());
        one.update(&[hold("A"), hold("A"), hold("B")], &gauge);
        other.update(&[hold("A")], &gauge);
        assert_eq!((count("A"), count("B")), (3, 1));
        one.update(&[hold("B")], &gauge);
        assert_eq!((count("A"), count("B")), (1, 1));
        drop(one);
        other.update(&[], &gauge);
        assert_eq!((count("A"), count("B")), (0, 0));
    }
}
