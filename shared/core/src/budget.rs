//! The disruption budget of a set: how many Servers may be unavailable at once, through whatever cause.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::{OnFailure, UpdateStrategy, VMDeployment, VMReplicaSet};

/// Percentage of the Servers that may be unavailable when the set declares nothing: the default of a Kubernetes Deployment.
const DEFAULT_MAX_UNAVAILABLE: usize = 25;

/// The budget of a set, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Servers that the set declares.
    pub replicas: usize,
    /// Servers that may be unavailable at once.
    pub max_unavailable: usize,
    /// Seconds for which a Server must be Ready before it counts as available.
    pub min_ready_seconds: i32,
    /// Servers that a roll-out leaves unchanged.
    pub partition: usize,
}

impl Budget {
    /// The budget that a set declares; `partition` is that of its template.
    #[must_use]
    pub fn of_set(set: &VMReplicaSet) -> Self {
        let spec = &set.spec;
        let partition = spec.update_strategy.partition;
        Self::new(&spec.update_strategy, spec.replicas, spec.min_ready_seconds, partition)
    }

    /// The same budget as a VMDeployment declares it; `partition` is that of its application.
    #[must_use]
    pub fn of_deployment(deployment: &VMDeployment) -> Self {
        let spec = &deployment.spec;
        Self::new(&spec.update_strategy, spec.replicas, spec.min_ready_seconds, spec.rollout.partition)
    }

    fn new(strategy: &UpdateStrategy, replicas: i32, min_ready_seconds: i32, partition: i32) -> Self {
        let replicas = count(replicas);
        Self {
            replicas,
            max_unavailable: at_least_one(strategy.max_unavailable.as_ref(), DEFAULT_MAX_UNAVAILABLE, replicas),
            min_ready_seconds,
            partition: count(partition),
        }
    }

    /// How many Servers may fail with the new application before its roll-out stops or turns back; none if only the budget
    /// limits that.
    #[must_use]
    pub fn max_failed(deployment: &VMDeployment) -> Option<usize> {
        let rollout = &deployment.spec.rollout;
        match &rollout.max_failed {
            Some(declared) => Some(at_least_one(Some(declared), 0, count(deployment.spec.replicas))),
            None => (rollout.on_failure == OnFailure::Rollback).then_some(0),
        }
    }

    /// To how many of the Servers that have their turn next the artifact is brought ahead.
    #[must_use]
    pub fn stage_ahead(deployment: &VMDeployment) -> usize {
        at_least_one(deployment.spec.rollout.stage_ahead.as_ref(), 0, count(deployment.spec.replicas))
    }

    /// Whether this many available Servers are enough: no more are unavailable than the budget allows.
    #[must_use]
    pub fn is_met_by(&self, available: usize) -> bool {
        available + self.max_unavailable >= self.replicas
    }
}

/// How many Servers there may be beyond `replicas` while machines are replaced. A percentage is rounded up.
#[must_use]
pub fn max_surge(strategy: &UpdateStrategy, replicas: i32) -> usize {
    match &strategy.max_surge {
        None => 0,
        Some(IntOrString::Int(n)) => count(*n),
        Some(IntOrString::String(text)) => (count(replicas) * percent(text).unwrap_or(0)).div_ceil(100),
    }
}

/// A declared number, or a declared percentage of `total` (`default` percent when nothing is declared). A percentage above 0 %
/// is rounded down, but to at least one: a limit that rounds to zero for a small set would block it for ever.
#[must_use]
pub fn at_least_one(declared: Option<&IntOrString>, default: usize, total: usize) -> usize {
    let share = |percent: usize| if percent == 0 { 0 } else { (total * percent / 100).max(1) };
    match declared {
        None => share(default),
        Some(IntOrString::Int(n)) => count(*n),
        Some(IntOrString::String(text)) => percent(text).map_or(0, share),
    }
}

fn percent(text: &str) -> Option<usize> {
    text.strip_suffix('%').and_then(|n| n.parse().ok()).map(|n: usize| n.min(100))
}

fn count(n: i32) -> usize {
    usize::try_from(n).unwrap_or(0)
}
