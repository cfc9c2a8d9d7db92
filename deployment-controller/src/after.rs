//! Waiting for other VMDeployments: whether the same artifact is stable there, and for how long it has been. Pure.
//!
//! It is asked before the roll-out begins. That they have let it begin stands in `status.rollout.followed`; what becomes of them later does
//! not stop it.

use berth_core::{
    api::{After, App, Followed, Rollout, RolloutProgress, VMDeployment},
    digest,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::held::Hold;

/// Reason: the artifact is not stable yet where it has to be before.
pub(crate) const WAITING_FOR_OTHER: &str = "WaitingForOther";

/// What is known of a VMDeployment that the roll-out waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    /// What is declared about it.
    pub(crate) after: After,
    /// What is stable there; none if it does not exist, or does not allow this namespace to wait for it.
    pub(crate) stable: Option<Stable>,
}

/// What is stable on another VMDeployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stable {
    /// The digest of its artifact.
    pub(crate) sha256: Option<String>,
    /// Since when.
    pub(crate) since: Option<Timestamp>,
}

impl Other {
    /// What this VMDeployment, if there is any, says to those that wait for it from `namespace`.
    pub(crate) fn new(after: &After, found: Option<&VMDeployment>, namespace: &str) -> Self {
        let allows = |other: &&VMDeployment| {
            let allowed = &other.spec.rollout.follower_namespaces;
            after.namespace == namespace || allowed.iter().any(|allowed| allowed == namespace)
        };
        let stable = found.filter(allows).map(|other| {
            let status = other.status.as_ref();
            Stable {
                sha256: status.and_then(|status| status.stable_app.as_ref()).map(|app| app.artifact.sha256.clone()),
                since: status.and_then(|status| status.stable_since.as_ref()).map(|since| since.0),
            }
        });
        Self { after: after.clone(), stable }
    }

    /// Why the roll-out of this application does not begin because of it; none if it may.
    fn waits(&self, app: &App, now: Timestamp) -> Option<String> {
        let After { namespace, name, bake_seconds } = &self.after;
        let Some(stable) = &self.stable else {
            return Some(format!(
                "VMDeployment {namespace}/{name}: there is none, or it does not allow this namespace to wait for it (its \
                 spec.rollout.followerNamespaces)"
            ));
        };
        if stable.sha256.as_ref() != Some(&app.artifact.sha256) {
            let there = stable.sha256.as_deref().map_or("nothing", short);
            return Some(format!(
                "VMDeployment {namespace}/{name}: artifact {} to be stable there, where {there} is",
                short(&app.artifact.sha256)
            ));
        }
        let bake = SignedDuration::from_secs(i64::from(*bake_seconds));
        let until = stable.since.and_then(|since| since.checked_add(bake).ok()).unwrap_or(Timestamp::MAX);
        (until > now).then(|| {
            format!(
                "VMDeployment {namespace}/{name}: artifact {} bakes there until {until}",
                short(&app.artifact.sha256)
            )
        })
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

/// Whether the roll-out has to wait until others have let it begin. `is_gradual`: the first version and the stable one wait for nobody.
pub(crate) fn has_to_wait(rollout: &Rollout, progress: Option<&RolloutProgress>, is_gradual: bool) -> bool {
    let is_recorded = |progress: &RolloutProgress| {
        progress
            .followed
            .as_ref()
            .is_some_and(|known| known.attempt == progress.retries && known.digest == digest::short(&rollout.after))
    };
    is_gradual && !rollout.after.is_empty() && !progress.is_some_and(is_recorded)
}

/// Why nothing is rolled out because of others. What exactly is waited for, [`waiting_for`] says.
pub(crate) fn hold(rollout: &Rollout, progress: Option<&RolloutProgress>, is_gradual: bool) -> Option<Hold> {
    let held = || Hold::waiting(WAITING_FOR_OTHER, "other VMDeployments (spec.rollout.after)".to_owned());
    has_to_wait(rollout, progress, is_gradual).then(held)
}

/// Records that the others have let the roll-out begin, if they do.
pub(crate) fn begin(
    progress: &mut RolloutProgress,
    rollout: &Rollout,
    is_gradual: bool,
    (app, others): (&App, &[Other]),
    now: Timestamp,
) {
    if !is_gradual || rollout.after.is_empty() {
        progress.followed = None;
        return;
    }
    if has_to_wait(rollout, Some(progress), is_gradual) {
        let may = waiting_for(rollout, others, app, now).is_none();
        let digest = digest::short(&rollout.after);
        progress.followed = may.then_some(Followed { attempt: progress.retries, digest, at: Time(now) });
    }
}

/// What is waited for of the first of the others that does not let the roll-out begin.
pub(crate) fn waiting_for(rollout: &Rollout, others: &[Other], app: &App, now: Timestamp) -> Option<String> {
    let first = rollout.after.iter().find_map(|after| match others.iter().find(|other| other.after == *after) {
        Some(other) => other.waits(app, now),
        None => Some(format!("a look at VMDeployment {}/{}", after.namespace, after.name)),
    })?;
    Some(format!("{first}; to go on without, change spec.rollout.after"))
}

#[cfg(test)]
#[path = "after_tests.rs"]
mod tests;
