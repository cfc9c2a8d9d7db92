//! What the probes of one Server have found so far.

use k8s_openapi::jiff::Timestamp;

use crate::{
    sight::{Belief, Trust},
    verdict::{ConsecutiveResults, HealthVerdict, ReachabilityVerdict},
};

/// What the probes of a Server have found, as it is declared now and in its present epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) reachability: ReachabilityVerdict,
    /// The latest results of the probe of the machine.
    pub(crate) machine_results: Option<ConsecutiveResults>,
    /// None before the results reach a threshold.
    pub(crate) health: Option<HealthVerdict>,
    /// The latest results of the health probe, which may not be enough for a verdict.
    pub(crate) health_results: Option<ConsecutiveResults>,
    /// When a failing health check was last reported on its task.
    pub(crate) failure_reported_at: Option<Timestamp>,
    /// Failures of the health check were forgotten, because this process may have been blind, and there is no result since.
    pub(crate) health_is_forgotten: bool,
    /// Whether failures are believed that may come from blindness.
    pub(crate) trust: Trust,
}

impl Observation {
    /// What is to be thought of the failures of the machine's probe.
    pub(crate) fn belief_in_loss(&self) -> Belief {
        match self.machine_results.as_ref().filter(|results| !results.success) {
            Some(failures) => self.trust.in_failure_since(failures.since),
            None => Belief::True,
        }
    }

    /// What is to be thought of the failures of the health check. The machine has to be looked at first: if it is lost, they are
    /// as doubtful as its loss.
    pub(crate) fn belief_in_sickness(&self) -> Belief {
        let Some(failures) = self.health_results.as_ref().filter(|results| !results.success) else {
            return Belief::True;
        };
        let looked_at = self.machine_results.as_ref().is_some_and(|results| results.last >= failures.since);
        if looked_at || self.trust == Trust::Full { self.belief_in_loss() } else { Belief::Doubtful }
    }
}
