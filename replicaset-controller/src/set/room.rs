//! What can never be done, because no Server that is Ready may be disturbed.

use std::collections::BTreeSet;

use berth_core::{
    api::{Server, UpdateType, VMReplicaSet},
    budget::{self, Budget, name},
};

use super::{
    drifted::Known,
    environment, members,
    plan::{Effect, Obstacle},
};

/// Reason: something is to be changed on Servers that are Ready, and the budget allows none of them to be disturbed.
pub const NO_ROOM: &str = "NoRoomToChange";

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
    let replaces = set.spec.update_strategy.type_ == UpdateType::Replace;
    let goes = |server: &Server| replaces && environment::has_other_machine(set, server);
    let ready = || servers.iter().copied().filter(|s| budget::is_ready(s) && budget::is_active(s));
    let outdated: Vec<&str> = ready().filter(|s| environment::is_outdated(set, s) && !goes(s)).map(name).collect();
    let is_rolled_out = set.spec.paused || outdated.len() <= budget.partition;
    let drifted = ready().map(name).filter(|name| drift.drifted.contains(*name));
    let waiting: BTreeSet<&str> = if is_rolled_out { BTreeSet::new() } else { outdated.into_iter().collect() };
    let waiting: BTreeSet<&str> = waiting.into_iter().chain(drifted).collect();
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
