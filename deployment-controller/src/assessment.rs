//! How a roll-out stands: what it has achieved, what holds it, and whether it is late.

use berth_core::api::RolloutProgress;
use k8s_openapi::jiff::Timestamp;

use crate::{
    count::RolloutCount,
    hold::{Hold, TOO_MANY_FAILED, hold},
    observed::ObservedDeployment,
    progress, rollout,
};

/// How the roll-out of a VMDeployment's application stands at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Assessment<'a> {
    /// The Servers, counted.
    pub(crate) count: RolloutCount<'a>,
    /// Why nothing is rolled out; none when nothing holds the roll-out.
    pub(crate) hold: Option<Hold>,
    /// How far it has come.
    pub(crate) progress: RolloutProgress,
    /// When it is late.
    pub(crate) deadline: Option<Timestamp>,
    /// Whether that time has come.
    pub(crate) is_late: bool,
}

impl<'a> Assessment<'a> {
    /// Assesses the roll-out.
    pub(crate) fn of(observed: &ObservedDeployment<'a>) -> Self {
        let ObservedDeployment { deployment, servers, missing_secret, now, .. } = *observed;
        let count = RolloutCount::of(deployment, servers, now);
        let hold = hold(deployment, &count, missing_secret);
        let is_spared = rollout::spared(deployment, servers, now).is_some();
        let progress = progress::next(deployment, &count, hold.is_some() || is_spared, now);
        let deadline = progress::deadline(deployment, &progress);
        Self { count, hold, progress, deadline, is_late: deadline.is_some_and(|at| at <= now) }
    }

    /// Whether the roll-out has achieved its aim, so that the newest application is the stable one. Servers that take longer
    /// than the deadline do not hold that up: they count as unavailable.
    pub(crate) fn is_achieved(&self) -> bool {
        let has_failed = self.hold.as_ref().is_some_and(|hold| hold.stalled == Some(TOO_MANY_FAILED));
        self.count.is_proven() && (self.count.under_way == 0 || self.is_late) && !has_failed
    }
}
