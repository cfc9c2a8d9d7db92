//! The step in which the Servers with the new version are watched: when it ends, and what it waits for. Pure.

use berth_core::api::{Rollout, RolloutProgress};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{count::RolloutCount, rollout_record};

/// When the time of the bake is over that the roll-out is in; none if it is in none.
pub(crate) fn end(rollout: &Rollout, progress: &RolloutProgress) -> Option<Timestamp> {
    let seconds = rollout_record::current(rollout, progress)?.bake.as_ref()?.seconds;
    // Its beginning is written before it counts.
    let since = progress.step_since.as_ref().map_or(Timestamp::MAX, |since| since.0);
    Some(since.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX))
}

/// Whether nobody expects progress of the roll-out now, because its bake goes on. Once the time is over, Servers that are not well are
/// waited for, and that has a deadline.
pub(crate) fn is_under_way(rollout: &Rollout, progress: &RolloutProgress, now: Timestamp) -> bool {
    end(rollout, progress).is_some_and(|end| end > now)
}

/// Whether the Servers that have the new version are well, all but those that the budget allows to be unavailable.
pub(crate) fn are_well(count: &RolloutCount<'_>) -> bool {
    let updated = count.updated();
    let enough = updated.saturating_sub(count.budget.max_unavailable).max(1).min(updated);
    count.under_way == 0 && count.proven >= enough
}

/// What the bake waits for.
pub(crate) fn waiting_for(place: &str, end: Timestamp, count: &RolloutCount<'_>, now: Timestamp) -> String {
    let (well, updated) = (count.proven, count.updated());
    let revision = count.newest.effective_revision();
    if end > now {
        return format!("{place}: bakes until {end}; {well} of {updated} Servers are well with revision {revision}");
    }
    format!("{place}: the bake is over once the Servers are well: {well} of {updated} are with revision {revision}")
}

#[cfg(test)]
#[path = "bake_tests.rs"]
mod tests;
