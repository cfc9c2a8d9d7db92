//! The analysis of a step: when Prometheus is looked at next, what comes of a look, and what the roll-out waits for. Pure.
//!
//! What was seen stands in `status.rollout.analysis` before anything follows from it. A look counts only for the very record that it
//! was made for, so nothing of another version, another attempt or another declaration of the step ever counts, and of two copies that
//! look at the same time only one is counted.

use berth_core::api::{
    AnalysisProgress, AnalysisStep, App, CheckProgress, CheckVerdict, Rollout, RolloutProgress, VMDeployment,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    background, rollout_record,
    watch::{Watch, most_looks},
};

/// Reason: a check has failed at more looks than `maxFailures` allows.
pub(crate) const ANALYSIS_FAILED: &str = "AnalysisFailed";

/// Which record a look is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// `status.rollout.analysis`: the analysis or the evidence of the current step.
    Step,
    /// `status.rollout.background`.
    Background,
}

/// What one look at checks has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Which record it is about.
    pub(crate) subject: Subject,
    /// Digest of the application that it is about.
    pub(crate) app: String,
    /// The record that it was made for.
    pub(crate) of: AnalysisProgress,
    /// When it was made.
    pub(crate) at: Timestamp,
    /// What each check of the step says.
    pub(crate) results: Vec<CheckResult>,
}

/// What one check says at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckResult {
    /// Name of the check.
    pub(crate) name: String,
    /// What it says.
    pub(crate) verdict: CheckVerdict,
    /// The values that it says this on, or why there are none.
    pub(crate) message: String,
}

/// The analysis that has its turn; none if the current step is another one.
pub(crate) fn step<'a>(rollout: &'a Rollout, progress: &RolloutProgress) -> Option<&'a AnalysisStep> {
    rollout_record::current(rollout, progress)?.analysis.as_ref()
}

/// What the current step looks at; none if it looks at nothing.
pub(crate) fn watch<'a>(rollout: &'a Rollout, progress: &RolloutProgress) -> Option<Watch<'a>> {
    Watch::of(rollout_record::current(rollout, progress)?)
}

/// Records that the analysis of the current step, or the look at its evidence, begins, unless that stands there already.
pub(crate) fn begin(progress: &mut RolloutProgress, rollout: &Rollout, now: Timestamp) {
    let Some(watch) = watch(rollout, progress) else { return };
    if watched(rollout, progress).is_some() {
        return;
    }
    progress.analysis = Some(AnalysisProgress {
        step: progress.steps_done.saturating_add(1),
        attempt: progress.retries,
        digest: watch.digest(rollout),
        since: Time(now),
        looks: 0,
        looked_at: None,
        checks: Vec::new(),
    });
}

/// What the current step looks at, with its record, if the record is about it.
pub(crate) fn watched<'a>(
    rollout: &'a Rollout,
    progress: &'a RolloutProgress,
) -> Option<(Watch<'a>, &'a AnalysisProgress)> {
    let (watch, known) = (watch(rollout, progress)?, progress.analysis.as_ref()?);
    let is_it = known.step == progress.steps_done.saturating_add(1)
        && known.attempt == progress.retries
        && known.digest == watch.digest(rollout)
        && progress.aborted.is_none();
    is_it.then_some((watch, known))
}

/// The current step with its record, if it is an analysis and the record is about it.
pub(crate) fn recorded<'a>(
    rollout: &'a Rollout,
    progress: &'a RolloutProgress,
) -> Option<(&'a AnalysisStep, &'a AnalysisProgress)> {
    match watched(rollout, progress)? {
        (Watch::Analysis(step), known) => Some((step, known)),
        (Watch::Evidence(_) | Watch::Background(_), _) => None,
    }
}

/// Whether the roll-out of this application is in an analysis.
pub(crate) fn is_under_way(deployment: &VMDeployment, newest: &App) -> bool {
    let progress = rollout_record::recorded(deployment, newest);
    progress.is_some_and(|progress| recorded(&deployment.spec.rollout, progress).is_some())
}

/// Counts the looks that were made for what is recorded.
pub(crate) fn count(mut progress: RolloutProgress, rollout: &Rollout, looks: &[Look]) -> RolloutProgress {
    for look in looks.iter().filter(|look| look.app == progress.digest) {
        let known = match look.subject {
            Subject::Step => watched(rollout, &progress).map(|(_, known)| known),
            Subject::Background => background::recorded(rollout, &progress).map(|(_, known)| known),
        };
        if known != Some(&look.of) {
            continue;
        }
        let counted = Some(counted(&look.of, look));
        match look.subject {
            Subject::Step => progress.analysis = counted,
            Subject::Background => progress.background = counted,
        }
    }
    progress
}

