//! The steps of a roll-out: how many Servers may have the newest application, when the next step begins, and when the roll-out
//! turns back. Pure.
//!
//! What has been decided stands in `status.rollout`. The next move follows from what is written there, so every copy of the
//! controller makes the same one, and nothing of a roll-out of another application counts.

use berth_core::{
    api::{
        Abort, App, ApproveStep, HttpRouteStatus, OnFailure, Rollout, RolloutAction, RolloutProgress, RolloutRequest,
        RolloutStep, VMDeployment,
    },
    budget::at_least_one,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

pub(crate) use crate::rollout_record::{current, recorded};
use crate::{
    after::{self, Other},
    alarms, analysis, approval, background, bake, baseline,
    count::RolloutCount,
    rollout_record::index,
    split::{self, Obstacle},
};

/// Reason of an abort that a person has requested.
const REQUESTED: &str = "Requested";

/// Why a roll-out has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// One word in CamelCase.
    pub(crate) reason: &'static str,
    /// What is wrong.
    pub(crate) message: String,
    /// What follows.
    pub(crate) answer: OnFailure,
}

/// The abort of the roll-out of this application, if it was aborted.
pub(crate) fn aborted<'a>(deployment: &'a VMDeployment, newest: &App) -> Option<&'a Abort> {
    recorded(deployment, newest)?.aborted.as_ref()
}

/// How many Servers may have the newest application now.
pub(crate) fn allowed(deployment: &VMDeployment, count: &RolloutCount<'_>) -> usize {
    let rollout = &deployment.spec.rollout;
    if rollout.steps.is_empty() {
        return count.active;
    }
    let Some(progress) = recorded(deployment, &count.newest) else { return 0 };
    if current(rollout, progress).is_none() {
        return count.active;
    }
    let begun = rollout.steps.iter().take(index(progress) + 1);
    begun.filter_map(|step| target(step, count)).max().unwrap_or(0)
}

/// How many Servers this step wants to have the newest application, of those that the partition does not keep; none if it is not
/// about that.
fn target(step: &RolloutStep, count: &RolloutCount<'_>) -> Option<usize> {
    let declared = step.servers.as_ref()?;
    Some(at_least_one(Some(declared), 0, count.budget.replicas).min(count.target()))
}

/// When a pause ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PauseEnd {
    /// At this time.
    At(Timestamp),
    /// When a person promotes the roll-out.
    Promoted,
}

impl PauseEnd {
    /// The time, if there is one.
    pub(crate) fn at(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::Promoted => None,
        }
    }
}

/// When the pause ends that the roll-out is in; none if it is in none.
pub(crate) fn pause(rollout: &Rollout, progress: &RolloutProgress) -> Option<PauseEnd> {
    let seconds = current(rollout, progress)?.pause.as_ref()?.seconds;
    let Some(seconds) = seconds else { return Some(PauseEnd::Promoted) };
    // Its beginning is written before it counts.
    let since = progress.step_since.as_ref().map_or(Timestamp::MAX, |since| since.0);
    Some(PauseEnd::At(since.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)))
}

/// The approval that has its turn; none if the current step is another one.
pub(crate) fn approval<'a>(rollout: &'a Rollout, progress: &RolloutProgress) -> Option<&'a ApproveStep> {
    current(rollout, progress)?.approve.as_ref()
}

/// Carries out a person's request, aborts a roll-out that has failed, and goes on to the next steps.
///
/// `is_held`: nothing is rolled out now; `others`: what is known of the VMDeployments that it waits for.
pub(crate) fn advance(
    mut progress: RolloutProgress,
    deployment: &VMDeployment,
    count: &RolloutCount<'_>,
    failure: Option<Failure>,
    is_held: bool,
    others: &[Other],
    now: Timestamp,
) -> RolloutProgress {
    // As the API stores it: what is said of a fraction would change when it is read back.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let rollout = &deployment.spec.rollout;
    if let Some(request) = &rollout.request
        && !matches!(request.action, RolloutAction::Undo | RolloutAction::Restart)
        && progress.observed_request.as_ref() != Some(&request.id)
    {
        // Which application is wanted has been decided before: see `undo`.
        progress.observed_request = Some(request.id.clone());
        progress.refused =
            carry_out(&mut progress, rollout, request, has_another_stable_app(deployment, count), now).err();
    }
    if rollout.request.is_none() {
        progress.refused = None;
    }
    if let Some(failure) = failure
        && failure.answer == OnFailure::Rollback
        && can_roll_back(deployment, count, &progress)
    {
        abort(&mut progress, failure.reason, failure.message, now);
    }
    if progress.aborted.is_some() {
        (progress.step_since, progress.current_step, progress.baseline) = (None, None, None);
        progress.weight = split::weight(rollout, &progress, true);
        return progress;
    }
    let is_gradual = !needs_no_steps(deployment, count);
    if !is_gradual {
        progress.steps_done = all_steps(rollout);
    }
    while !is_held && current(rollout, &progress).is_some_and(|step| is_done(step, &progress, deployment, count, now)) {
        baseline::end(&mut progress, deployment, count, now);
        finish_step(&mut progress, now);
    }
    let has_step = current(rollout, &progress).is_some();
    progress.step_since = progress.step_since.filter(|_| has_step).or_else(|| has_step.then_some(Time(now)));
    progress.current_step = has_step.then(|| progress.steps_done.saturating_add(1));
    progress.weight = split::weight(rollout, &progress, is_gradual);
    baseline::begin(&mut progress, rollout, is_gradual, &count.newest, now);
    analysis::begin(&mut progress, rollout, now);
    background::begin(&mut progress, rollout, is_gradual, now);
    alarms::begin(&mut progress, rollout, is_gradual);
    after::begin(&mut progress, rollout, is_gradual, (&count.newest, others), now);
    progress
}

