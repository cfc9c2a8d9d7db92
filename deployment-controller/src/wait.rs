//! What a VMDeployment waits for, and on whom. Pure.

use berth_core::{
    api::VMDeploymentStatus,
    conditions::{self, READY, RECONCILING},
};

use crate::{
    analysis,
    assessment::Assessment,
    bake, baseline,
    held::{HeldBy, Hold},
    observed::ObservedDeployment,
    replica_set, rollout, stable,
    steps::{self, PauseEnd},
};

/// Reason: Servers with the stable version are restarted, to compare the new one with them.
const RESTARTING_BASELINE: &str = "RestartingBaseline";

/// What a VMDeployment waits for that is neither stalled nor done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// One word in CamelCase.
    pub(crate) reason: String,
    /// What for, and who has to act.
    pub(crate) message: String,
}

impl Wait {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }

    fn for_person(reason: &str, message: &str) -> Self {
        Self::new(reason, format!("a person: {message}"))
    }
}

/// What the VMDeployment waits for, if it is not stalled; none when everything is as declared. `is_rolled_out`: the roll-out of the
/// application has nothing left to do.
pub(crate) fn find(
    observed: &ObservedDeployment<'_>,
    assessment: &Assessment<'_>,
    status: &VMDeploymentStatus,
    is_rolled_out: bool,
) -> Option<Wait> {
    if observed.set.is_none() {
        return Some(Wait::new("CreatingReplicaSet", "its VMReplicaSet to be created"));
    }
    if is_rolled_out { of_set(observed, assessment) } else { Some(of_roll_out(observed, assessment, status)) }
}

fn of_roll_out(observed: &ObservedDeployment<'_>, assessment: &Assessment<'_>, status: &VMDeploymentStatus) -> Wait {
    let back = |count: usize, revision: &str| {
        Wait::new("RollingBack", format!("{count} Servers to get revision {revision} back"))
    };
    if assessment.progress.aborted.is_some() {
        return back(assessment.count.updated(), status.stable_revision.as_deref().unwrap_or_default());
    }
    let is_restart = steps::is_restart(observed.deployment, &assessment.count);
    if assessment.progress.undone.is_some() && !is_restart && assessment.hold.is_none() && assessment.count.left > 0 {
        return back(assessment.count.left, &assessment.count.newest.effective_revision());
    }
    let is_left = status.updated_replicas < status.replicas;
    match &assessment.hold {
        Some(Hold { by: HeldBy::Event(reason), message }) => return Wait::new(reason, message),
        Some(hold) if is_left => return Wait::for_person("Paused", &hold.message),
        _ => {}
    }
    let spared = || rollout::spared(observed.deployment, observed.servers, observed.now);
    let spared = spared().map(|note| Wait::for_person("Forced", &note));
    let of_zone = || assessment.zone_wait.clone().map(|message| Wait::new("WaitingForZone", message));
    let wait = spared.or_else(of_zone).or_else(|| of_step(observed, assessment)).or_else(|| said_by_set(observed));
    wait.unwrap_or_else(|| {
        let (updated, all) = (status.updated_replicas, status.replicas);
        if let Some(restart) = assessment.progress.restart.as_ref().filter(|_| is_restart) {
            let message = format!("{updated} of {all} Servers have been restarted ({})", restart.message);
            return Wait::new("Restarting", message);
        }
        let revision = assessment.count.newest.effective_revision();
        Wait::new("RollingOut", format!("{updated} of {all} Servers have revision {revision}"))
    })
}

fn of_step(observed: &ObservedDeployment<'_>, assessment: &Assessment<'_>) -> Option<Wait> {
    let message = steps::waiting_for(observed.deployment, &assessment.count, &assessment.progress, observed.now)?;
    let rollout = &observed.deployment.spec.rollout;
    let reason = match steps::pause(rollout, &assessment.progress) {
        _ if analysis::undecided(rollout, &assessment.progress).is_some() => "AnalysisInconclusive",
        _ if analysis::step(rollout, &assessment.progress).is_some() => "Analysing",
        _ if steps::approval(rollout, &assessment.progress).is_some() => "WaitingForPromotion",
        _ if baseline::step(rollout, &assessment.progress).is_some() => RESTARTING_BASELINE,
        _ if bake::end(rollout, &assessment.progress).is_some() => "Baking",
        Some(PauseEnd::Promoted) => "WaitingForPromotion",
        Some(PauseEnd::At(_)) => "Pausing",
        None => "RollingOut",
    };
    Some(Wait::new(reason, message))
}

/// What the set waits for, in its own words.
fn said_by_set(observed: &ObservedDeployment<'_>) -> Option<Wait> {
    let message = observed.set_waiting_for()?;
    let conditions = observed.set?.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let reason =
        conditions::get_true(conditions, RECONCILING).map_or("WaitingForServers", |condition| &condition.reason);
    Some(Wait::new(reason, message))
}

/// What the set still has to do. Until it has taken the declaration over, it describes an earlier one.
fn of_set(observed: &ObservedDeployment<'_>, assessment: &Assessment<'_>) -> Option<Wait> {
    let set = observed.set?;
    let desired = replica_set::desired(observed.deployment, stable::initial_app(observed, assessment));
    let status = set.status.as_ref().filter(|status| status.observed_generation == set.metadata.generation);
    let Some(status) = status.filter(|_| !replica_set::differs(Some(set), &desired)) else {
        return Some(Wait::new("WaitingForReplicaSet", "its VMReplicaSet to take the declaration over"));
    };
    if conditions::get_true(&status.conditions, READY).is_some() {
        return None;
    }
    Some(said_by_set(observed).unwrap_or_else(|| Wait::new("WaitingForServers", "its VMReplicaSet to be Ready")))
}
