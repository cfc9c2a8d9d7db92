//! What the status says about a roll-out: whether it is about this application, and which step has its turn. Pure.

use berth_core::{
    api::{App, Rollout, RolloutProgress, RolloutStep, VMDeployment},
    digest,
};

/// What the status says about the roll-out of this application; none if it is about another one.
pub(crate) fn recorded<'a>(deployment: &'a VMDeployment, newest: &App) -> Option<&'a RolloutProgress> {
    deployment.status.as_ref()?.rollout.as_ref().filter(|progress| is_about(progress, newest))
}

/// Whether this is the progress of this application. Another content of its ConfigMaps and Secrets is another application; where none
/// has been recorded, a person has just gone back to it, or an older version of Berth has rolled it out.
pub(crate) fn is_about(progress: &RolloutProgress, app: &App) -> bool {
    progress.digest == digest::short(app) || progress.digest == digest::short(&app.without_content())
}

/// The step that the roll-out is at; none when all are done.
pub(crate) fn current<'a>(rollout: &'a Rollout, progress: &RolloutProgress) -> Option<&'a RolloutStep> {
    rollout.steps.get(index(progress))
}

/// How many steps are done.
pub(crate) fn index(progress: &RolloutProgress) -> usize {
    usize::try_from(progress.steps_done).unwrap_or(0)
}