/// Carries the request out, or says why nothing comes of it.
fn carry_out(
    progress: &mut RolloutProgress,
    rollout: &Rollout,
    request: &RolloutRequest,
    can_go_back: bool,
    now: Timestamp,
) -> Result<(), String> {
    let is_aborted = progress.aborted.is_some();
    match request.action {
        RolloutAction::Promote | RolloutAction::PromoteFull if is_aborted => {
            return Err("the roll-out was aborted: request Retry to begin it again".to_owned());
        }
        RolloutAction::Promote | RolloutAction::PromoteFull => promote(progress, rollout, request, now)?,
        RolloutAction::Abort if is_aborted => return Err("the roll-out was aborted before".to_owned()),
        RolloutAction::Abort if can_go_back => abort(progress, REQUESTED, requested_by(request), now),
        RolloutAction::Abort => {
            let none = "there is no other stable revision to go back to; what ConfigMaps and Secrets contained before, only a \
                        person can put back into them";
            return Err(none.to_owned());
        }
        RolloutAction::Retry if is_aborted => {
            (progress.aborted, progress.steps_done, progress.step_since) = (None, 0, None);
            (progress.healthy_replicas, progress.progressed_at) = (0, Some(Time(now)));
            progress.baseline = None;
            progress.retries = progress.retries.saturating_add(1);
        }
        RolloutAction::Retry => return Err("nothing was aborted or undone".to_owned()),
        RolloutAction::Undo | RolloutAction::Restart => {}
    }
    Ok(())
}

/// The current step, or all of them, are done, and what checks in the background and alarms have said until now is accepted.
fn promote(
    progress: &mut RolloutProgress,
    rollout: &Rollout,
    request: &RolloutRequest,
    now: Timestamp,
) -> Result<(), String> {
    let in_background = background::failure(rollout, progress).is_some();
    let has_failed = in_background || alarms::failure(rollout, progress).is_some();
    if request.action == RolloutAction::PromoteFull {
        progress.steps_done = all_steps(rollout);
    } else if current(rollout, progress).is_some() {
        finish_step(progress, now);
    } else if !has_failed {
        return Err("no step is left".to_owned());
    }
    if in_background {
        progress.background = None;
    }
    alarms::accept(progress);
    Ok(())
}

/// Who has made the request, and why.
pub(crate) fn requested_by(request: &RolloutRequest) -> String {
    let by = request.by.as_deref().unwrap_or("a person");
    let why = if request.reason.is_empty() { String::new() } else { format!(": {}", request.reason) };
    format!("requested by {by}{why}")
}

fn all_steps(rollout: &Rollout) -> i32 {
    i32::try_from(rollout.steps.len()).unwrap_or(i32::MAX)
}

/// Whether all that is rolled out is a restart of the stable application.
pub(crate) fn is_restart(deployment: &VMDeployment, count: &RolloutCount<'_>) -> bool {
    let stable = deployment.status.as_ref().and_then(|status| status.stable_app.as_ref());
    stable.is_some_and(|stable| *stable != count.newest && stable.is_same_code(&count.newest))
}

/// Whether the newest application is the first one, which there is nothing to compare with, or the stable one again.
pub(crate) fn needs_no_steps(deployment: &VMDeployment, count: &RolloutCount<'_>) -> bool {
    match deployment.status.as_ref().and_then(|status| status.stable_app.as_ref()) {
        Some(stable) => stable.is_same_code(&count.newest),
        // Servers that were created before its ConfigMaps and Secrets were there have it, too.
        None => {
            let is_same = |app: &App| app.is_declared_as(&count.newest);
            count.old.iter().all(|server| server.spec.app.as_ref().is_some_and(is_same))
        }
    }
}

