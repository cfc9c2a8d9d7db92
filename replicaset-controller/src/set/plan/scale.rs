//! How many Servers a set has: which names new Servers get, and which Servers are removed.
//!
//! A name stands in `status.creating` before its Server is created, and a Server in the ledger before it is deleted. Both are
//! entered by a write that tests the set's `resourceVersion`, after the set and then its Servers were read from the API
//! server: so two controllers agree, and a stale cache never leads to one machine too many.

use std::collections::HashSet;

use berth_core::{
    api::{Axis, PendingServer, Server},
    fleet::Fleet,
};

use super::{
    deletion_order::deletion_order,
    input::PlanInput,
    output::Effect,
    planner::Planner,
    replacement_demand::{ReplacementDemand, staying},
};
use crate::set::template::{ordinal, server_name};

/// Names that are entered at once. Each entry costs a write of the status, so that there should be few writes; a name costs a
/// few bytes, so that a thousand are no burden.
const MAX_PENDING: usize = 1000;

impl Planner<'_, '_> {
    /// Creates missing Servers, or removes surplus ones.
    pub(super) fn scale(&mut self) {
        let (set, limits) = (self.input.set, self.input.limits);
        self.report_too_many_replicas();
        let demand = ReplacementDemand::of(set, &self.fleet);
        let room = self.input.no_machines.map_or(usize::MAX, |problem| problem.room);
        let mut pending = pending(&self.input);
        let staying = staying(&self.fleet);
        let replicas = set.replicas();
        let surplus = (staying.len() + pending.len()).saturating_sub(replicas + demand.surge);
        if surplus > 0 {
            // Servers that were not created yet are given up first.
            let not_created = surplus.min(pending.len());
            pending.truncate(pending.len() - not_created);
            let order = deletion_order(set, &staying, &self.fleet.ledger).into_iter();
            let removed: Vec<&Server> = order.filter(|s| !s.is_forced()).take(surplus - not_created).collect();
            self.fleet.enter(&removed, Axis::Retirement);
            self.report_spared_surplus(surplus - not_created - removed.len());
        } else if room > 0 {
            let replaces = !self.is_held;
            let surge = if replaces { demand.surge } else { 0 };
            let active = self.fleet.active().count();
            let allowed = (replicas.min(limits.replicas) + surge).saturating_sub(active + pending.len());
            let wanted = allowed.min(missing(&self.fleet, staying.len(), &demand, pending.len()));
            let names = wanted.min(MAX_PENDING.min(room).saturating_sub(pending.len()));
            pending.extend(free_names(&self.input, &pending, names));
        }
        self.plan.create = pending.iter().take(room).cloned().collect();
        self.plan.ledgers.creating = pending.into_iter().map(PendingServer::new).collect();
        self.plan.to_replace = demand.wanted;
    }

    fn report_too_many_replicas(&mut self) {
        let (replicas, ceiling) = (self.input.set.replicas(), self.input.limits.replicas);
        if replicas > ceiling {
            let message = format!(
                "spec.replicas is {replicas}, but at most {ceiling} Servers of one VMReplicaSet are created \
                 (replicaset-controller's --max-replicas): lower the one or raise the other"
            );
            self.block(Effect::Stalled, "TooManyReplicas", message);
        }
    }
}

/// How many Servers with the template's machine are missing. Old Servers count only as far as they keep their machine: the
/// others are going to be replaced by what is created now.
fn missing(fleet: &Fleet<'_>, staying: usize, demand: &ReplacementDemand, pending: usize) -> usize {
    let kept = demand.old - demand.wanted;
    let new = staying - demand.old;
    fleet.budget.replicas.saturating_sub(kept + new + pending)
}

/// The names that were given and have no Server yet.
fn pending(input: &PlanInput<'_, '_>) -> Vec<String> {
    let creating = input.set.status.as_ref().map(|status| status.creating.as_slice()).unwrap_or_default();
    if creating.is_empty() {
        return Vec::new();
    }
    let exists: HashSet<&str> = input.servers.iter().map(|server| server.name()).collect();
    let names = creating.iter().map(|pending| &pending.server);
    names.filter(|name| !exists.contains(name.as_str()) && !input.foreign_names.contains(*name)).cloned().collect()
}

/// The first `count` names that no Server has.
fn free_names(input: &PlanInput<'_, '_>, pending: &[String], count: usize) -> Vec<String> {
    if count == 0 {
        return Vec::new();
    }
    let set = input.set.name();
    let existing = input.servers.iter().map(|server| server.name());
    let others = input.foreign_names.iter().chain(pending).map(String::as_str);
    let used: HashSet<usize> = existing.chain(others).filter_map(|name| ordinal(set, name)).collect();
    (0..).filter(|ordinal| !used.contains(ordinal)).map(|ordinal| server_name(set, ordinal)).take(count).collect()
}
