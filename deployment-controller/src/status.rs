//! The status of a VMDeployment.

use std::{cmp::Reverse, collections::BTreeMap};

use berth_core::{
    api::{App, RevisionCount, RolloutProgress, Server, VMDeploymentStatus},
    budget::Budget,
    conditions::{self, AVAILABLE, PROGRESSING, Standing},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    after::WAITING_FOR_OTHER,
    alarms, analysis,
    assessment::Assessment,
    background, bake,
    content::UNKNOWN,
    held::HeldBy,
    hold::FAILED,
    observed::ObservedDeployment,
    stable,
    stall::{self, DeploymentStall},
    steps::{self, PauseEnd},
    wait::{self, Wait},
};

/// From one look at the VMDeployments that a roll-out waits for to the next: as often as at the content of ConfigMaps.
const LOOK_AT_OTHERS: SignedDuration = SignedDuration::from_secs(15);

/// So many revisions are counted in the status at most, as its schema says.
const MAX_REVISIONS: usize = 32;

/// The status, and the time at which it changes although no object does. Computing it twice from the same objects gives the
/// same status.
pub(crate) fn compute(observed: &ObservedDeployment<'_>) -> (VMDeploymentStatus, Option<Timestamp>) {
    let deployment = observed.deployment;
    let assessment = Assessment::of(observed);
    let mut status = counts(observed, &assessment);
    let is_done = assessment.count.is_complete()
        && assessment.has_no_step_left
        && assessment.progress.aborted.is_none()
        && assessment.progress.undone.is_none()
        && [status.replicas, to_i32(observed.active().count())].iter().all(|n| *n == deployment.spec.replicas);
    let stall = stall::find(observed, &assessment);
    let wait = wait::find(observed, &assessment, &status, is_done).filter(|_| stall.is_none());
    status.waiting_for = waiting_for(observed, &assessment, stall.as_ref(), wait.as_ref());
    let standing = match (&stall, &wait) {
        (Some(stall), _) => Standing::Stalled { reason: stall.reason, message: &stall.message },
        (None, Some(wait)) => Standing::Reconciling { reason: &wait.reason, waits_for: &wait.message },
        (None, None) => Standing::Ready,
    };
    conditions::set_standing(&mut status.conditions, standing, deployment.metadata.generation, observed.now);
    set_conditions(observed, &assessment, &mut status, is_done, stall.as_ref());
    let pause = steps::pause(&deployment.spec.rollout, &assessment.progress).and_then(PauseEnd::at);
    let bake = bake::end(&deployment.spec.rollout, &assessment.progress);
    let is_held = assessment.hold.as_ref().is_some_and(|hold| !hold.is_waiting());
    let is_following = assessment.hold.as_ref().is_some_and(|hold| hold.by == HeldBy::Event(WAITING_FOR_OTHER));
    let others = is_following.then(|| observed.now.checked_add(LOOK_AT_OTHERS).ok()).flatten();
    let looks = [analysis::next_look, background::next_look, alarms::next_look];
    let looks = looks.into_iter().filter_map(|next| next(&deployment.spec.rollout, &assessment.progress));
    let looks = looks.filter(|_| !is_held);
    (
        status,
        next_change(
            observed,
            assessment
                .deadline
                .into_iter()
                .chain(pause)
                .chain(bake)
                .chain(assessment.next_zone)
                .chain(others)
                .chain(looks),
        ),
    )
}

/// What is waited for. A request of which nothing came is answered first.
fn waiting_for(
    observed: &ObservedDeployment<'_>,
    assessment: &Assessment<'_>,
    stall: Option<&DeploymentStall>,
    wait: Option<&Wait>,
) -> Option<String> {
    let stalled = stall.map(|stall| format!("a person: {}", stall.message));
    let waiting_for = stalled.or_else(|| wait.map(|wait| wait.message.clone()));
    let request = observed.deployment.spec.rollout.request.as_ref();
    let Some((refused, request)) = assessment.progress.refused.as_ref().zip(request) else { return waiting_for };
    let refused = format!("a person: nothing came of the request {} ({:?}): {refused}", request.id, request.action);
    Some(waiting_for.map_or_else(|| refused.clone(), |other| format!("{refused}; besides, {other}")))
}

/// Whether a roll-out has gone on to another step, was aborted, or a request was carried out.
pub(crate) fn has_turned(before: Option<&RolloutProgress>, after: Option<&RolloutProgress>) -> bool {
    let course = |progress: Option<&RolloutProgress>| {
        progress.map(|known| RolloutProgress { healthy_replicas: 0, progressed_at: None, ..known.clone() })
    };
    course(before) != course(after)
}