fn finish_step(progress: &mut RolloutProgress, now: Timestamp) {
    progress.steps_done = progress.steps_done.saturating_add(1);
    progress.step_since = Some(Time(now));
}

fn abort(progress: &mut RolloutProgress, reason: &str, message: String, now: Timestamp) {
    progress.aborted.get_or_insert(Abort { reason: reason.to_owned(), message, at: Time(now) });
    progress.progressed_at = None;
}

/// Whether a failure can turn the roll-out back now.
fn can_roll_back(deployment: &VMDeployment, count: &RolloutCount<'_>, progress: &RolloutProgress) -> bool {
    let rollout = &deployment.spec.rollout;
    let is_irreversible = rollout.irreversible_after.is_some_and(|step| progress.steps_done + 1 >= step);
    !is_irreversible && has_another_stable_app(deployment, count)
}

fn has_another_stable_app(deployment: &VMDeployment, count: &RolloutCount<'_>) -> bool {
    let stable = deployment.status.as_ref().and_then(|status| status.stable_app.as_ref());
    // With another content alone there is nothing to go back to: what ConfigMaps contained before is gone.
    stable.is_some_and(|stable| !stable.is_declared_as(&count.newest))
}

/// What is known of the routes whose weights follow the roll-out.
fn routes(deployment: &VMDeployment) -> &[HttpRouteStatus] {
    deployment.status.as_ref().map_or(&[], |status| status.http_routes.as_slice())
}

/// Whether the next step may begin: enough Servers have the newest application and are well, or were restarted, the pause or the bake is
/// over, or the checks have passed. As many of the Servers may be unavailable as the budget allows: one broken machine does not hold up a roll-out.
fn is_done(
    step: &RolloutStep,
    progress: &RolloutProgress,
    deployment: &VMDeployment,
    count: &RolloutCount<'_>,
    now: Timestamp,
) -> bool {
    let rollout = &deployment.spec.rollout;
    if let Some(wanted) = target(step, count) {
        let well = wanted.saturating_sub(count.budget.max_unavailable).max(1).min(wanted);
        return count.updated() >= wanted && count.under_way == 0 && count.proven >= well;
    }
    if let Some(weight) = step.weight {
        return split::obstacle(weight, rollout, progress, count, routes(deployment)).is_none();
    }
    if step.analysis.is_some() {
        return analysis::has_passed(rollout, progress);
    }
    if step.baseline.is_some() {
        return baseline::is_done(deployment, count, progress, now);
    }
    if let Some(end) = bake::end(rollout, progress) {
        return end <= now && bake::are_well(count);
    }
    pause(rollout, progress).and_then(PauseEnd::at).is_some_and(|end| end <= now)
}

/// Where the roll-out is in its steps, and what the current one waits for. None without steps, and when all are done.
pub(crate) fn waiting_for(
    deployment: &VMDeployment,
    count: &RolloutCount<'_>,
    progress: &RolloutProgress,
    now: Timestamp,
) -> Option<String> {
    let rollout = &deployment.spec.rollout;
    let step = current(rollout, progress)?;
    let place = format!("step {} of {}", index(progress) + 1, rollout.steps.len());
    if let Some(wanted) = target(step, count) {
        let (well, revision) = (count.proven, count.newest.effective_revision());
        return Some(format!("{place}: {well} of {wanted} Servers are well with revision {revision}"));
    }
    if let Some(weight) = step.weight {
        let Obstacle { needs_person, message } = split::obstacle(weight, rollout, progress, count, routes(deployment))?;
        let whom = if needs_person { "a person: " } else { "" };
        return Some(format!("{whom}{place}: {message}"));
    }
    if step.analysis.is_some() {
        return analysis::waiting_for(rollout, progress);
    }
    if let Some(approve) = &step.approve {
        return Some(approval::waiting_for(&place, approve, rollout, progress));
    }
    if step.baseline.is_some() {
        return baseline::waiting_for(&place, deployment, count, progress, now);
    }
    if let Some(end) = bake::end(rollout, progress) {
        return Some(bake::waiting_for(&place, end, count, now));
    }
    Some(match pause(rollout, progress)? {
        PauseEnd::At(end) => format!("{place}: a pause until {end}"),
        PauseEnd::Promoted => format!(
            "a person: {place} is a pause that ends when a person promotes the roll-out: \
             spec.rollout.request {{action: Promote, id: <a new value>}}"
        ),
    })
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
