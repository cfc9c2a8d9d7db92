//! The Servers with the stable version that a roll-out restarts, to compare the new one with them: which ones, when that is done, and what
//! is waited for. Pure.
//!
//! The mark of the attempt stands in `status.rollout.baseline` before a Server is restarted for it, and then in `spec.app.baseline` of the
//! Server. So every copy of the controller counts the same Servers, and those of another attempt never count.

use berth_core::{
    api::{App, BaselineProgress, BaselineStep, Rollout, RolloutProgress, Server, VMDeployment},
    budget::at_least_one,
    digest,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    count::{Progress, RolloutCount, progress as progress_of},
    order,
    rollout_record::{current, index},
};

/// Names in a message: enough to begin with, few enough to read.
const NAMES: usize = 3;

/// The step that has its turn; none if the current step is another one.
pub(crate) fn step<'a>(rollout: &'a Rollout, progress: &RolloutProgress) -> Option<&'a BaselineStep> {
    current(rollout, progress)?.baseline.as_ref().filter(|_| progress.aborted.is_none())
}

/// Records the mark of this attempt when the first step of this kind begins, and forgets it when there is nothing to compare any more.
/// `is_gradual`: there is something to judge, which the first version and the stable one have behind them.
pub(crate) fn begin(progress: &mut RolloutProgress, rollout: &Rollout, is_gradual: bool, newest: &App, now: Timestamp) {
    let mut begun = rollout.steps.iter().take(index(progress) + 1);
    if !is_gradual || begun.all(|step| step.baseline.is_none()) {
        progress.baseline = None;
        return;
    }
    if step(rollout, progress).is_none() {
        return;
    }
    match &mut progress.baseline {
        Some(known) => known.none = None,
        None => {
            let attempt = (digest::short(newest), progress.retries, now.as_second());
            let mark = format!("baseline-{}", digest::short(&attempt));
            progress.baseline = Some(BaselineProgress { mark, since: Time(now), none: None });
        }
    }
}

/// Whether the Server was restarted in this attempt, and nothing else since.
pub(crate) fn is_restarted(server: &Server, progress: Option<&RolloutProgress>) -> bool {
    let mark = server.spec.app.as_ref().and_then(|app| app.baseline.as_deref());
    let known = progress.and_then(|progress| progress.baseline.as_ref());
    mark.is_some_and(|mark| known.is_some_and(|known| known.mark == mark))
}

/// With which Servers checks compare the new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Against<'a> {
    /// With all others.
    Others,
    /// With those that were restarted for that.
    Baseline,
    /// With all others, because there was nothing to restart, for this reason.
    OthersInstead(&'a str),
}

/// With which Servers checks compare the new version: with the restarted ones once the first step that restarts them is done.
pub(crate) fn against<'a>(rollout: &Rollout, progress: &'a RolloutProgress) -> Against<'a> {
    let has_done = rollout.steps.iter().take(index(progress)).any(|step| step.baseline.is_some());
    match progress.baseline.as_ref().filter(|_| has_done) {
        None => Against::Others,
        Some(BaselineProgress { none: Some(why), .. }) => Against::OthersInstead(why),
        Some(_) => Against::Baseline,
    }
}

/// The application with which the Servers of this roll-out are restarted, or why there is none.
pub(crate) fn app(deployment: &VMDeployment, newest: &App, known: &BaselineProgress) -> Result<App, String> {
    let baseline = Some(known.mark.clone());
    Ok(App { baseline, ..stable(deployment, newest)?.clone() })
}

fn stable<'a>(deployment: &'a VMDeployment, newest: &App) -> Result<&'a App, String> {
    let stable = deployment.status.as_ref().and_then(|status| status.stable_app.as_ref());
    let stable = stable.ok_or("no revision was stable before")?;
    if stable.is_declared_as(newest) {
        return Err(
            "only what ConfigMaps and Secrets contain is new, and with what they contained before nothing can be \
                    started"
                .to_owned(),
        );
    }
    Ok(stable)
}

/// The restarts of the step that has its turn.
#[derive(Clone, Debug)]
pub(crate) struct Restarts<'a> {
    /// How many Servers are to be restarted in all, as far as there are any.
    wanted: usize,
    /// Restarted ones that are available.
    well: usize,
    /// Names of restarted ones that have yet to prove themselves.
    under_way: Vec<&'a str>,
    /// Restarted ones whose start failed, with the reason.
    failed: Vec<(&'a str, String)>,
    /// How many were restarted whose machine is away by now, or that a person has forced. Others take their places.
    away: usize,
    /// Those that may be restarted now: those that the roll-out would update last come first.
    pub(crate) candidates: Vec<&'a Server>,
}

