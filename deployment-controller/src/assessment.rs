//! How a roll-out stands: what it has achieved, what holds it, and whether it is late.

use berth_core::api::{OnFailure, RolloutProgress, VMDeployment};
use k8s_openapi::jiff::Timestamp;

use crate::{
    after::{self, WAITING_FOR_OTHER},
    alarms::{self, ALARM_FIRING},
    analysis::{self, ANALYSIS_FAILED},
    background::{self, BACKGROUND_CHECK_FAILED},
    bake, baseline,
    count::RolloutCount,
    held::{HeldBy, Hold},
    hold::{TOO_MANY_FAILED, hold, too_many_failed},
    observed::ObservedDeployment,
    progress, rollout,
    steps::{self, Failure},
    zones::Zones,
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
    /// What the next zone waits for, if nothing else is to be done before it has its turn.
    pub(crate) zone_wait: Option<String>,
    /// When the next zone has its turn, if nothing but time is waited for.
    pub(crate) next_zone: Option<Timestamp>,
}

impl<'a> Assessment<'a> {
    /// Assesses the roll-out.
    pub(crate) fn of(observed: &ObservedDeployment<'a>) -> Self {
        let ObservedDeployment { deployment, servers, missing_content, looks, alarm_look, others, now, .. } = *observed;
        let rollout = &deployment.spec.rollout;
        let count = RolloutCount::of(deployment, servers, now);
        let known = steps::recorded(deployment, &count.newest);
        let hold_at = |progress: Option<&RolloutProgress>| hold(deployment, &count, missing_content, progress, now);
        let held_before = hold_at(known);
        let is_spared = rollout::spared(deployment, servers, now).is_some();
        let waits = |known| {
            steps::pause(rollout, known).is_some()
                || analysis::step(rollout, known).is_some()
                || steps::approval(rollout, known).is_some()
                || bake::is_under_way(rollout, known, now)
                || baseline::step(rollout, known).is_some()
        };
        let in_pause = known.is_some_and(waits);
        let zones = rollout::zones(observed, &count);
        let next_zone = zones.as_ref().and_then(Zones::next_turn);
        let is_held = held_before.is_some() || is_spared || in_pause || next_zone.is_some();
        let progress = progress::next(deployment, &count, is_held, now);
        let is_late = progress::deadline(deployment, &progress).is_some_and(|at| at <= now);
        let progress = analysis::count(progress, rollout, looks);
        let progress = alarms::count(progress, rollout, alarm_look);
        let failure = failure(deployment, &count, &progress, is_late);
        let is_held = hold_at(Some(&progress)).is_some();
        let progress = steps::advance(progress, deployment, &count, failure, is_held, others, now);
        // A look, or a person who promotes the roll-out, changes whether checks and alarms hold it.
        let mut hold = hold_at(Some(&progress));
        if let Some(Hold { by: HeldBy::Event(WAITING_FOR_OTHER), message }) = &mut hold
            && let Some(exactly) = after::waiting_for(rollout, others, &count.newest, now)
        {
            *message = exactly;
        }
        let deadline = progress::deadline(deployment, &progress);
        let has_no_step_left = steps::current(rollout, &progress).is_none();
        let is_late = deadline.is_some_and(|at| at <= now);
        // What the present step allows is done; the zones have nothing to do with that.
        let is_left = steps::allowed(deployment, &count).min(count.target()) > count.updated()
            || baseline::is_left(deployment, &count, &progress, now);
        let zone_wait =
            zones.filter(|_| is_left).and_then(|zones| zones.waiting_for(&count.newest.effective_revision()));
        Self { count, hold, progress, deadline, is_late, has_no_step_left, zone_wait, next_zone }
    }

    /// Whether the roll-out has achieved its aim, so that the newest application is the stable one. Servers that take longer
    /// than the deadline do not hold that up: they count as unavailable.
    pub(crate) fn is_achieved(&self) -> bool {
        let has_failed = self.hold.as_ref().is_some_and(|hold| hold.stalled() == Some(TOO_MANY_FAILED));
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
    let rollout = &deployment.spec.rollout;
    let late = || {
        let seconds = rollout.progress_deadline_seconds;
        format!("no progress for {seconds} s (spec.rollout.progressDeadlineSeconds)")
    };
    let of = |reason, message: Option<String>| {
        message.map(|message| Failure { reason, message, answer: rollout.on_failure })
    };
    // A failure that does not turn the roll-out back must not hide one that does.
    let alarmed = of(ALARM_FIRING, alarms::failure(rollout, progress)).map(|failure| Failure {
        answer: rollout.alarms.as_ref().map_or(OnFailure::Pause, |alarms| alarms.on_firing),
        ..failure
    });
    let (turns_back, pauses): (Vec<_>, Vec<_>) =
        alarmed.into_iter().partition(|failure| failure.answer == OnFailure::Rollback);
    let failures = [
        of(TOO_MANY_FAILED, too_many_failed(deployment, count)),
        of(ANALYSIS_FAILED, analysis::failure(rollout, progress)),
        of(BACKGROUND_CHECK_FAILED, background::failure(rollout, progress)),
        of(PROGRESS_DEADLINE_EXCEEDED, is_late.then(late)),
    ];
    turns_back.into_iter().chain(failures.into_iter().flatten()).chain(pauses).next()
}
