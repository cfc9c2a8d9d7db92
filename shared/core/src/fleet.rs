//! The Servers of a set at one moment, with the ledger and the budget: decides which Servers may be disturbed next.

use std::collections::{HashMap, HashSet};

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{Axis, Server, State, VMReplicaSet},
    budget::Budget,
    ledger::Ledger,
};

/// The Servers of a set at one moment, with the ledger and the budget.
///
/// A plan changes the ledger first. A Server is changed only after the new ledger was written, by a write that tests the set's
/// `resourceVersion`, and the Servers must have been read after the set: then two controllers cannot spend the same headroom.
#[derive(Clone, Debug)]
pub struct Fleet<'a> {
    /// All Servers that the set controls, including those that are being removed.
    pub servers: Vec<&'a Server>,
    /// The ledger, as it has to be written before any Server is changed.
    pub ledger: Ledger,
    /// The budget.
    pub budget: Budget,
    /// The time.
    pub now: Timestamp,
}

/// How fast a roll-out may proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// No Server is changed, and Servers that were entered but not changed yet leave the ledger.
    Hold,
    /// As fast as the budget allows.
    Unlimited,
    /// At most this many more Servers that are in service. The others cost no headroom and are not limited.
    ReadyServers(usize),
}

impl<'a> Fleet<'a> {
    /// The Servers of this set, with its budget and its ledger.
    #[must_use]
    pub fn of_set(set: &VMReplicaSet, servers: &[&'a Server], now: Timestamp) -> Self {
        Self { servers: servers.to_vec(), ledger: Ledger::of(set), budget: Budget::of_set(set), now }
    }

    /// The Servers that count for the set.
    pub fn active(&self) -> impl Iterator<Item = &'a Server> {
        self.servers.iter().copied().filter(|server| server.is_active())
    }

