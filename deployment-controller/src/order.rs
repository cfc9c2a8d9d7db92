//! The order in which a roll-out updates Servers. Pure.

use std::cmp::Reverse;

use berth_core::api::{RolloutOrder, Server};

/// Annotation of Servers with a whole number: with the order `Priority` the highest comes first.
pub(crate) const PRIORITY: &str = "berth.dev/rollout-priority";

/// The Servers in this order.
pub(crate) fn in_order<'a>(order: RolloutOrder, servers: &[&'a Server]) -> Vec<&'a Server> {
    let mut servers = servers.to_vec();
    servers.sort_by_cached_key(|server| rank(order, server));
    servers
}

/// The highest priority comes first, then the oldest. The name makes the order total, so that two copies of this controller
/// choose the same Servers.
fn rank(order: RolloutOrder, server: &Server) -> (Reverse<i64>, i64, &str) {
    let created = server.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let priority = match order {
        RolloutOrder::OldestFirst => 0,
        RolloutOrder::Priority => server.annotation(PRIORITY).and_then(|number| number.parse().ok()).unwrap_or(0),
    };
    (Reverse(priority), created, server.name())
}

/// Of these Servers, in their order, those that the roll-out may update, and those that the partition keeps.
pub(crate) fn without_kept<'s, 'a>(old: &'s [&'a Server], partition: usize) -> (&'s [&'a Server], &'s [&'a Server]) {
    old.split_at(old.len().saturating_sub(partition))
}
