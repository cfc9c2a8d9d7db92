//! Servers that are not what was read back from them any more: repaired within the budget.

use std::collections::HashSet;

use berth_core::{
    api::{Server, VMReplicaSet},
    budget::{self, Axis, Budget, Entry, Roll},
};

use super::plan::Facts;

/// What finds and reports drift.
pub trait Drifts: Send + Sync {
    /// Whether a check has found that the machine of this Ready Server differs from what was read from it last.
    fn is_drifted(&self, server: &Server) -> bool;
    /// Reads the machine again, in the background, and reports what still differs: the Server is repaired then.
    fn report(&self, server: &Server);
}

/// Nobody looks for drift.
#[derive(Clone, Copy, Debug)]
pub struct NoDrifts;

impl Drifts for NoDrifts {
    fn is_drifted(&self, _: &Server) -> bool {
        false
    }

    fn report(&self, _: &Server) {}
}

/// Plans which drifted Servers are reported next. An entry leaves when its Server is Ready and not drifted.
///
/// Whether a Server is drifted must have been asked before the Servers were read: who reports a drift forgets it only
/// after the Server was made not Ready.
#[must_use]
pub fn plan<'a>(set: &VMReplicaSet, servers: &[&'a Server], ledger: &[String], facts: Facts<'_>) -> Roll<'a> {
    let is_drifted = |server: &Server| facts.drifted.contains(name(server));
    let mut ledger =
        budget::without(servers, ledger, Axis::Drift, |server| !budget::is_ready(server) || is_drifted(server));
    if facts.drifted.is_empty() {
        return Roll { ledger, touch: Vec::new() };
    }
    let budget = Budget::of(set);
    let room = budget.max_unavailable.saturating_sub(budget::unavailable(servers, &ledger, budget, facts.now));
    let next: Vec<String> = {
        // What is being changed on it anyhow may mend it, or takes it away.
        let busy: HashSet<&str> = ledger.iter().filter_map(|line| line.split('/').next()).collect();
        let free = servers.iter().filter(|s| budget::is_ready(s) && is_drifted(s) && !busy.contains(name(s)));
        free.take(room).map(|s| Entry::new(name(s), Axis::Drift).to_string()).collect()
    };
    ledger.extend(next);
    let entered = budget::entered_servers(servers, &ledger, Axis::Drift).into_iter();
    let touch = entered.filter(|s| budget::is_ready(s) && is_drifted(s)).collect();
    Roll { ledger, touch }
}

fn name(server: &Server) -> &str {
    server.metadata.name.as_deref().unwrap_or_default()
}
