//! How a roll-out stands: what it has achieved, what holds it, and whether it is late.

use berth_core::api::{RolloutProgress, VMDeployment};
use k8s_openapi::jiff::Timestamp;

use crate::{
    analysis::{self, ANALYSIS_FAILED},
    background::{self, BACKGROUND_CHECK_FAILED},
    bake,
    count::RolloutCount,
    hold::{Hold, OF_CHECKS, TOO_MANY_FAILED, checks_failed, hold, too_many_failed},
    observed::ObservedDeployment,
    progress, rollout,
    steps::{self, Failure},
};

/// Reason: the roll-out has made no progress until its deadline.
pub(crate) const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";

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
    /// Whether all steps are done.
    pub(crate) has_no_step_left: bool,
}

impl<'a> Assessment<'a> {
    /// Assesses the roll-out.
    pub(crate) fn of(observed: &ObservedDeployment<'a>) -> Self {
        let ObservedDeployment { deployment, servers, missing_content, looks, now, .. } = *observed;
        let rollout = &deployment.spec.rollout;
        let count = RolloutCount::of(deployment, servers, now);
        let hold = hold(deployment, &count, missing_content);
        let is_spared = rollout::spared(deployment, servers, now).is_some();
        let waits = |known| {
            steps::pause(rollout, known).is_some()
                || analysis::step(rollout, known).is_some()
                || steps::approval(rollout, known).is_some()
                || bake::is_under_way(rollout, known, now)
        };
        let in_pause = steps::recorded(deployment, &count.newest).is_some_and(waits);
        let is_held = hold.is_some() || is_spared || in_pause;
        let progress = progress::next(deployment, &count, is_held, now);
        let is_late = progress::deadline(deployment, &progress).is_some_and(|at| at <= now);
        let progress = analysis::count(progress, rollout, looks);
        let failure = failure(deployment, &count, &progress, is_late);
        let progress = steps::advance(progress, deployment, &count, failure, hold.is_some(), now);
        // A look, or a person who promotes the roll-out, changes whether checks hold it.
        let is_of_checks = |hold: &Hold| hold.stalled.is_some_and(|reason| OF_CHECKS.contains(&reason));
        let hold = hold.filter(|hold| !is_of_checks(hold)).or_else(|| checks_failed(rollout, &progress));
        let deadline = progress::deadline(deployment, &progress);
        let has_no_step_left = steps::current(rollout, &progress).is_none();
        let is_late = deadline.is_some_and(|at| at <= now);
        Self { count, hold, progress, deadline, is_late, has_no_step_left }
    }

    /// Whether the roll-out has achieved its aim, so that the newest application is the stable one. Servers that take longer
    /// than the deadline do not hold that up: they count as unavailable.
    pub(crate) fn is_achieved(&self) -> bool {
        let has_failed = self.hold.as_ref().is_some_and(|hold| hold.stalled == Some(TOO_MANY_FAILED));
        let is_at_the_end = self.has_no_step_left && self.progress.aborted.is_none();
        self.count.is_proven() && is_at_the_end && (self.count.under_way == 0 || self.is_late) && !has_failed
    }
}

/// Why the roll-out has failed; none if it has not.
fn failure(
    deployment: &VMDeployment,
    count: &RolloutCount<'_>,
    progress: &RolloutProgress,
    is_late: bool,
) -> Option<Failure> {
    let seconds = deployment.spec.rollout.progress_deadline_seconds;
    let late = || Failure {
        reason: PROGRESS_DEADLINE_EXCEEDED,
        message: format!("no progress for {seconds} s (spec.rollout.progressDeadlineSeconds)"),
    };
    let failed = too_many_failed(deployment, count).map(|message| Failure { reason: TOO_MANY_FAILED, message });
    let analysed = || {
        let message = analysis::failure(&deployment.spec.rollout, progress)?;
        Some(Failure { reason: ANALYSIS_FAILED, message })
    };
    let in_background = || {
        let message = background::failure(&deployment.spec.rollout, progress)?;
        Some(Failure { reason: BACKGROUND_CHECK_FAILED, message })
    };
    failed.or_else(analysed).or_else(in_background).or_else(|| is_late.then(late))
}
