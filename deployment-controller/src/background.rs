//! The checks that are looked at throughout a roll-out: when they are, and what follows. Pure.

use berth_core::api::{AnalysisProgress, App, Background, Rollout, RolloutProgress, VMDeployment};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    rollout_record,
    watch::{Watch, check},
};

/// Reason: a check in the background has failed at more looks than `maxFailures` allows.
pub(crate) const BACKGROUND_CHECK_FAILED: &str = "BackgroundCheckFailed";

/// Records that the checks are looked at from now on, and which step has its turn. What they have said in earlier steps counts on, but
/// their queries are about the present step alone: before it, other Servers had the new version. `is_gradual`: there is something to
/// judge, which the first version and the stable one have behind them.
pub(crate) fn begin(progress: &mut RolloutProgress, rollout: &Rollout, is_gradual: bool, now: Timestamp) {
    let Some(declared) = rollout.background.as_ref().filter(|_| is_gradual) else {
        progress.background = None;
        return;
    };
    let step = progress.steps_done.saturating_add(1);
    if let Some((_, known)) = recorded(rollout, progress) {
        if known.step != step {
            // Before the first look the time goes on, or steps that are shorter than the interval would put it off for ever.
            let since = if known.looks == 0 { known.since.clone() } else { Time(now) };
            progress.background = Some(AnalysisProgress { step, since, ..known.clone() });
        }
        return;
    }
    progress.background = Some(AnalysisProgress {
        step,
        attempt: progress.retries,
        digest: Watch::Background(declared).digest(rollout),
        since: Time(now),
        looks: 0,
        looked_at: None,
        checks: Vec::new(),
    });
}

/// What is declared, with its record, if the record is about it.
pub(crate) fn recorded<'a>(
    rollout: &'a Rollout,
    progress: &'a RolloutProgress,
) -> Option<(&'a Background, &'a AnalysisProgress)> {
    let (declared, known) = (rollout.background.as_ref()?, progress.background.as_ref()?);
    let is_it = known.attempt == progress.retries
        && known.digest == Watch::Background(declared).digest(rollout)
        && progress.aborted.is_none();
    is_it.then_some((declared, known))
}

/// Why the roll-out has failed; none if it has not.
pub(crate) fn failure(rollout: &Rollout, progress: &RolloutProgress) -> Option<String> {
    let (declared, known) = recorded(rollout, progress)?;
    let failed = known.checks.iter().find(|check| check.failures > declared.max_failures)?;
    Some(format!(
        "check {} in the background has failed at {} of {} looks, at most {} may (spec.rollout.background.maxFailures): {}",
        failed.name, failed.failures, known.looks, declared.max_failures, failed.message
    ))
}

/// When they are looked at next; none if they are not.
pub(crate) fn next_look(rollout: &Rollout, progress: &RolloutProgress) -> Option<Timestamp> {
    let (declared, known) = recorded(rollout, progress)?;
    Watch::Background(declared).next(known).filter(|_| failure(rollout, progress).is_none())
}

/// Whether the revisions are being compared by these checks, so that nothing but the code may differ between them.
pub(crate) fn compares(deployment: &VMDeployment, newest: &App) -> bool {
    let rollout = &deployment.spec.rollout;
    let Some(progress) = rollout_record::recorded(deployment, newest) else { return false };
    let is_compared =
        |name: &String| check(rollout, name).is_some_and(|check| check.proportion.is_some() || check.shift.is_some());
    recorded(rollout, progress).is_some_and(|(declared, _)| declared.checks.iter().any(is_compared))
        && failure(rollout, progress).is_none()
}

#[cfg(test)]
#[path = "background_tests.rs"]
mod tests;
