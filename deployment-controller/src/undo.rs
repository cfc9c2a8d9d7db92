//! Which application is wanted: the declared one, or an earlier one because a person has gone back to it. Pure.
//!
//! A request that decides this anew is carried out before everything else: `Undo`, the end of one by `Retry`, and `Restart` (see `restart`).
//! That a version was undone is a fact in `status.rollout.undone`, as an abort is. `spec` stays as it is, so that no GitOps tool has
//! anything to undo.
//!
//! Versions are compared as they are declared, whatever their ConfigMaps and Secrets contain: what those contained before is gone.

use std::borrow::Cow;

use berth_core::{
    api::{App, OnFailure, RolloutAction, RolloutProgress, RolloutRequest, Undone, VMDeployment},
    digest,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{history::Revision, replica_set::newest_app, restart, steps};

/// The request that decides anew which application is wanted, if it has not been carried out yet.
pub(crate) fn pending(deployment: &VMDeployment) -> Option<&RolloutRequest> {
    let progress = deployment.status.as_ref().and_then(|status| status.rollout.as_ref());
    let request = deployment.spec.rollout.request.as_ref()?;
    let is_new = progress.and_then(|known| known.observed_request.as_ref()) != Some(&request.id);
    let decides = match request.action {
        RolloutAction::Undo | RolloutAction::Restart => true,
        RolloutAction::Retry => in_force(deployment).is_some() && progress.is_none_or(|known| known.aborted.is_none()),
        RolloutAction::Promote | RolloutAction::PromoteFull | RolloutAction::Abort => false,
    };
    (is_new && decides).then_some(request)
}

/// What was deployed in place of the declared application, unless another one has been declared since.
fn in_force(deployment: &VMDeployment) -> Option<&Undone> {
    let undone = deployment.status.as_ref()?.rollout.as_ref()?.undone.as_ref()?;
    (undone.digest == digest::short(&declared(deployment))).then_some(undone)
}

/// The declared application.
fn declared(deployment: &VMDeployment) -> App {
    newest_app(deployment).as_declared()
}

/// The VMDeployment as it is wanted: with the last restart, whatever it declares, and with the application that a person has gone back to in
/// place of the declared one. That one goes
/// to every Server, without steps and checks, also while the roll-out is paused, and a failure does not bring back what was undone.
pub(crate) fn wanted(deployment: &VMDeployment) -> Cow<'_, VMDeployment> {
    let progress = deployment.status.as_ref().and_then(|status| status.rollout.as_ref());
    let (has_undone, restart) = (progress.is_some_and(|known| known.undone.is_some()), restart::requested(deployment));
    if !has_undone && deployment.spec.app.restart.as_deref() == restart {
        return Cow::Borrowed(deployment);
    }
    let mut wanted = deployment.clone();
    if let Some(undone) = in_force(deployment) {
        wanted.spec.app = undone.app.clone();
        let rollout = &mut wanted.spec.rollout;
        (rollout.steps, rollout.partition, rollout.paused) = (Vec::new(), 0, false);
        (rollout.background, rollout.alarms, rollout.spread) = (None, None, None);
        rollout.after = Vec::new();
        (rollout.on_failure, rollout.max_failed) = (OnFailure::Pause, None);
    } else if let Some(progress) = wanted.status.as_mut().and_then(|status| status.rollout.as_mut()) {
        progress.undone = None;
    }
    wanted.spec.app.restart = restart.map(str::to_owned);
    Cow::Owned(wanted)
}

/// Carries the request out: how the roll-out stands after it. `content`: what the ConfigMaps and Secrets of the application contain that
/// is wanted before; `history`: the versions that there are.
pub(crate) fn carry_out(
    deployment: &VMDeployment,
    content: Option<String>,
    request: &RolloutRequest,
    history: &[Revision],
    now: Timestamp,
) -> RolloutProgress {
    let known = deployment.status.as_ref().and_then(|status| status.rollout.clone()).unwrap_or_default();
    let (declared, wanted) = (declared(deployment), wanted_with(deployment, content));
    if request.action == RolloutAction::Restart {
        return restart::carry_out(&wanted, request, now);
    }
    let newest = newest_app(&wanted);
    let target = match request.action {
        RolloutAction::Undo => target(&declared, &present(&wanted, &newest), request.to_revision, history),
        _ => Ok(declared.clone()),
    };
    let observed_request = Some(request.id.clone());
    let app = match target {
        Ok(app) => app,
        Err(refused) => return RolloutProgress { observed_request, refused: Some(refused), ..known },
    };
    let digest = digest::short(&app);
    let is_again = newest.is_declared_as(&app) && known.is_about(&newest);
    let undone = (app != declared).then(|| Undone {
        revision: declared.effective_revision(),
        digest: digest::short(&declared),
        app,
        message: steps::requested_by(request),
        at: Time(now),
    });
    let retries = if is_again { known.retries.saturating_add(1) } else { 0 };
    RolloutProgress {
        digest,
        progressed_at: Some(Time(now)),
        retries,
        observed_request,
        undone,
        restart: known.restart,
        ..RolloutProgress::default()
    }
}

/// The application to go back to, or why there is none.
fn target(declared: &App, present: &App, number: Option<i64>, history: &[Revision]) -> Result<App, String> {
    let Some(number) = number else {
        let is_earlier = |app: &App| app != present && app != declared;
        let stable =
            history.iter().filter(|revision| revision.was_stable && revision.app.as_ref().is_some_and(is_earlier));
        let last = stable.max_by_key(|revision| revision.number).and_then(|revision| revision.app.clone());
        return last.ok_or_else(|| {
            format!("no other revision was ever stable: name one by toRevision; {}", there_are(history))
        });
    };
    let found = history.iter().find(|revision| revision.number == number);
    let found = found.ok_or_else(|| format!("there is no revision {number} any more; {}", there_are(history)))?;
    match &found.app {
        Some(app) if app == present => Err(format!("revision {} is the present one", found.label())),
        Some(app) => Ok(app.clone()),
        None => Err(format!("revision {} cannot be read by this version of Berth", found.label())),
    }
}

fn wanted_with(deployment: &VMDeployment, content: Option<String>) -> VMDeployment {
    let mut wanted = wanted(deployment).into_owned();
    wanted.spec.app.content_digest = content;
    wanted
}

/// The application that Servers get at present. `newest`: the wanted one.
fn present(wanted: &VMDeployment, newest: &App) -> App {
    let stable = wanted.status.as_ref().and_then(|status| status.stable_app.as_ref());
    let is_aborted = steps::aborted(wanted, newest).is_some();
    stable.filter(|_| is_aborted).unwrap_or(newest).as_declared()
}

fn there_are(history: &[Revision]) -> String {
    let mut numbers: Vec<&Revision> = history.iter().collect();
    numbers.sort_by_key(|revision| revision.number);
    let labels: Vec<String> = numbers.into_iter().map(Revision::label).collect();
    if labels.is_empty() { "there are none".to_owned() } else { format!("there are {}", labels.join(", ")) }
}

#[cfg(test)]
#[path = "undo_tests.rs"]
pub(crate) mod tests;
