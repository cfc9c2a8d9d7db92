//! Failover: what a set does about its unreachable Servers.
//!
//! A pure function of the set and its Servers, so that every copy of the controller plans the same at any time: what was begun
//! stands in the ledger (axis `Failover`) and in the Servers' own declarations (`spec.reboot`, `spec.retain`). A Server that
//! is back before its turn has come is kept.

use std::collections::{BTreeSet, HashSet};

use berth_core::{
    api::{Axis, Failover, FailoverAction, Retain, Server},
    budget, conditions,
};
use k8s_openapi::jiff::Timestamp;

use super::{
    failover_stage::{Stage, is_opted_out, later, reboot_id, since},
    output::{Effect, TOO_MANY_UNKNOWN},
    planner::{Planner, listed},
};

/// Share of the Servers above which nothing is replaced when the set declares no brake, in percent: what unhealthy hosts rarely
/// reach and a network fault nearly always does.
const DEFAULT_BRAKE: usize = 40;
/// Names in a message: an operator has to see which hosts they share.
const NAMES: usize = 10;

/// The unreachable Servers that failover may act on, each with its stage.
type Stages<'a> = Vec<(&'a Server, Stage)>;

impl<'a> Planner<'_, 'a> {
    /// Plans what is done about unreachable Servers.
    pub(super) fn fail_over(&mut self) {
        self.leave_failover();
        self.expire_retained();
        if let Some(policy) = &self.input.set.spec.failover {
            self.apply_policy(policy);
        }
        if self.input.no_machines.is_some() {
            // No machines could take the place of those that are given up.
            self.plan.failover.replace.clear();
            self.plan.failover.retain.clear();
        }
    }

    fn apply_policy(&mut self, policy: &Failover) {
        let unreachable = self.unreachable();
        let brake = self.brake(policy, &unreachable);
        let from = if brake.is_some() { Timestamp::UNIX_EPOCH } else { self.brake_released_at() };
        let eligible = unreachable.iter().copied().filter(|server| !is_opted_out(server));
        let stages: Stages<'a> = eligible.map(|s| (s, Stage::of(policy, s, from, self.input.now))).collect();
        stages.iter().filter_map(|(_, stage)| stage.ends_at()).for_each(|at| self.requeue_at(at));
        let begun: BTreeSet<&str> = self.fleet.ledger.on(Axis::Failover).collect();
        let due: Vec<&Server> = in_stage(&stages, Stage::Due).filter(|server| !begun.contains(server.name())).collect();
        let to_reboot: Vec<&Server> = in_stage(&stages, Stage::Reboot).collect();
        let is_idle = due.is_empty() && to_reboot.is_empty() && begun.is_empty();
        let begun = begun.len();
        self.plan.failover.brake.clone_from(&brake);
        if is_idle {
            return;
        }
        if let Some(message) = brake {
            self.block(Effect::Stalled, TOO_MANY_UNKNOWN, message);
            return;
        }
        let rebooting = stages.iter().filter(|(_, stage)| matches!(stage, Stage::Rebooted(_))).count();
        let limit = usize::try_from(policy.max_in_flight).unwrap_or(1);
        let allowed = limit.saturating_sub(begun).saturating_sub(rebooting);
        let reboot = to_reboot.iter().take(allowed);
        self.plan.failover.reboot = reboot.map(|s| (s.name().to_owned(), reboot_id(s))).collect();
        let allowed = allowed - self.plan.failover.reboot.len();
        let next = &due[..allowed.min(due.len())];
        match policy.action {
            FailoverAction::AskHuman => self.ask_human(&due),
            FailoverAction::Replace => {
                let given_up = self.begin(next, &stages);
                self.replace_unreachable(policy, &given_up);
            }
            FailoverAction::Shrink => {
                let given_up = self.begin(next, &stages);
                self.shrink(&given_up);
            }
        }
    }

    /// The unreachable Servers, the longest unreachable first.
    fn unreachable(&self) -> Vec<&'a Server> {
        let mut unreachable: Vec<&Server> = self.fleet.servers.iter().copied().filter(|s| s.is_unreachable()).collect();
        unreachable.sort_by_cached_key(|server| (since(server), server.name().to_owned()));
        unreachable
    }

    /// Why the brake holds: more Servers are unreachable than it allows.
    fn brake(&self, policy: &Failover, unreachable: &[&Server]) -> Option<String> {
        let active = self.fleet.active().count();
        let limit = budget::at_least_one(policy.unhealthy_less_than_or_equal_to.as_ref(), DEFAULT_BRAKE, active);
        (unreachable.len() > limit).then(|| {
            format!(
                "{} of {active} Servers cannot be reached, more than the {limit} up to which machines are rebooted or \
                 replaced: {}; look at the network first",
                unreachable.len(),
                names(unreachable)
            )
        })
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

    fn ask_human(&mut self, due: &[&Server]) {
        let Some(first) = due.first() else { return };
        let minutes = self.input.now.duration_since(since(first)).as_mins();
        let message = format!(
            "{} cannot be reached, the first for {minutes} min: `kubectl delete server {}` retires it and another one is \
             created; it is kept for as long as nobody does",
            names(due),
            first.name()
        );
        self.block(Effect::Stalled, "AskHuman", message);
    }

    /// Removes or retains the Servers that are given up, so that others are created. Nothing is done about a Server whose
    /// provider does not say what became of its machine.
    fn replace_unreachable(&mut self, policy: &Failover, given_up: &[&Server]) {
        let is_retained = |server: &&&Server| server.spec.retain.is_some() && !server.is_being_deleted();
        let retained = self.fleet.servers.iter().filter(is_retained).count();
        let max = policy.retain.as_ref().map_or(0, |retain| usize::try_from(retain.max).unwrap_or(0));
        let mut may_retain = max.saturating_sub(retained);
        for server in given_up {
            let name = server.name().to_owned();
            if let Some(error) = self.input.unresponsive.get(&name) {
                let message = format!(
                    "{name}: nothing is destroyed before its provider says what became of the machine: {error}"
                );
                self.block(Effect::Delayed, "ProviderUnresponsive", message);
                continue;
            }
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
            let message = format!("{} cannot be reached: the last Server of a set is not given up", names(given_up));
            self.block(Effect::Stalled, "LastServer", message);
        }
    }

    /// Enters the next Servers. Returns those of the ledger that are still unreachable and whose wait is over: Servers that
    /// were entered before the brake held wait with the others.
    fn begin(&mut self, next: &[&Server], stages: &Stages<'a>) -> Vec<&'a Server> {
        self.fleet.enter(next, Axis::Failover);
        let begun: HashSet<&str> = self.fleet.ledger.on(Axis::Failover).collect();
        let waiting = stages.iter().filter(|(_, stage)| stage.ends_at().is_some());
        let waiting: HashSet<&str> = waiting.map(|(server, _)| server.name()).collect();
        let is_given_up = |server: &&Server| {
            server.is_unreachable() && begun.contains(server.name()) && !waiting.contains(server.name())
        };
        self.fleet.servers.iter().copied().filter(is_given_up).collect()
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

fn in_stage<'s, 'a: 's>(stages: &'s Stages<'a>, wanted: Stage) -> impl Iterator<Item = &'a Server> + 's {
    stages.iter().filter(move |(_, stage)| *stage == wanted).map(|(server, _)| *server)
}

fn names(servers: &[&Server]) -> String {
    listed(servers.iter().map(|server| server.name()), NAMES)
}
