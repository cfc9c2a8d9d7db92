//! Failover: what a set does about its unreachable Servers.
//!
//! A pure function of the set and its Servers, so that every copy of the controller plans the same at any time: what was begun
//! stands in the ledger (axis `Failover`) and in the Servers' own declarations (`spec.reboot`, `spec.retain`). A Server that
//! is back before its turn has come is kept.

use std::collections::HashSet;

use berth_core::{
    api::{Axis, Failover, FailoverAction, Retain, Server},
    budget, conditions,
};
use k8s_openapi::jiff::Timestamp;

use super::{
    failover_holds::{FAILOVER_DISABLED, MAX_IN_FLIGHT, NO_MACHINES, names},
    failover_stage::{Stage, is_opted_out, later, reboot_id, since},
    output::{Brake, Effect, TOO_MANY_UNKNOWN},
    planner::Planner,
};

/// Share of the Servers above which nothing is replaced when the set declares no brake, in percent: what unhealthy hosts rarely
/// reach and a network fault nearly always does.
const DEFAULT_BRAKE: usize = 40;

/// Unreachable Servers, each with its stage, the longest unreachable first.
type Stages<'a> = Vec<(&'a Server, Stage)>;

impl<'a> Planner<'_, 'a> {
    /// Plans what is done about unreachable Servers.
    pub(super) fn fail_over(&mut self) {
        let said_before = self.plan.blockers.len();
        self.leave_failover();
        self.expire_retained();
        if let Some(policy) = &self.input.set.spec.failover {
            self.apply_policy(policy);
        }
        if self.input.no_machines.is_some() {
            // No machines could take the place of those that are given up.
            let replaced = std::mem::take(&mut self.plan.failover.replace);
            let retained = std::mem::take(&mut self.plan.failover.retain);
            for name in replaced.into_iter().chain(retained.into_iter().map(|(name, _)| name)) {
                self.hold_server(&name, NO_MACHINES);
            }
        }
        self.report_holds();
        self.merge_blockers(said_before);
    }

    fn apply_policy(&mut self, policy: &Failover) {
        let unreachable = self.unreachable();
        let brake = self.brake(policy, &unreachable).or_else(|| self.zone_brake(&unreachable));
        let from = if brake.is_some() { Timestamp::UNIX_EPOCH } else { self.brake_released_at() };
        let stages = unreachable.iter().map(|server| (*server, Stage::of(policy, server, from, self.input.now)));
        let (opted_out, stages): (Stages<'a>, Stages<'a>) = stages.partition(|(server, _)| is_opted_out(server));
        opted_out
            .iter()
            .filter(|(_, stage)| stage.is_turn())
            .for_each(|(s, _)| self.hold_server(s.name(), FAILOVER_DISABLED));
        stages.iter().chain(&opted_out).filter_map(|(_, stage)| stage.ends_at()).for_each(|at| self.requeue_at(at));
        self.plan.failover.brake.clone_from(&brake);
        let Some(brake) = brake else { return self.act(policy, &stages) };
        for (server, _) in &stages {
            self.hold_server(server.name(), brake.reason);
        }
        if stages.iter().any(|(_, stage)| stage.is_turn()) || self.fleet.ledger.on(Axis::Failover).next().is_some() {
            self.block(Effect::Stalled, brake.reason, brake.message);
        }
    }

    /// Plans what is done about the Servers whose turn has come: within `maxInFlight`, and only about machines of which it is
    /// known that they do not answer.
    fn act(&mut self, policy: &Failover, stages: &Stages<'a>) {
        self.give_back_what_answers();
        if policy.action == FailoverAction::AskHuman {
            self.give_back_what_is_asked_about();
        }
        let begun: HashSet<String> = self.fleet.ledger.on(Axis::Failover).map(str::to_owned).collect();
        let rebooting = stages.iter().filter(|(_, stage)| matches!(stage, Stage::Rebooted(_))).count();
        let limit = usize::try_from(policy.max_in_flight).unwrap_or(1);
        let mut slots = limit.saturating_sub(begun.len()).saturating_sub(rebooting);
        let (mut given_up, mut due) = (HashSet::new(), Vec::new());
        let (turns, others): (Stages<'a>, Stages<'a>) =
            stages.iter().partition(|(server, stage)| stage.is_turn() && !begun.contains(server.name()));
        for (server, _) in others.iter().filter(|(server, stage)| stage.is_turn() && begun.contains(server.name())) {
            given_up.extend(self.may_act(server).then(|| server.name()));
        }
        let (to_reboot, turns): (Stages<'a>, Stages<'a>) = turns.into_iter().partition(|(_, s)| *s == Stage::Reboot);
        for (server, stage) in to_reboot.into_iter().chain(turns) {
            if self.is_held_because_it_answers(server) {
                continue;
            }
            if stage == Stage::Due && policy.action == FailoverAction::AskHuman {
                due.extend(self.is_answered(server).then_some(server));
            } else if slots == 0 {
                self.hold_server(server.name(), MAX_IN_FLIGHT);
            } else {
                slots -= 1;
                match (self.may_act(server), stage) {
                    (false, _) => {}
                    (true, Stage::Reboot) => {
                        self.plan.failover.reboot.push((server.name().to_owned(), reboot_id(server)));
                    }
                    (true, _) => {
                        self.fleet.enter(&[server], Axis::Failover);
                        given_up.insert(server.name());
                    }
                }
            }
        }
        let given_up: Vec<&Server> =
            self.fleet.servers.iter().copied().filter(|server| given_up.contains(server.name())).collect();
        match policy.action {
            FailoverAction::AskHuman => self.ask_human(&due),
            FailoverAction::Replace => self.replace_unreachable(policy, &given_up),
            FailoverAction::Shrink => self.shrink(&given_up),
        }
    }

    /// The unreachable Servers, the longest unreachable first.
    fn unreachable(&self) -> Vec<&'a Server> {
        let mut unreachable: Vec<&Server> = self.fleet.servers.iter().copied().filter(|s| s.is_unreachable()).collect();
        unreachable.sort_by_cached_key(|server| (since(server), server.name().to_owned()));
        unreachable
    }

    /// Why the set's own brake holds: more Servers are unreachable than it allows.
    fn brake(&self, policy: &Failover, unreachable: &[&Server]) -> Option<Brake> {
        let active = self.fleet.active().count();
        let limit = budget::at_least_one(policy.unhealthy_less_than_or_equal_to.as_ref(), DEFAULT_BRAKE, active);
        let message = || {
            format!(
                "{} of {active} Servers cannot be reached, more than the {limit} up to which machines are rebooted or \
                 replaced: {}; look at the network first",
                unreachable.len(),
                names(unreachable)
            )
        };
        (unreachable.len() > limit).then(|| Brake { reason: TOO_MANY_UNKNOWN, message: message() })
    }

    /// When the brake was last released: just now, if the set's status still shows that it holds.
    fn brake_released_at(&self) -> Timestamp {
        let conditions = self.input.set.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        match conditions::get(conditions, conditions::FAILOVER_HELD) {
            None => Timestamp::UNIX_EPOCH,
            Some(held) if held.status == "True" => self.input.now,
            Some(released) => released.last_transition_time.0,
        }
    }

    fn expire_retained(&mut self) {
        let retained = self.fleet.servers.iter().filter(|server| !server.is_being_deleted() && !server.is_forced());
        let until: Vec<(&str, Timestamp)> =
            retained.filter_map(|s| Some((s.name(), s.spec.retain.as_ref()?.until.0))).collect();
        for (name, until) in until {
            if until <= self.input.now {
                self.plan.failover.expired.push(name.to_owned());
            } else {
                self.requeue_at(until);
            }
        }
    }

    /// Removes or retains the Servers that are given up, so that others are created.
    fn replace_unreachable(&mut self, policy: &Failover, given_up: &[&Server]) {
        let is_retained = |server: &&&Server| server.spec.retain.is_some() && !server.is_being_deleted();
        let retained = self.fleet.servers.iter().filter(is_retained).count();
        let max = policy.retain.as_ref().map_or(0, |retain| usize::try_from(retain.max).unwrap_or(0));
        let mut may_retain = max.saturating_sub(retained);
        for server in given_up {
            let name = server.name().to_owned();
            match &policy.retain {
                Some(Retain { expiry_seconds, .. }) if may_retain > 0 => {
                    may_retain -= 1;
                    self.plan.failover.retain.push((name, later(self.input.now, *expiry_seconds)));
                }
                _ => self.plan.failover.replace.push(name),
            }
        }
    }

    /// Lowers `replicas` once for each Server that is given up, as long as the set has no surplus already.
    fn shrink(&mut self, given_up: &[&Server]) {
        let replicas = self.input.set.spec.replicas;
        let begun = i32::try_from(given_up.len()).unwrap_or(i32::MAX);
        let active = i32::try_from(self.fleet.active().count()).unwrap_or(i32::MAX);
        let surplus = (active - replicas).max(0);
        let wanted = (begun - surplus).max(0);
        let shrink = wanted.min(replicas - 1).max(0);
        self.plan.failover.shrink = shrink;
        if shrink < wanted {
            self.hold_last_server(given_up);
        }
    }

    /// Removes from the ledger what has ended: a Server that is back, and one that is gone and whose place is taken.
    fn leave_failover(&mut self) {
        let is_well = |server: &&Server| server.is_ready() || server.is_unreachable();
        let (total, well) = (self.fleet.active().count(), self.fleet.active().filter(is_well).count());
        let mut vacant = self.fleet.budget.replicas.max(total) - well;
        let (servers, ledger) = (&self.fleet.servers, &mut self.fleet.ledger);
        ledger.retain(|entry| {
            if entry.axis != Axis::Failover {
                return true;
            }
            match servers.iter().find(|server| server.name() == entry.server) {
                Some(server) if server.is_unreachable() => true,
                Some(server) if server.is_active() => false,
                // It is being removed, retained or gone: the entry stays until another Server has taken its place.
                _ => {
                    let is_vacant = vacant > 0;
                    vacant = vacant.saturating_sub(1);
                    is_vacant
                }
            }
        });
    }
}