    /// The Servers that are Ready with their newest declaration.
    pub fn ready(&self) -> impl Iterator<Item = &'a Server> {
        self.servers.iter().copied().filter(|server| server.is_ready())
    }

    /// The Server of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'a Server> {
        self.servers.iter().copied().find(|server| server.name() == name)
    }

    /// Whether the Server is available now.
    #[must_use]
    pub fn is_available(&self, server: &Server) -> bool {
        server.is_available(self.budget.min_ready_seconds, self.now)
    }

    /// How many Servers are available, have no entry in the ledger, and are not forced: a force counts as a disturbance by a
    /// person.
    #[must_use]
    pub fn undisturbed(&self) -> usize {
        let disturbed = self.ledger.servers();
        let is_undisturbed =
            |server: &Server| self.is_available(server) && !server.is_forced() && !disturbed.contains(server.name());
        self.servers.iter().filter(|server| is_undisturbed(server)).count()
    }

    /// How many Servers are unavailable, through whatever cause: not created yet, not available, forced, or in the ledger.
    /// Servers beyond `replicas` make up for them.
    #[must_use]
    pub fn unavailable(&self) -> usize {
        self.budget.replicas.saturating_sub(self.undisturbed())
    }

    /// How many more available Servers may be disturbed now.
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.budget.max_unavailable.saturating_sub(self.unavailable())
    }

    /// The active Servers that the ledger names on this axis, in the order of the ledger.
    #[must_use]
    pub fn entered(&self, axis: Axis) -> Vec<&'a Server> {
        let position: HashMap<&str, usize> = self.ledger.on(axis).enumerate().map(|(n, name)| (name, n)).collect();
        if position.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<(usize, &'a Server)> =
            self.active().filter_map(|server| Some((*position.get(server.name())?, server))).collect();
        found.sort_unstable_by_key(|(position, _)| *position);
        found.into_iter().map(|(_, server)| server).collect()
    }

    /// If every Server that still needs a change is forced by a person: who has forced them, and what ends that. None if no
    /// Server needs the change, or if one that is not forced does.
    #[must_use]
    pub fn spared(&self, needs_change: impl Fn(&Server) -> bool) -> Option<String> {
        /// Servers in the message: enough to begin with, few enough to read.
        const NAMED: usize = 3;
        let left: Vec<&Server> = self.active().filter(|server| needs_change(server)).collect();
        let notes: Vec<String> = left.iter().filter_map(|server| server.force_note()).collect();
        if notes.is_empty() || notes.len() < left.len() {
            return None;
        }
        let more = if notes.len() > NAMED { format!(" and {} more", notes.len() - NAMED) } else { String::new() };
        let first = notes.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        Some(format!("{first}{more}: automation leaves it alone until a person removes spec.force"))
    }

    /// Enters Servers on this axis.
    pub fn enter(&mut self, servers: &[&Server], axis: Axis) {
        for server in servers {
            self.ledger.enter(server.name(), axis);
        }
    }

    /// Removes the entries on this axis whose Servers are gone or do not satisfy `stays`.
    pub fn leave(&mut self, axis: Axis, stays: impl Fn(&Server) -> bool) {
        let staying: HashSet<&str> =
            self.entered(axis).into_iter().filter(|server| stays(server)).map(Server::name).collect();
        self.ledger.retain(|entry| entry.axis != axis || staying.contains(entry.server.as_str()));
    }

    /// Advances a roll-out on `axis`: Servers that are Ready again and not `outdated` leave the ledger, the next ones are
    /// entered, and the Servers to change are returned, all of which are in the ledger.
    ///
    /// Servers are entered in the given `order`, but those that are not in service come first, because disturbing them costs
    /// nothing. After them come sick ones that a panic floor keeps in traffic, as many as the budget allows to be changed at
    /// once, and at least one: new code may be what they need. At least `partition` Servers stay as they are, and so does each that a person has forced.
    pub fn roll(
        &mut self,
        axis: Axis,
        order: &[&'a Server],
        pace: Pace,
        outdated: impl Fn(&Server) -> bool,
    ) -> Vec<&'a Server> {
        self.roll_within(axis, order, pace, outdated, |_| true)
    }

    /// The same, but only Servers for which `may` holds are changed now. The others keep their place in the order and in the partition.
    pub fn roll_within(
        &mut self,
        axis: Axis,
        order: &[&'a Server],
        pace: Pace,
        outdated: impl Fn(&Server) -> bool,
        may: impl Fn(&Server) -> bool,
    ) -> Vec<&'a Server> {
        // Where no Ready Server may be disturbed, one that came back never has its turn.
        let goes_on = pace != Pace::Hold && self.budget.max_unavailable > 0;
        self.leave(axis, |server| !server.is_ready() || outdated(server) && goes_on && may(server));
        let at_most = match pace {
            Pace::Hold => return Vec::new(),
            Pace::Unlimited => usize::MAX,
            Pace::ReadyServers(n) => n,
        };
        let next = self.next(axis, order, at_most, &outdated, &may);
        self.enter(&next, axis);
        let entered = self.entered(axis).into_iter();
        let due: Vec<&Server> =
            entered.filter(|server| outdated(server) && may(server) && !server.is_forced()).collect();
        // The partition may have been raised since they were entered.
        let (due, too_many) = due.split_at(due.len().min(self.room(&outdated)));
        let given_back: HashSet<&str> =
            too_many.iter().filter(|server| server.is_ready()).map(|server| server.name()).collect();
        self.ledger.retain(|entry| entry.axis != axis || !given_back.contains(entry.server.as_str()));
        let beyond = self.beyond_the_budget();
        due.iter().copied().filter(|server| !beyond.contains(server.name())).collect()
    }

    /// Takes back the entries on these axes of Servers that have to stay in service for now: more of them served when they were
    /// entered, and they were not removed yet. Whether they are removed is decided anew.
    pub fn give_back(&mut self, axes: &[Axis]) {
        let beyond = self.beyond_the_budget();
        self.ledger.retain(|entry| !axes.contains(&entry.axis) || !beyond.contains(entry.server.as_str()));
    }

    /// How many more Servers may be updated before only those are left that the partition keeps.
    fn room(&self, outdated: &impl Fn(&Server) -> bool) -> usize {
        let updated = self.active().filter(|server| !outdated(server)).count();
        self.active().count().saturating_sub(self.budget.partition).saturating_sub(updated)
    }

    /// The Servers in the ledger that are in service and have to stay so for now. They were entered while they served nothing, or
    /// while more was allowed, and came back before a newer declaration. The first ones of the ledger have their turn first,
    /// whoever entered them: then the controllers do not wait for each other.
    fn beyond_the_budget(&self) -> HashSet<&'a str> {
        let is_served = |server: &&Server| {
            let stays = server.state() == Some(State::Ready) || !server.is_observed();
            server.is_active() && !server.is_forced() && stays && server.is_in_service() && !server.is_sick_in_service()
        };
        let served: HashMap<&str, &'a Server> =
            self.servers.iter().copied().filter(is_served).map(|server| (server.name(), server)).collect();
        // One that serves, and is not available yet, cannot stand in for another. It has to be available before its turn comes.
        let stands_in = |server: &&&Server| self.is_available(server) || !server.is_observed();
        let available = served.values().filter(stands_in).count();
        let mut seen = HashSet::new();
        let entered = self.ledger.iter().filter_map(|entry| served.get(entry.server.as_str()));
        let entered = entered.map(|server| server.name()).filter(|name| seen.insert(*name));
        let may_leave = (available + self.budget.max_unavailable).saturating_sub(self.budget.replicas);
        entered.skip(may_leave).collect()
    }

    /// The Servers to enter next: outdated, and not yet in the ledger on this axis or on one that removes them.
    fn next(
        &self,
        axis: Axis,
        order: &[&'a Server],
        at_most: usize,
        outdated: &impl Fn(&Server) -> bool,
        may: &impl Fn(&Server) -> bool,
    ) -> Vec<&'a Server> {
        let is_taken = |entry_axis: Axis| entry_axis == axis || entry_axis.removes_the_server();
        let taken: HashSet<&str> =
            self.ledger.iter().filter(|entry| is_taken(entry.axis)).map(|entry| entry.server.as_str()).collect();
        let active: Vec<&Server> = order.iter().copied().filter(|server| server.is_active()).collect();
        let (old, new): (Vec<&Server>, Vec<&Server>) =
            active.iter().partition(|server| outdated(server) && !taken.contains(server.name()));
        let wanted = active.len().saturating_sub(self.budget.partition).saturating_sub(new.len());
        let changeable = old.into_iter().filter(|server| !server.is_forced() && may(server));
        let (in_service, free): (Vec<&Server>, Vec<&Server>) = changeable.partition(|server| server.is_in_service());
        let can_be_reached = |server: &Server| server.state() != Some(State::Unknown);
        let (sick, in_service): (Vec<&Server>, Vec<&Server>) =
            in_service.into_iter().partition(|server| can_be_reached(server) && server.is_sick_in_service());
        let disturbed = self.ledger.servers();
        let is_disturbed = |server: &&&Server| can_be_reached(server) && disturbed.contains(server.name());
        let being_changed = self.servers.iter().filter(is_disturbed).count();
        let soon = free.iter().filter(|server| can_be_reached(server) && !disturbed.contains(server.name())).count();
        let sick_at_once = self.budget.max_unavailable.max(1).saturating_sub(being_changed + soon);
        let headroom = self.headroom().min(at_most);
        let sick = sick.into_iter().take(sick_at_once);
        free.into_iter().chain(sick).chain(in_service.into_iter().take(headroom)).take(wanted).collect()
    }
}
