//! What a Server's facts said when this copy last looked at it, so that it notices what other copies write. Pure.

use berth_core::api::{HealthState, ServerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The facts that monitor-controller writes, as far as copies may contradict each other in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownFacts {
    /// Whether the machine is reachable, and when that was observed.
    reachability: Option<(bool, Time)>,
    /// The verdict on health, its epoch and its time.
    health: Option<(HealthState, i64, Time)>,
}

/// What has changed in the facts. What this copy has written itself is among it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FactNews {
    /// A new fact about reachability: whether the machine is reachable.
    pub(crate) reachable: Option<bool>,
    /// A new fact about health: the verdict.
    pub(crate) health: Option<HealthState>,
}

impl KnownFacts {
    /// The facts as they are now.
    pub(crate) fn of(status: &ServerStatus) -> Self {
        Self {
            reachability: status.reachability.as_ref().map(|fact| (fact.reachable, fact.observed_at.clone())),
            health: status.health.as_ref().map(|fact| (fact.state, fact.epoch, fact.since.clone())),
        }
    }

    /// What is new since these facts.
    pub(crate) fn news(&self, now: &Self) -> FactNews {
        let reachability = now.reachability.as_ref().filter(|fact| self.reachability.as_ref() != Some(fact));
        let health = now.health.as_ref().filter(|fact| self.health.as_ref() != Some(fact));
        FactNews { reachable: reachability.map(|fact| fact.0), health: health.map(|fact| fact.0) }
    }
}
