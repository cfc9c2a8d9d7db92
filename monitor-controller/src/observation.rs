//! What the probes of one Server have found so far.

use k8s_openapi::jiff::Timestamp;

use crate::verdict::{ConsecutiveResults, HealthVerdict, ReachabilityVerdict};

/// What the probes of a Server have found, as it is declared now and in its present epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) reachability: ReachabilityVerdict,
    /// None before the results reach a threshold.
    pub(crate) health: Option<HealthVerdict>,
    /// The latest results of the health probe, which may not be enough for a verdict.
    pub(crate) health_results: Option<ConsecutiveResults>,
    /// When a failing health check was last reported on its task.
    pub(crate) failure_reported_at: Option<Timestamp>,
}
