//! Why a VMDeployment makes no progress until a person does something.

use berth_core::conditions::{self, STALLED};

use crate::{
    assessment::{Assessment, PROGRESS_DEADLINE_EXCEEDED},
    hold::missing_reason,
    observed::ObservedDeployment,
};

/// Reason: the roll-out was aborted, and every Server that had the new application has the stable one again.
const ABORTED: &str = "RolloutAborted";

/// Reason: a person has undone the declared application, and another one is deployed in its place.
const UNDONE: &str = "RolloutUndone";

/// Why the VMDeployment is stalled: reason and message of the condition `Stalled`.
pub(crate) struct DeploymentStall {
    /// One word in CamelCase.
    pub(crate) reason: &'static str,
    /// What is wrong, and what to do.
    pub(crate) message: String,
}

/// Why the VMDeployment is stalled; none when it is not.
pub(crate) fn find(observed: &ObservedDeployment<'_>, assessment: &Assessment<'_>) -> Option<DeploymentStall> {
    if let Some(set) = observed.foreign_set() {
        let message = format!(
            "VMReplicaSet {} exists, but this VMDeployment does not control it: delete it, or create the VMDeployment \
             under another name",
            set.name()
        );
        return Some(DeploymentStall { reason: "NotOwned", message });
    }
    if let Some(abort) = &assessment.progress.aborted {
        if assessment.count.updated() > 0 {
            // While it goes back, nobody has to do anything, except where it cannot.
            return observed.missing_content.map(|missing| DeploymentStall {
                reason: missing_reason(missing),
                message: format!("the stable revision cannot come back: {missing}"),
            });
        }
        let revision = assessment.count.newest.effective_revision();
        let message = format!(
            "the roll-out of revision {revision} was aborted ({}): declare another revision, or set spec.rollout.request to \
             {{action: Retry, id: <a new value>}}",
            abort.message
        );
        return Some(DeploymentStall { reason: ABORTED, message });
    }
    if let Some(undone) = assessment.progress.undone.as_ref().filter(|_| assessment.is_achieved()) {
        let message = format!(
            "revision {} was undone ({}), and revision {} is deployed in its place: declare another revision, or set \
             spec.rollout.request to {{action: Retry, id: <a new value>}}",
            undone.revision,
            undone.message,
            undone.app.effective_revision()
        );
        return Some(DeploymentStall { reason: UNDONE, message });
    }
    if let Some(hold) = &assessment.hold
        && let Some(reason) = hold.stalled()
    {
        return Some(DeploymentStall { reason, message: hold.message.clone() });
    }
    if assessment.is_late {
        return Some(DeploymentStall { reason: PROGRESS_DEADLINE_EXCEEDED, message: no_progress(observed) });
    }
    let of_set = conditions::get_true(&observed.set?.status.as_ref()?.conditions, STALLED)?;
    Some(DeploymentStall { reason: "ReplicaSetStalled", message: of_set.message.clone() })
}

fn no_progress(observed: &ObservedDeployment<'_>) -> String {
    let seconds = observed.deployment.spec.rollout.progress_deadline_seconds;
    let message = format!("no progress for {seconds} s (spec.rollout.progressDeadlineSeconds)");
    match observed.set_waiting_for() {
        Some(waiting_for) => format!("{message}; the VMReplicaSet waits for {waiting_for}"),
        None => message,
    }
}
