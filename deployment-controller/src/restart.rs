//! Starting the application of every Server anew, because a person wants it. Pure.
//!
//! That a restart was requested is a fact in `status.rollout.restart`. It makes the wanted application another one, which goes to the
//! Servers as every other one does, one after the other within the budget, but without steps and checks: it is the stable code.

use berth_core::{
    api::{App, Restart, RolloutProgress, RolloutRequest, VMDeployment},
    digest,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{replica_set::newest_app, steps};

/// The restart that the application is started for; none if none was ever requested.
pub(crate) fn requested(deployment: &VMDeployment) -> Option<&str> {
    let progress = deployment.status.as_ref()?.rollout.as_ref()?;
    Some(progress.restart.as_ref()?.id.as_str())
}

/// Carries the request out: how the roll-out stands after it. `wanted`: the VMDeployment as it is wanted, with its content.
pub(crate) fn carry_out(wanted: &VMDeployment, request: &RolloutRequest, now: Timestamp) -> RolloutProgress {
    let known = wanted.status.as_ref().and_then(|status| status.rollout.clone()).unwrap_or_default();
    let newest = newest_app(wanted);
    let observed_request = Some(request.id.clone());
    if let Some(refused) = refusal(wanted, &newest) {
        return RolloutProgress { observed_request, refused: Some(refused), ..known };
    }
    let app = App { restart: observed_request.clone(), ..newest };
    let message = steps::requested_by(request);
    RolloutProgress {
        digest: digest::short(&app),
        progressed_at: Some(Time(now)),
        revision_number: known.revision_number,
        observed_request,
        undone: known.undone,
        restart: Some(Restart { id: request.id.clone(), message, at: Time(now) }),
        ..RolloutProgress::default()
    }
}

/// Why nothing is restarted: what Servers have is about to change anyway, or is not what is declared.
fn refusal(wanted: &VMDeployment, newest: &App) -> Option<String> {
    let revision = newest.effective_revision();
    let Some(stable) = wanted.status.as_ref().and_then(|status| status.stable_app.as_ref()) else {
        return Some(format!(
            "revision {revision} is being rolled out for the first time: request Restart when it is stable"
        ));
    };
    if steps::aborted(wanted, newest).is_some() {
        return Some(format!(
            "the roll-out of revision {revision} was aborted: declare {} again, and then request Restart",
            stable.effective_revision()
        ));
    }
    (!stable.is_same_code(newest))
        .then(|| format!("revision {revision} is being rolled out: request Restart when it is stable"))
}
