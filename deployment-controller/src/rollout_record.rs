//! What the status says about a roll-out: whether it is about this application, and which step has its turn. Pure.

use berth_core::api::{App, Rollout, RolloutProgress, RolloutStep, VMDeployment};

/// What the status says about the roll-out of this application; none if it is about another one.
pub(crate) fn recorded<'a>(deployment: &'a VMDeployment, newest: &App) -> Option<&'a RolloutProgress> {
    deployment.status.as_ref()?.rollout.as_ref().filter(|progress| progress.is_about(newest))
}

/// The step that the roll-out is at; none when all are done.
pub(crate) fn current<'a>(rollout: &'a Rollout, progress: &RolloutProgress) -> Option<&'a RolloutStep> {
    rollout.steps.get(index(progress))
}

/// How many steps are done.
pub(crate) fn index(progress: &RolloutProgress) -> usize {
    usize::try_from(progress.steps_done).unwrap_or(0)
}
