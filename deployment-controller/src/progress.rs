//! The progress of a roll-out, and its deadline.

use berth_core::{
    api::{App, RolloutProgress, VMDeployment},
    digest,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::count::RolloutCount;

/// How far the roll-out has come. Progress is what it achieves: more Servers than ever before run the newest application in
/// good health. A Server that comes and goes is no progress.
///
/// `is_held`: nothing can be expected to progress now, because a person or a pause holds the roll-out.
pub(crate) fn next(
    deployment: &VMDeployment,
    count: &RolloutCount<'_>,
    is_held: bool,
    now: Timestamp,
) -> RolloutProgress {
    let digest = digest::short(&count.newest);
    let known = known(deployment, &count.newest, digest);
    let (most, healthy) = (known.healthy_replicas, to_i32(count.healthy));
    let since = known.progressed_at.clone().filter(|_| healthy <= most);
    let progressed_at = if is_held || count.is_settled() { None } else { since.or(Some(Time(now))) };
    // After Servers were removed, the most so far might never be reached again.
    let healthy_replicas = if most > to_i32(count.target()) { healthy } else { most.max(healthy) };
    RolloutProgress { healthy_replicas, progressed_at, ..known }
}

/// What is known about the roll-out of this application. A request that was carried out before it is not carried out again, and what a
/// person has gone back to stays, although its ConfigMaps and Secrets have changed.
fn known(deployment: &VMDeployment, newest: &App, digest: String) -> RolloutProgress {
    let known = deployment.status.as_ref().and_then(|status| status.rollout.clone()).unwrap_or_default();
    if known.is_about(newest) {
        return RolloutProgress { digest, ..known };
    }
    let RolloutProgress { observed_request, undone, restart, .. } = known;
    RolloutProgress { digest, observed_request, undone, restart, ..RolloutProgress::default() }
}

/// When the roll-out is late; none while it is held, and when it has ended. Servers need `minReadySeconds` to become available,
/// and the budget waits for that.
pub(crate) fn deadline(deployment: &VMDeployment, progress: &RolloutProgress) -> Option<Timestamp> {
    let spec = &deployment.spec;
    let seconds = i64::from(spec.rollout.progress_deadline_seconds) + i64::from(spec.min_ready_seconds);
    progress.progressed_at.as_ref()?.0.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
