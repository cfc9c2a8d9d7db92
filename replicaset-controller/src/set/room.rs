//! What can never be done, because no Server that is Ready may be disturbed.

use std::collections::BTreeSet;

use berth_core::{
    api::{Server, VMReplicaSet},
    budget::{self, Budget, name},
};

use super::{
    drifted::Known,
    environment, members,
    plan::{Effect, Obstacle},
};

/// Reason: something is to be changed on Servers that are Ready, and the budget allows none of them to be disturbed.
const NO_ROOM: &str = "NoRoomToChange";

/// Names in a message.
const NAMED: usize = 5;

/// Why Servers that are Ready are neither changed nor repaired, if `updateStrategy.maxUnavailable` is 0. Those that are
/// replaced need no such room: see [`super::replace`].
#[must_use]
pub fn obstacle(set: &VMReplicaSet, servers: &[&Server], drift: &Known) -> Option<Obstacle> {
    let budget = Budget::of(set);
    if budget.max_unavailable > 0 {
        return None;
    }
    let ready = || servers.iter().copied().filter(|s| budget::is_ready(s));
    let mut waiting: BTreeSet<&str> =
        ready().filter(|s| environment::is_to_change_in_place(set, s)).map(name).collect();
    if set.spec.paused || waiting.len() <= budget.partition {
        waiting.clear();
    }
    waiting.extend(ready().map(name).filter(|name| drift.drifted.contains(*name)));
    (!waiting.is_empty()).then(|| Obstacle {
        effect: Effect::Stalls,
        reason: NO_ROOM.to_owned(),
        message: format!(
            "{} Ready Servers are to be changed or repaired ({}), but updateStrategy.maxUnavailable allows none to be \
             disturbed: raise it to 1 or more",
            waiting.len(),
            members::listed(waiting.iter().copied(), NAMED)
        ),
    })
}
