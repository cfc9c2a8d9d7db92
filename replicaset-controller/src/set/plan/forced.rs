//! Servers that a person has forced are spared by every phase; here the set says so.

use berth_core::api::Server;

use super::{output::Effect, planner::Planner};

/// Reason: only Servers that a person has forced are left to be changed.
const FORCED: &str = "Forced";

impl Planner<'_, '_> {
    /// Reports forced Servers that are spared: those that are all that is left to be updated, replaced or repaired.
    pub(super) fn report_forced(&mut self) {
        let (set, drift) = (self.input.set, self.input.drift);
        let outdated = self.fleet.active().filter(|server| set.is_outdated(server)).count();
        let rolls_out = !self.is_held && outdated > self.fleet.budget.partition;
        let needs_change =
            |server: &Server| rolls_out && set.is_outdated(server) || drift.drifted.contains(server.name());
        if let Some(message) = self.fleet.spared(needs_change) {
            self.block(Effect::Delayed, FORCED, message);
        }
    }

    /// Reports surplus Servers that are spared.
    pub(super) fn report_spared_surplus(&mut self, surplus: usize) {
        if let Some(message) = self.fleet.spared(Server::is_forced).filter(|_| surplus > 0) {
            self.block(Effect::Delayed, FORCED, format!("{surplus} Servers too many: {message}"));
        }
    }
}
