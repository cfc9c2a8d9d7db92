//! Which Servers failover does nothing about, although they are unreachable, and why.

use std::collections::BTreeSet;

use berth_core::api::{Axis, Server};

use super::{
    failover_stage::since,
    output::{Blocker, Effect, Hold, PROVIDER_UNRESPONSIVE},
    planner::{Planner, listed},
};
use crate::set::finding::MachineFinding;

/// Reason: the machine runs and answers; only monitor-controller cannot reach it.
const MACHINE_ANSWERS: &str = "MachineAnswers";
/// Reason: a person decides what becomes of it.
const ASK_HUMAN: &str = "AskHuman";
/// Reason: the last Server of a set is not given up.
const LAST_SERVER: &str = "LastServer";
/// Reason: a person keeps failover off the Server.
pub(super) const FAILOVER_DISABLED: &str = "FailoverDisabled";
/// Reason: others are dealt with first.
pub(super) const MAX_IN_FLIGHT: &str = "MaxInFlight";
/// Reason: no machine could take the place.
pub(super) const NO_MACHINES: &str = "NoMachines";
/// Names in a message: an operator has to see which hosts they share.
const NAMES: usize = 10;

impl<'a> Planner<'_, 'a> {
    /// Notes that nothing is done about this Server.
    pub(super) fn hold_server(&mut self, server: &str, reason: &'static str) {
        self.plan.failover.held.push(Hold { server: server.to_owned(), reason });
    }

    /// Removes from the ledger what is unreachable and whose machine answers after all: nothing was done about it yet.
    pub(super) fn give_back_what_answers(&mut self) {
        let (servers, answers) = (&self.fleet.servers, self.input.answers);
        let answers = |server: &&&Server| {
            let known = answers.get(server.name()).filter(|_| server.is_unreachable());
            known.is_some_and(|answer| answer.finding == MachineFinding::Answers)
        };
        let back: BTreeSet<&str> = servers.iter().filter(answers).map(|server| server.name()).collect();
        self.fleet.ledger.retain(|entry| entry.axis != Axis::Failover || !back.contains(entry.server.as_str()));
    }

    /// Removes from the ledger what was to be given up before a person wanted to be asked: nothing was done about it yet.
    pub(super) fn give_back_what_is_asked_about(&mut self) {
        let unreachable = self.fleet.servers.iter().filter(|server| server.is_unreachable());
        let unreachable: BTreeSet<&str> = unreachable.map(|server| server.name()).collect();
        self.fleet.ledger.retain(|entry| entry.axis != Axis::Failover || !unreachable.contains(entry.server.as_str()));
    }

    /// Whether nothing is done about the Server, because its machine runs and answers. It is asked again from time to time.
    pub(super) fn is_held_because_it_answers(&mut self, server: &'a Server) -> bool {
        let answer = self.input.answers.get(server.name());
        let is_held = answer.is_some_and(|answer| answer.finding == MachineFinding::Answers);
        if is_held {
            self.hold_server(server.name(), MACHINE_ANSWERS);
            self.is_answered(server);
        }
        is_held
    }

    /// Whether something may be done about the Server now, because it was found a moment ago that nothing speaks against it.
    /// Otherwise it is asked about.
    pub(super) fn may_act(&mut self, server: &'a Server) -> bool {
        match self.input.answers.get(server.name()) {
            Some(answer) if answer.allows_failover(self.input.now) => return true,
            Some(answer) if answer.finding.holds() => {
                self.hold_server(server.name(), PROVIDER_UNRESPONSIVE);
                self.is_answered(server);
            }
            _ => {
                self.plan.failover.awaits_answer = true;
                self.plan.failover.ask.push(server.name().to_owned());
            }
        }
        false
    }

    /// Whether anything is known about the Server's machine. It is asked about, if not, and again from time to time.
    pub(super) fn is_answered(&mut self, server: &'a Server) -> bool {
        let answer = self.input.answers.get(server.name());
        self.plan.failover.awaits_answer |= answer.is_none();
        match answer.map(|answer| answer.ask_again_at).filter(|at| *at > self.input.now) {
            Some(at) => self.requeue_at(at),
            None => self.plan.failover.ask.push(server.name().to_owned()),
        }
        answer.is_some()
    }

    /// Asks a person about the Servers whose turn has come.
    pub(super) fn ask_human(&mut self, due: &[&Server]) {
        let Some(first) = due.first() else { return };
        // When, and not for how long: the message must not change while nothing happens.
        let at = since(first);
        let message = format!(
            "{} cannot be reached, the first since {at}: `kubectl delete server {}` retires it and another one is \
             created; it is kept for as long as nobody does",
            names(due),
            first.name()
        );
        for server in due {
            self.hold_server(server.name(), ASK_HUMAN);
        }
        self.block(Effect::Stalled, ASK_HUMAN, message);
    }

    /// Says that the set keeps its last Server.
    pub(super) fn hold_last_server(&mut self, given_up: &[&Server]) {
        let message = format!("{} cannot be reached: the last Server of a set is not given up", names(given_up));
        for server in given_up {
            self.hold_server(server.name(), LAST_SERVER);
        }
        self.block(Effect::Stalled, LAST_SERVER, message);
    }

    /// Says which Servers are held and why, except for what was said already.
    pub(super) fn report_holds(&mut self) {
        let unresponsive = self.held_by(PROVIDER_UNRESPONSIVE).into_iter().next();
        let error = match unresponsive.and_then(|name| self.input.answers.get(&name)).map(|answer| &answer.finding) {
            Some(MachineFinding::ProviderUnresponsive(error)) => error.as_str(),
            _ => "",
        };
        let max_in_flight = self.input.set.spec.failover.as_ref().map_or(1, |policy| policy.max_in_flight);
        let problem = self.input.no_machines.map_or("", |problem| problem.message.as_str());
        for (effect, reason, why) in [
            (
                Effect::Stalled,
                MACHINE_ANSWERS,
                "monitor-controller cannot reach the machine, but its provider says that it runs, and it answers \
                 replicaset-controller by SSH: nothing is rebooted, replaced or given up; look at the network of \
                 monitor-controller"
                    .to_owned(),
            ),
            (
                Effect::Delayed,
                PROVIDER_UNRESPONSIVE,
                format!(
                    "nothing is rebooted or destroyed before the provider says what became of the machine: {error}"
                ),
            ),
            (
                Effect::Noted,
                NO_MACHINES,
                format!("unreachable, and kept because no machine could take its place: {problem}"),
            ),
            (
                Effect::Noted,
                FAILOVER_DISABLED,
                "unreachable, and kept because of its annotation berth.dev/failover: a person decides".to_owned(),
            ),
            (
                Effect::Noted,
                MAX_IN_FLIGHT,
                format!("unreachable, and its turn comes after others: failover.maxInFlight is {max_in_flight}"),
            ),
        ] {
            let held = self.held_by(reason);
            if !held.is_empty() {
                self.block(effect, reason, format!("{}: {why}", listed(held.iter().map(String::as_str), NAMES)));
            }
        }
    }

    fn held_by(&self, reason: &str) -> BTreeSet<String> {
        self.plan.failover.held.iter().filter(|hold| hold.reason == reason).map(|hold| hold.server.clone()).collect()
    }

    /// Makes one blocker of those with the same effect that were found since, because a condition has one reason: that of the
    /// first, with the messages of all.
    pub(super) fn merge_blockers(&mut self, since: usize) {
        let mut merged: Vec<Blocker> = Vec::new();
        for blocker in self.plan.blockers.split_off(since) {
            match merged.iter_mut().find(|known| known.effect == blocker.effect) {
                Some(known) => known.message = format!("{}; {}", known.message, blocker.message),
                None => merged.push(blocker),
            }
        }
        self.plan.blockers.extend(merged);
    }
}

/// The names of these Servers, bounded.
pub(super) fn names(servers: &[&Server]) -> String {
    listed(servers.iter().map(|server| server.name()), NAMES)
}
