//! Servers whose machine has to be another one are replaced, if the update strategy allows it.
//!
//! The arithmetic is that of Kubernetes' Deployment: never more Servers than `replicas` + `maxSurge`, never fewer available than
//! `replicas` - `maxUnavailable`, and only as many old Servers are removed as keep that true even if none of the new Servers
//! that are not available yet ever becomes available.

use std::collections::HashSet;

use berth_core::api::{Axis, Server};

use super::{
    output::Effect,
    planner::Planner,
    replacement_demand::{ReplacementDemand, staying},
};

impl<'a> Planner<'_, 'a> {
    /// Removes old Servers, as many as new ones can stand in for. Servers that are not in service go first.
    pub(super) fn replace(&mut self) {
        // Entered before, and not removed yet.
        let mut removed = self.pacing.admit(self.fleet.entered(Axis::Replacement));
        // Computed again, because surplus Servers may have been old ones.
        let demand = ReplacementDemand::of(self.input.set, &self.fleet);
        if demand.wanted > 0 && !self.is_held && self.input.no_machines.is_none() {
            let next = self.next_to_replace(demand.wanted);
            self.fleet.enter(&next, Axis::Replacement);
            removed.extend(next);
        }
        self.plan.replace = removed;
    }

    fn next_to_replace(&mut self, wanted: usize) -> Vec<&'a Server> {
        let (set, budget, staying) = (self.input.set, self.fleet.budget, staying(&self.fleet));
        let disturbed: HashSet<String> = self.fleet.ledger.servers().into_iter().map(str::to_owned).collect();
        let given_up: HashSet<String> = self.fleet.ledger.on(Axis::Failover).map(str::to_owned).collect();
        let is_undisturbed = |server: &Server| {
            self.fleet.is_available(server) && !server.is_forced() && !disturbed.contains(server.name())
        };
        let costs = |server: &Server| {
            server.is_in_service() && !server.is_sick_in_service() && !disturbed.contains(server.name())
        };
        let least = budget.replicas.saturating_sub(budget.max_unavailable);
        let (mut old, new): (Vec<&Server>, Vec<&Server>) =
            staying.iter().partition(|server| set.machine_differs(server));
        old.retain(|server| !given_up.contains(server.name()) && !server.is_forced());
        let unproven = new.iter().filter(|server| !self.fleet.is_available(server)).count();
        let mut total = staying.len().saturating_sub(least).saturating_sub(unproven).min(wanted);
        let mut spare = staying.iter().filter(|server| is_undisturbed(server)).count().saturating_sub(least);
        if total == 0 {
            return Vec::new();
        }
        old.sort_by_cached_key(|server| {
            let created = server.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (costs(server), server.is_ready(), is_undisturbed(server), created, server.name().to_owned())
        });
        let mut next: Vec<&Server> = Vec::new();
        for server in old {
            let costs = costs(server);
            if total == 0 || costs && spare == 0 {
                break;
            }
            // The Servers that follow are in service, too, so that the pace holds for all of them.
            let Some(server) = self.pacing.admit(vec![server]).pop() else { break };
            total -= 1;
            spare -= usize::from(costs);
            next.push(server);
        }
        next
    }

    /// Reports that machines can never be replaced.
    pub(super) fn report_stuck_replacement(&mut self) {
        let demand = ReplacementDemand::of(self.input.set, &self.fleet);
        if demand.is_stuck {
            let message = format!(
                "{} machines have to be replaced, but updateStrategy allows neither one Server more (maxSurge) nor one less \
                 (maxUnavailable): raise one of them",
                demand.wanted
            );
            self.block(Effect::Stalled, "NoHeadroomToReplace", message);
        }
    }
}
