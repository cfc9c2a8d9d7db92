//! How many Servers need another machine, and with how much surge they are replaced.

use std::collections::HashSet;

use berth_core::{
    api::{Axis, Server, UpdateType, VMReplicaSet},
    budget,
    fleet::Fleet,
};

/// How many machines have to be replaced, and with how much surge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReplacementDemand {
    /// Servers with another machine than the template's that are not being removed.
    pub(super) old: usize,
    /// Of these, the ones to replace: not those that the partition keeps, and none that a person has forced.
    pub(super) wanted: usize,
    /// Servers beyond `replicas` that may exist for it.
    pub(super) surge: usize,
    /// Whether it can never begin, because there may be neither one Server more nor one less.
    pub(super) is_stuck: bool,
}

impl ReplacementDemand {
    /// What a set has to replace; nothing if its strategy does not allow it.
    pub(super) fn of(set: &VMReplicaSet, fleet: &Fleet<'_>) -> Self {
        let strategy = &set.spec.update_strategy;
        if strategy.type_ != UpdateType::Replace {
            return Self::default();
        }
        let staying = staying(fleet);
        let old = staying.iter().filter(|server| set.machine_differs(server)).count();
        if old == 0 {
            return Self::default();
        }
        let budget = fleet.budget;
        let updated = staying.iter().filter(|server| set.is_updated(server)).count();
        let forced = staying.iter().filter(|server| set.machine_differs(server) && server.is_forced()).count();
        let wanted = staying.len().saturating_sub(budget.partition).saturating_sub(updated).min(old - forced);
        let max_surge = budget::max_surge(strategy, set.spec.replicas);
        let is_stuck = wanted > 0 && max_surge == 0 && budget.max_unavailable == 0 && budget.replicas > 0;
        Self { old, wanted, surge: max_surge.min(wanted), is_stuck }
    }
}

/// The Servers that count and are not about to be removed.
pub(super) fn staying<'a>(fleet: &Fleet<'a>) -> Vec<&'a Server> {
    let ledger = &fleet.ledger;
    let leaving: HashSet<&str> = ledger.on(Axis::Retirement).chain(ledger.on(Axis::Replacement)).collect();
    fleet.active().filter(|server| !leaving.contains(server.name())).collect()
}
