//! Drifted Servers are reported, and so repaired, within the budget.

use std::collections::HashSet;

use berth_core::api::{Axis, Server};

use super::planner::Planner;

impl<'a> Planner<'_, 'a> {
    /// Reports the next drifted Servers. A Server leaves the ledger when it is Ready and not drifted.
    pub(super) fn repair_drift(&mut self) {
        let drift = self.input.drift;
        let must_report =
            |server: &Server| drift.drifted.contains(server.name()) || drift.unsure.contains(server.name());
        self.fleet.leave(Axis::Drift, |server| !server.is_ready() || must_report(server));
        let next = self.next_to_repair();
        self.fleet.enter(&next, Axis::Drift);
        let entered = self.fleet.entered(Axis::Drift).into_iter();
        let is_due = |server: &&Server| {
            let is_requested = drift.requested.contains(server.name());
            server.is_ready() && must_report(server) && !is_requested && !server.is_forced()
        };
        self.plan.repair = entered.filter(is_due).collect();
    }

    fn next_to_repair(&self) -> Vec<&'a Server> {
        let drift = self.input.drift;
        if drift.drifted.is_empty() {
            return Vec::new();
        }
        // What else is being changed on a Server may repair it, or removes it.
        let busy: HashSet<&str> = self.fleet.ledger.servers();
        let free = self.fleet.ready().filter(|s| drift.drifted.contains(s.name()) && !s.is_forced());
        free.filter(|server| !busy.contains(server.name())).take(self.fleet.headroom()).collect()
    }
}