/// The status without `waitingFor`; its conditions are those that the VMDeployment has.
fn counts(observed: &ObservedDeployment<'_>, assessment: &Assessment<'_>) -> VMDeploymentStatus {
    let ObservedDeployment { deployment, now, .. } = *observed;
    let count = |holds: &dyn Fn(&Server) -> bool| to_i32(observed.active().filter(|server| holds(server)).count());
    let known = deployment.status.clone().unwrap_or_default();
    let newest = &assessment.count.newest;
    let stable = stable::recorded(observed, assessment);
    // The set also counts the Servers that have no state yet, which the cache of this controller does not hold.
    let counted_by_set = observed.own_set().and_then(|set| set.status.as_ref()).map(|status| status.replicas);
    VMDeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: counted_by_set.unwrap_or_else(|| count(&|_| true)),
        ready_replicas: count(&Server::is_ready),
        available_replicas: count(&|server| server.is_available(deployment.spec.min_ready_seconds, now)),
        updated_replicas: count(&|server| runs(server, newest)),
        revision: Some(newest.effective_revision()),
        stable_revision: stable.as_ref().map(App::effective_revision).or(known.stable_revision.clone()),
        stable_since: stable_since(&known, stable.as_ref(), now),
        stable_app: stable,
        content_digest: deployment.spec.app.content_digest.clone().filter(|content| content != UNKNOWN),
        revisions: revisions(observed),
        http_routes: known.http_routes,
        rollout: Some(assessment.progress.clone()),
        selector: Some(deployment.selector_text()),
        waiting_for: None,
        conditions: known.conditions,
    }
}

/// Since when this application has been the stable one. A status of an older version does not say it: then it is since now.
fn stable_since(known: &VMDeploymentStatus, stable: Option<&App>, now: Timestamp) -> Option<Time> {
    let is_same = known.stable_app.as_ref().zip(stable).is_some_and(|(known, stable)| known.is_same_code(stable));
    let since = known.stable_since.clone().filter(|_| is_same);
    // As the API stores it.
    stable.and(since.or_else(|| Timestamp::from_second(now.as_second()).ok().map(Time)))
}

/// How many Servers declare each revision: the most common ones, by their names.
fn revisions(observed: &ObservedDeployment<'_>) -> Vec<RevisionCount> {
    let mut counts: BTreeMap<String, RevisionCount> = BTreeMap::new();
    for (server, app) in observed.active().filter_map(|server| Some((server, server.spec.app.as_ref()?))) {
        let revision = app.effective_revision();
        let count = counts.entry(revision.clone()).or_insert_with(|| RevisionCount { revision, ..Default::default() });
        count.replicas += 1;
        count.ready_replicas += i32::from(server.is_ready());
    }
    let mut counts: Vec<RevisionCount> = counts.into_values().collect();
    counts.sort_by_key(|count| Reverse(count.replicas));
    counts.truncate(MAX_REVISIONS);
    counts.sort_by(|one, other| one.revision.cmp(&other.revision));
    counts
}

/// Whether the Server runs this application, as read back from its machine. Its digest includes the port that the
/// application gets on this Server.
fn runs(server: &Server, app: &App) -> bool {
    // As the Server declares it, where it was restarted as a baseline.
    let app = server.spec.app.as_ref().filter(|declared| declared.is_as_wanted(app)).unwrap_or(app);
    let fact = server.status.as_ref().and_then(|status| status.app.as_ref());
    fact.is_some_and(|fact| {
        fact.revision == app.effective_revision() && fact.digest == app.digest(server.spec.app_port())
    })
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn set_conditions(
    observed: &ObservedDeployment<'_>,
    assessment: &Assessment<'_>,
    status: &mut VMDeploymentStatus,
    is_done: bool,
    stall: Option<&DeploymentStall>,
) {
    let deployment = observed.deployment;
    let available = usize::try_from(status.available_replicas).unwrap_or(0);
    let enough = Budget::of_deployment(deployment).is_met_by(available);
    let mut set = |condition, is_true, reason, message: &str| {
        let generation = deployment.metadata.generation;
        conditions::set(&mut status.conditions, condition, is_true, reason, message, generation, observed.now);
    };
    let message = format!("{available} of {} Servers are available", deployment.spec.replicas);
    set(AVAILABLE, enough, if enough { "EnoughAvailable" } else { "TooFewAvailable" }, &message);
    let has_failed = stall.filter(|stall| FAILED.contains(&stall.reason));
    let aborted = assessment.progress.aborted.as_ref();
    let is_restart = steps::is_restart(deployment, &assessment.count);
    match has_failed {
        _ if aborted.is_some() => {
            let (is_going_back, reason) =
                if assessment.count.updated() > 0 { (true, "RollingBack") } else { (false, "RolledBack") };
            let message = aborted.map_or("", |abort| abort.message.as_str());
            set(PROGRESSING, is_going_back, reason, message);
        }
        None if let Some(undone) = assessment.progress.undone.as_ref().filter(|_| !is_restart) => {
            let is_there = assessment.is_achieved();
            set(PROGRESSING, !is_there, if is_there { "RolledBack" } else { "RollingBack" }, &undone.message);
        }
        Some(stall) => set(PROGRESSING, false, stall.reason, &stall.message),
        None if is_done => set(PROGRESSING, false, "Complete", ""),
        None if assessment.count.is_settled() && assessment.has_no_step_left => {
            set(PROGRESSING, true, "WaitingForServers", "");
        }
        None if is_restart => set(PROGRESSING, true, "Restarting", ""),
        None => set(PROGRESSING, true, "RollingOut", ""),
    }
}

/// When the next Ready Server becomes available, or one of these times comes: the roll-out's deadline, the end of a pause or bake, the turn of a zone, the next
/// look at checks.
fn next_change(observed: &ObservedDeployment<'_>, times: impl Iterator<Item = Timestamp>) -> Option<Timestamp> {
    let seconds = observed.deployment.spec.min_ready_seconds;
    let ready = observed.active().filter(|server| server.is_ready());
    let available = ready.filter_map(|server| server.available_at(seconds));
    available.chain(times).filter(|at| *at > observed.now).min()
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
