//! What can never be done, because the budget allows no Ready Server to be disturbed.

use std::collections::BTreeSet;

use berth_core::api::Server;

use super::{
    output::Effect,
    planner::{Planner, listed},
};

/// Names in a message: enough to begin with, few enough to read.
const NAMES: usize = 5;

impl Planner<'_, '_> {
    /// Reports Ready Servers that are never updated, repaired or replaced, because there is no headroom at all. Servers that
    /// are replaced with a surge need no headroom.
    pub(super) fn report_missing_headroom(&mut self) {
        self.report_stuck_replacement();
        let (set, budget, drift) = (self.input.set, self.fleet.budget, self.input.drift);
        if budget.max_unavailable > 0 {
            return;
        }
        let outdated = self.fleet.ready().filter(|server| set.must_update(server));
        let mut waiting: BTreeSet<&str> = outdated.map(Server::name).collect();
        if set.spec.paused || waiting.len() <= budget.partition {
            waiting.clear();
        }
        let names = self.fleet.ready().map(Server::name);
        waiting.extend(names.filter(|name| drift.drifted.contains(*name)));
        if !waiting.is_empty() {
            let message = format!(
                "{} Ready Servers have to be updated or repaired ({}), but updateStrategy.maxUnavailable allows none to be \
                 disturbed: raise it to 1 or more",
                waiting.len(),
                listed(waiting.iter().copied(), NAMES)
            );
            self.block(Effect::Stalled, "NoHeadroom", message);
        }
    }
}
