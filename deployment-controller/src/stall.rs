//! Why a VMDeployment makes no progress until a person does something.

use berth_core::{
    api::Server,
    conditions::{self, PROGRESSING, STALLED},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    observed::ObservedDeployment,
    rollout::{self, STEPS_NOT_SUPPORTED},
};

/// Why the VMDeployment is stalled: reason and message of the condition `Stalled`.
pub(crate) struct DeploymentStall {
    /// One word in CamelCase.
    pub(crate) reason: &'static str,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

/// Why the VMDeployment is stalled; none when it is not. `deadline` is that of a roll-out under way.
pub(crate) fn find(observed: &ObservedDeployment<'_>, deadline: Option<Timestamp>) -> Option<DeploymentStall> {
    if let Some(set) = observed.foreign_set() {
        let message = format!(
            "VMReplicaSet {} exists, but this VMDeployment does not control it: delete it, or create the VMDeployment \
             under another name",
            set.name()
        );
        return Some(DeploymentStall { reason: "NotOwned", message });
    }
    if !observed.deployment.spec.rollout.steps.is_empty() {
        return Some(DeploymentStall { reason: "NotSupported", message: STEPS_NOT_SUPPORTED.to_owned() });
    }
    if deadline.is_some_and(|at| at <= observed.now) {
        return Some(DeploymentStall { reason: "ProgressDeadlineExceeded", message: no_progress(observed) });
    }
    let of_set = conditions::get_true(&observed.set?.status.as_ref()?.conditions, STALLED)?;
    Some(DeploymentStall { reason: "ReplicaSetStalled", message: of_set.message.clone() })
}

/// When the roll-out has failed because nothing has progressed; none while it is held, or while only Servers that a person has
/// forced are left. Progress is its beginning and every change of a Server's state.
pub(crate) fn deadline(observed: &ObservedDeployment<'_>) -> Option<Timestamp> {
    let deployment = observed.deployment;
    let is_spared = rollout::spared(deployment, observed.servers, observed.now).is_some();
    if is_spared || rollout::hold_reason(deployment).is_some() {
        return None;
    }
    let status = deployment.status.as_ref();
    let progressing = status.and_then(|status| conditions::get_true(&status.conditions, PROGRESSING));
    let begun = progressing.map(|condition| condition.last_transition_time.0);
    let changes_of_state = observed.active().filter_map(Server::state_since);
    let seconds = i64::from(deployment.spec.rollout.progress_deadline_seconds);
    changes_of_state.chain(begun).max()?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn no_progress(observed: &ObservedDeployment<'_>) -> String {
    let seconds = observed.deployment.spec.rollout.progress_deadline_seconds;
    let message = format!("no progress for {seconds} s (spec.rollout.progressDeadlineSeconds)");
    match observed.set_waiting_for() {
        Some(waiting_for) => format!("{message}; the VMReplicaSet waits for {waiting_for}"),
        None => message,
    }
}