impl<'a> Restarts<'a> {
    /// Counts the restarts; none if the current step is another one, or if it is not recorded yet that it has begun.
    pub(crate) fn of(
        deployment: &VMDeployment,
        count: &RolloutCount<'a>,
        progress: &RolloutProgress,
        now: Timestamp,
    ) -> Option<Self> {
        let asked = step(&deployment.spec.rollout, progress)?;
        progress.baseline.as_ref()?;
        let min_ready_seconds = count.budget.min_ready_seconds;
        let stable = stable(deployment, &count.newest).ok();
        let mut restarts = Self { wanted: 0, well: 0, under_way: vec![], failed: vec![], away: 0, candidates: vec![] };
        let mut unwell = 0;
        let old = order::in_order(deployment.spec.rollout.order, &count.old);
        let (free, kept) = order::without_kept(&old, count.budget.partition);
        let is_stable = |server: &Server| {
            let app = server.spec.app.as_ref();
            !server.is_forced()
                && stable.is_some_and(|stable| app.is_some_and(|app| app == stable || app.is_declared_as(stable)))
        };
        let candidates = free.iter().rev().map(|server| (*server, true));
        for (server, is_free) in candidates.chain(kept.iter().map(|server| (*server, false))) {
            let found = || progress_of(server, min_ready_seconds, now);
            if is_restarted(server, Some(progress)) {
                match found() {
                    Progress::Proven => restarts.well += 1,
                    Progress::UnderWay => restarts.under_way.push(server.name()),
                    Progress::Failed(reason) => restarts.failed.push((server.name(), reason)),
                    Progress::OutOfAction => restarts.away += 1,
                }
            } else if is_free && is_stable(server) {
                match found() {
                    Progress::Proven => restarts.candidates.push(server),
                    Progress::UnderWay => unwell += 1,
                    // What does not run the stable version well is nothing to compare with.
                    Progress::Failed(_) | Progress::OutOfAction => {}
                }
            }
        }
        let asked = at_least_one(Some(&asked.servers), 0, count.budget.replicas);
        restarts.wanted = asked.min(restarts.begun() + restarts.candidates.len() + unwell);
        Some(restarts)
    }

    /// How many were restarted and are still there. One whose start failed is among them: no other Server is restarted in its place.
    fn begun(&self) -> usize {
        self.well + self.under_way.len() + self.failed.len()
    }

    /// How many are still to be restarted.
    pub(crate) fn left(&self) -> usize {
        self.wanted.saturating_sub(self.begun())
    }

    /// Whether enough were restarted and are well. As many of them may be unavailable as the budget allows.
    pub(crate) fn is_done(&self, max_unavailable: usize) -> bool {
        let enough = self.wanted.saturating_sub(max_unavailable).max(1).min(self.wanted);
        self.left() == 0 && self.under_way.is_empty() && self.well >= enough
    }

    /// Whether there was nothing to restart.
    fn is_none(&self) -> bool {
        self.wanted == 0 && self.away == 0
    }
}

/// Whether the step is done.
pub(crate) fn is_done(
    deployment: &VMDeployment,
    count: &RolloutCount<'_>,
    progress: &RolloutProgress,
    now: Timestamp,
) -> bool {
    Restarts::of(deployment, count, progress, now)
        .is_some_and(|restarts| restarts.is_done(count.budget.max_unavailable))
}

/// Whether Servers are left to be restarted in the step that has its turn.
pub(crate) fn is_left(
    deployment: &VMDeployment,
    count: &RolloutCount<'_>,
    progress: &RolloutProgress,
    now: Timestamp,
) -> bool {
    Restarts::of(deployment, count, progress, now).is_some_and(|restarts| restarts.left() > 0)
}

/// Notes, before the step ends, that there was nothing to restart.
pub(crate) fn end(progress: &mut RolloutProgress, deployment: &VMDeployment, count: &RolloutCount<'_>, now: Timestamp) {
    let is_none = Restarts::of(deployment, count, progress, now).is_some_and(|restarts| restarts.is_none());
    if let Some(known) = progress.baseline.as_mut().filter(|_| is_none) {
        known.none = Some(nothing(deployment, count));
    }
}

fn nothing(deployment: &VMDeployment, count: &RolloutCount<'_>) -> String {
    match stable(deployment, &count.newest) {
        Ok(stable) => format!("no Server with revision {} was left to be restarted", stable.effective_revision()),
        Err(why) => why,
    }
}

/// What the step waits for; none if the current step is another one. What begins with `a person:` goes on only with one.
pub(crate) fn waiting_for(
    place: &str,
    deployment: &VMDeployment,
    count: &RolloutCount<'_>,
    progress: &RolloutProgress,
    now: Timestamp,
) -> Option<String> {
    let restarts = Restarts::of(deployment, count, progress, now)?;
    if restarts.wanted == 0 {
        return Some(format!("{place}: {}", nothing(deployment, count)));
    }
    let Restarts { wanted, well, under_way, failed, .. } = &restarts;
    let revision = stable(deployment, &count.newest).map_or_else(|_| String::new(), App::effective_revision);
    let text = format!(
        "{place}: {well} of {wanted} Servers with revision {revision} were restarted as a baseline and are well"
    );
    Some(match (failed.first(), under_way.len()) {
        (Some((name, reason)), 0) => format!(
            "a person: {text}; the start of {name} failed: {reason}. Repair or retry it (spec.retry), or set \
             spec.rollout.request to {{action: Promote, id: <a new value>}} or {{action: Abort, ...}}"
        ),
        (_, 0) => text,
        (_, several) => {
            let more = if several > NAMES { format!(" and {} more", several - NAMES) } else { String::new() };
            format!("{text}; waits for {}{more}", under_way.iter().take(NAMES).copied().collect::<Vec<_>>().join(", "))
        }
    })
}

#[cfg(test)]
#[path = "baseline_tests.rs"]
mod tests;
