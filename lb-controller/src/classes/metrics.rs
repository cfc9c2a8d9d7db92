//! What the copy in charge says of each load balancer outside of the cluster, in metrics.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{driver::DriverError, view::View};

/// A second is what a change may take: changes are collected for 20 ms, and processes are read before and after.
const SECONDS: [f64; 12] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BalancerLabels {
    balancer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProcessLabels {
    balancer: String,
    /// `yes` or `no`
    answers: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    balancer: String,
    /// `yes`, or `no`: registered, held or draining
    serves: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    balancer: String,
    /// `ok`, `unreachable`, `refused`, or `not_yet`: for example because connections are open
    result: &'static str,
}

/// The metrics of all classes that this copy follows. Clones share them.
#[derive(Clone)]
pub(super) struct Metrics {
    processes: Family<ProcessLabels, Gauge>,
    servers: Family<ServerLabels, Gauge>,
    changes: Family<ChangeLabels, Counter>,
    seconds: Family<BalancerLabels, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            processes: Family::default(),
            servers: Family::default(),
            changes: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
        }
    }
}

impl Metrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "balancer_processes",
            "Processes of a BalancerClass, by whether they answer. Only the copy in charge has it",
            self.processes.clone(),
        );
        r.register(
            "balancer_servers",
            "Servers that a BalancerClass shows, by whether they receive traffic from any process",
            self.servers.clone(),
        );
        r.register(
            "balancer_changes",
            "Changes of entries of a BalancerClass, for each process, by result",
            self.changes.clone(),
        );
        r.register(
            "balancer_change_seconds",
            "Time from a decision on a Server's traffic until all processes of a BalancerClass show it",
            self.seconds.clone(),
        );
    }

    /// Sets what the processes of a class show now.
    pub(super) fn show(&self, class: &str, view: &View) {
        let balancer = || class.to_owned();
        let silent = view.processes.values().filter(|process| process.failed.is_some()).count();
        for (answers, count) in [("yes", view.processes.len() - silent), ("no", silent)] {
            self.processes.get_or_create(&ProcessLabels { balancer: balancer(), answers }).set(gauge(count));
        }
        let (serving, all) = (view.serving_servers().len(), view.servers().len());
        for (serves, count) in [("yes", serving), ("no", all.saturating_sub(serving))] {
            self.servers.get_or_create(&ServerLabels { balancer: balancer(), serves }).set(gauge(count));
        }
    }

    pub(super) fn changed(&self, class: &str, result: &Result<(), DriverError>) {
        let result = match result {
            Ok(()) => "ok",
            Err(DriverError::Unreachable(_)) => "unreachable",
            Err(DriverError::Refused(_)) => "refused",
            Err(DriverError::NotYet(_)) => "not_yet",
        };
        self.changes.get_or_create(&ChangeLabels { balancer: class.to_owned(), result }).inc();
    }

    pub(super) fn took(&self, class: &str, duration: Duration) {
        self.seconds.get_or_create(&BalancerLabels { balancer: class.to_owned() }).observe(duration.as_secs_f64());
    }

    /// Forgets what a class shows, because this copy does not follow it any more.
    pub(super) fn forget(&self, class: &str) {
        for answer in ["yes", "no"] {
            self.processes.remove(&ProcessLabels { balancer: class.to_owned(), answers: answer });
            self.servers.remove(&ServerLabels { balancer: class.to_owned(), serves: answer });
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classes::driver::Shown;
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn a_class_has_its_metrics_while_it_is_followed() {
        let (metrics, mut registry) = (Metrics::default(), Registry::with_prefix("berth"));
        metrics.register(&mut registry);
        let mut view = View::default();
        view.record("10.0.0.7", Ok(Shown::default()), Timestamp::UNIX_EPOCH);
        view.record("10.0.0.8", Err("connection refused".to_owned()), Timestamp::UNIX_EPOCH);
        metrics.show("edge", &view);
        metrics.changed("edge", &Err(DriverError::NotYet("open connections".to_owned())));
        let exposed = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        for line in [
            "berth_balancer_processes{balancer=\"edge\",answers=\"yes\"} 1",
            "berth_balancer_processes{balancer=\"edge\",answers=\"no\"} 1",
            "berth_balancer_servers{balancer=\"edge\",serves=\"yes\"} 0",
            "berth_balancer_changes_total{balancer=\"edge\",result=\"not_yet\"} 1",
        ] {
            assert!(exposed().contains(line), "{line}\n{}", exposed());
        }
        metrics.forget("edge");
        assert!(!exposed().contains("berth_balancer_processes{"), "{}", exposed());
    }
}
