//! The brake of failover across sets: many unreachable machines of one class in one zone are a fault of the network, or of what
//! watches them, however they are distributed over sets.

use berth_core::api::Server;

use super::{
    output::{Brake, TOO_MANY_UNKNOWN_IN_ZONE},
    planner::{Planner, listed},
};
use crate::set::zone::{ALWAYS_ALLOWED, FailureDomain};

/// Names in a message.
const NAMES: usize = 10;

impl Planner<'_, '_> {
    /// Why the brake across sets holds this set, if one of its unreachable Servers is in a failure domain where too many are.
    ///
    /// The message has no counts: they change with every Server of the cluster, and each change would be written to the status of
    /// every set. It holds the set as a whole, because so do its waits after the brake is released.
    pub(super) fn zone_brake(&self, unreachable: &[&Server]) -> Option<Brake> {
        let percent = self.input.limits.zone_brake;
        let is_braked = |server: &&Server| {
            self.input.domains.get(&FailureDomain::of(server)).is_some_and(|counts| counts.is_braked(percent))
        };
        let first = unreachable.iter().copied().filter(|server| is_braked(server)).map(FailureDomain::of).min()?;
        let mut names: Vec<&str> = unreachable.iter().map(|server| server.name()).collect();
        names.sort_unstable();
        let message = format!(
            "too many Servers of {first} cannot be reached, counted over all sets (more than {percent}% and more than \
             {ALWAYS_ALLOWED}, or all of them): none of them is rebooted, replaced or given up, here {}; look at the network first",
            listed(names.into_iter(), NAMES)
        );
        Some(Brake { reason: TOO_MANY_UNKNOWN_IN_ZONE, message })
    }
}