fn counted(known: &AnalysisProgress, look: &Look) -> AnalysisProgress {
    let one = |result: &CheckResult| {
        let before = known.checks.iter().find(|check| check.name == result.name);
        let of = |n: fn(&CheckProgress) -> i32, verdict| before.map_or(0, n) + i32::from(result.verdict == verdict);
        CheckProgress {
            name: result.name.clone(),
            passes: of(|check| check.passes, CheckVerdict::Pass),
            failures: of(|check| check.failures, CheckVerdict::Fail),
            inconclusive: of(|check| check.inconclusive, CheckVerdict::Inconclusive),
            verdict: result.verdict,
            message: result.message.clone(),
        }
    };
    AnalysisProgress {
        looks: known.looks.saturating_add(1),
        looked_at: Some(Time(look.at)),
        checks: look.results.iter().map(one).collect(),
        ..known.clone()
    }
}

/// Why the analysis has failed; none if it has not.
pub(crate) fn failure(rollout: &Rollout, progress: &RolloutProgress) -> Option<String> {
    let (step, known) = recorded(rollout, progress)?;
    let failed = known.checks.iter().find(|check| check.failures > step.max_failures)?;
    let (place, looks) = (place(rollout, known), known.looks);
    Some(format!(
        "{place}: check {} has failed at {} of {looks} looks, at most {} may: {}",
        failed.name, failed.failures, step.max_failures, failed.message
    ))
}

/// Whether all checks have passed often enough.
pub(crate) fn has_passed(rollout: &Rollout, progress: &RolloutProgress) -> bool {
    let Some((step, known)) = recorded(rollout, progress) else { return false };
    let passed = |name: &String| known.checks.iter().any(|check| check.name == *name && check.passes >= step.count);
    !step.checks.is_empty() && step.checks.iter().all(passed) && failure(rollout, progress).is_none()
}

/// Why a person has to decide; none as long as looking again may lead to a verdict.
pub(crate) fn undecided(rollout: &Rollout, progress: &RolloutProgress) -> Option<String> {
    let (step, known) = recorded(rollout, progress)?;
    if has_passed(rollout, progress) || failure(rollout, progress).is_some() {
        return None;
    }
    let too_many = |most: i32| known.checks.iter().find(|check| check.inconclusive > most);
    let inconclusive = step.max_inconclusive.and_then(too_many);
    let is_over = u32::try_from(known.looks).unwrap_or(0) >= most_looks(step);
    let unsettled = || known.checks.iter().find(|check| check.passes < step.count);
    let check = inconclusive.or_else(|| unsettled().filter(|_| is_over))?;
    Some(format!(
        "{} has come to no verdict after {} looks: check {} passed at {} (of {} needed) and was inconclusive at {}; at last: {}. \
         To go on, set spec.rollout.request to {{action: Promote, id: <a new value>}}; to go back, {{action: Abort, ...}}",
        place(rollout, known),
        known.looks,
        check.name,
        check.passes,
        step.count,
        check.inconclusive,
        check.message
    ))
}

/// When Prometheus is looked at next; none if it is not.
pub(crate) fn next_look(rollout: &Rollout, progress: &RolloutProgress) -> Option<Timestamp> {
    let (watch, known) = watched(rollout, progress)?;
    let is_open = !watch.checks().is_empty()
        && failure(rollout, progress).is_none()
        && undecided(rollout, progress).is_none()
        && !has_passed(rollout, progress);
    watch.next(known).filter(|_| is_open)
}

/// What the analysis waits for; none if the current step is none. What begins with `a person:` goes on only with one.
pub(crate) fn waiting_for(rollout: &Rollout, progress: &RolloutProgress) -> Option<String> {
    let step = step(rollout, progress)?;
    if step.checks.is_empty() {
        return Some("a person: the analysis of the current step names no check (spec.rollout.steps)".to_owned());
    }
    if let Some(undecided) = undecided(rollout, progress) {
        return Some(format!("a person: {undecided}"));
    }
    let (step, known) = recorded(rollout, progress)?;
    let place = place(rollout, known);
    if known.looks == 0 {
        return Some(format!("{place}: the first look at {}", step.checks.join(", ")));
    }
    let open = step.checks.iter().filter_map(|name| known.checks.iter().find(|check| check.name == *name));
    let open =
        open.filter(|check| check.passes < step.count).max_by_key(|check| check.inconclusive + check.failures)?;
    Some(format!(
        "{place}: check {} has passed at {} of {} looks ({:?} at look {}: {})",
        open.name, open.passes, step.count, open.verdict, known.looks, open.message
    ))
}

fn place(rollout: &Rollout, known: &AnalysisProgress) -> String {
    format!("the analysis of step {} of {}", known.step, rollout.steps.len())
}

#[cfg(test)]
#[path = "analysis_tests.rs"]
mod tests;
