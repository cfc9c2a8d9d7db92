//! Failover: what is done about a set's Servers whose machines cannot be reached.
//!
//! A pure function of the set and its Servers, so that it gives the same whoever looks and whenever: what was begun stands
//! in the ledger (`<server>/failover`) and in the Servers' own declarations (`spec.reboot`, `spec.retain`). A Server that
//! is back before its turn has come is kept.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    members,
    plan::{Effect, Obstacle},
};
use berth_core::{
    api::{Failover, FailoverAction, Retain, Server, State, VMReplicaSet},
    budget::{self, Axis, Entry, name},
    conditions,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// With this annotation and the value [`DISABLED`], failover leaves a Server alone.
pub const ANNOTATION: &str = "berth.dev/failover";
/// See [`ANNOTATION`].
pub const DISABLED: &str = "disabled";

/// Condition: nothing is rebooted or replaced, because too many Servers cannot be reached. When it becomes False, those that
/// still cannot be reached wait anew: whatever brought the others back may be about to bring them back, too.
pub const HELD: &str = "FailoverHeld";
/// Reason: more Servers are Unknown than the brake allows.
pub const TOO_MANY_UNKNOWN: &str = "TooManyUnknown";

/// Reason: the provider does not say what became of a machine.
const PROVIDER_SILENT: &str = "ProviderSilent";

/// Share of the Servers beyond which nothing is replaced when nothing is declared, in percent.
const DEFAULT_BRAKE: usize = 40;
/// Names of a message; of more it says how many.
const NAMES: usize = 10;

/// What failover does next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `status.disturbed` as it has to be first.
    pub ledger: Vec<String>,
    /// Servers to reboot; the request's id, which is the same for the same loss.
    pub reboot: Vec<(String, String)>,
    /// Servers to retire, so that others are created. Their provider is asked first.
    pub replace: Vec<String>,
    /// Servers to keep for diagnosis until then, so that others are created.
    pub retain: Vec<(String, Timestamp)>,
    /// By how much `replicas` is to be lowered. The set then has too many, and those of the ledger go first.
    pub shrink: i32,
    /// Kept Servers whose time is over.
    pub expired: Vec<String>,
    /// Why nothing is done about Servers whose turn has come.
    pub held: Option<Held>,
    /// Who is sick, if too many are for anything to be done about them, whether or not their turn has come.
    pub brake: Option<String>,
    /// Servers that cannot be reached, whatever is done about them.
    pub lost: Vec<String>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// Why failover does nothing about Servers whose turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Condition reason.
    pub reason: &'static str,
    /// Who is sick, and why nothing is done.
    pub message: String,
}

impl Held {
    /// It needs a person, except for what may pass by itself.
    pub(super) fn obstacle(&self) -> Obstacle {
        let effect = if self.reason == PROVIDER_SILENT { Effect::Delays } else { Effect::Stalls };
        Obstacle { effect, reason: self.reason.to_owned(), message: self.message.clone() }
    }
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reboot.is_empty()
            && self.replace.is_empty()
            && self.retain.is_empty()
            && self.shrink == 0
            && self.expired.is_empty()
    }

    /// Whether others have to take the places of machines.
    #[must_use]
    pub fn gives_up_machines(&self) -> bool {
        !self.replace.is_empty() || !self.retain.is_empty()
    }
}

/// Of which Servers the provider did not say lately what became of their machines, and why not, by name. Nothing is
/// destroyed before it has.
pub type Silent = BTreeMap<String, String>;

/// Plans failover. `servers` are all that the set controls, `ledger` is `status.disturbed` as other plans leave it.
#[must_use]
pub fn plan(set: &VMReplicaSet, servers: &[&Server], ledger: &[String], silent: &Silent, now: Timestamp) -> Plan {
    let mut plan = Plan { ledger: still_begun(set, servers, ledger), ..Plan::default() };
    plan.expire(servers, now);
    let mut lost: Vec<&Server> = servers.iter().copied().filter(|s| is_lost(s)).collect();
    lost.sort_by_cached_key(|s| (since(s), name(s).to_owned()));
    plan.lost = lost.iter().map(|s| name(s).to_owned()).collect();
    let Some(policy) = &set.spec.failover else { return plan };

    let active = servers.iter().filter(|s| budget::is_active(s)).count();
    let limit = budget::at_least_one(policy.unhealthy_less_than_or_equal_to.as_ref(), DEFAULT_BRAKE, active);
    plan.brake = (lost.len() > limit).then(|| braked(&lost, active, limit));
    let from = if plan.brake.is_some() { Timestamp::UNIX_EPOCH } else { brake_let_go(set, now) };
    let ours: Vec<&Server> = lost.iter().copied().filter(|s| !is_opted_out(s)).collect();
    let stages: Vec<(&Server, Stage)> = ours.iter().map(|s| (*s, stage(policy, s, from, now))).collect();
    let begun: BTreeSet<String> = budget::entered(&plan.ledger, Axis::Failover).collect();
    let due: Vec<&Server> = of(&stages, &Stage::Due).filter(|s| !begun.contains(name(s))).collect();
    let reboot: Vec<&Server> = of(&stages, &Stage::Reboot).collect();
    plan.wake_for(&stages);
    if due.is_empty() && reboot.is_empty() && begun.is_empty() {
        return plan;
    }
    if let Some(message) = plan.brake.clone() {
        plan.held = Some(Held { reason: TOO_MANY_UNKNOWN, message });
        return plan;
    }
    let rebooting = stages.iter().filter(|(_, stage)| matches!(stage, Stage::Rebooted(_))).count();
    let limit = usize::try_from(policy.max_in_flight).unwrap_or(1);
    let room = limit.saturating_sub(begun.len()).saturating_sub(rebooting);
    plan.reboot = reboot.iter().take(room).map(|s| (name(s).to_owned(), reboot_id(s))).collect();
    let room = room - plan.reboot.len();
    let next = &due[..room.min(due.len())];
    match policy.action {
        FailoverAction::AskHuman => plan.ask(&due, now),
        FailoverAction::Replace => {
            let turn = plan.begin(next, servers, &stages);
            plan.replace(policy, servers, &turn, silent, now);
        }
        FailoverAction::Shrink => {
            let turn = plan.begin(next, servers, &stages);
            plan.shrink(set, servers, &turn);
        }
    }
    plan
}

/// How far a lost Server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It may come back until then.
    Waiting(Timestamp),
    /// It is to be rebooted.
    Reboot,
    /// A reboot was asked for; it may come back until then.
    Rebooted(Timestamp),
    /// Its turn has come.
    Due,
}

impl Stage {
    /// Until when it is waited for.
    fn until(self) -> Option<Timestamp> {
        match self {
            Self::Waiting(at) | Self::Rebooted(at) => Some(at),
            Self::Reboot | Self::Due => None,
        }
    }
}

fn of<'a>(stages: &[(&'a Server, Stage)], wanted: &Stage) -> impl Iterator<Item = &'a Server> {
    stages.iter().filter(move |(_, stage)| stage == wanted).map(|(server, _)| *server)
}

/// No wait begins before `from`.
fn stage(policy: &Failover, server: &Server, from: Timestamp, now: Timestamp) -> Stage {
    let lost = since(server);
    let waited = later(lost.max(from), policy.wait_seconds);
    if now < waited {
        return Stage::Waiting(waited);
    }
    let Some(reboot) = &policy.reboot else { return Stage::Due };
    let asked = server.spec.reboot.as_ref().and_then(|request| request.at.as_ref()).map(|at| at.0);
    match asked {
        Some(at) if at >= lost => {
            let until = later(at.max(from), policy.wait_seconds);
            if now < until { Stage::Rebooted(until) } else { Stage::Due }
        }
        // Lost again so soon after a reboot, another one would not help either.
        Some(at) if now < later(at, reboot.cooldown_seconds) => Stage::Due,
        _ => Stage::Reboot,
    }
}

impl Plan {
    fn expire(&mut self, servers: &[&Server], now: Timestamp) {
        for server in servers.iter().filter(|s| s.metadata.deletion_timestamp.is_none()) {
            match server.spec.retain.as_ref().map(|retain| retain.until.0) {
                Some(until) if until <= now => self.expired.push(name(server).to_owned()),
                Some(until) => self.wake_at(until),
                None => {}
            }
        }
    }

    fn wake_for(&mut self, stages: &[(&Server, Stage)]) {
        for at in stages.iter().filter_map(|(_, stage)| stage.until()) {
            self.wake_at(at);
        }
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn ask(&mut self, due: &[&Server], now: Timestamp) {
        let Some(first) = due.first() else { return };
        let minutes = now.duration_since(since(first)).as_mins();
        let message = format!(
            "{} cannot be reached, the first for {minutes} min: `kubectl delete server {}` retires it and another one is created; it is kept for as long as nobody does",
            names(due),
            name(first)
        );
        self.held = Some(Held { reason: "AskHuman", message });
    }

    fn replace(&mut self, policy: &Failover, servers: &[&Server], turn: &[&Server], silent: &Silent, now: Timestamp) {
        let kept = servers.iter().filter(|s| s.spec.retain.is_some() && s.metadata.deletion_timestamp.is_none());
        let room = policy.retain.as_ref().map_or(0, |r| usize::try_from(r.max).unwrap_or(0));
        let mut room = room.saturating_sub(kept.count());
        for server in turn {
            if let Some(why) = silent.get(name(server)) {
                let message = format!(
                    "{}: nothing is destroyed before its provider says what became of the machine: {why}",
                    name(server)
                );
                self.held = Some(Held { reason: PROVIDER_SILENT, message });
                continue;
            }
            match &policy.retain {
                Some(Retain { expiry_seconds, .. }) if room > 0 => {
                    room -= 1;
                    self.retain.push((name(server).to_owned(), later(now, *expiry_seconds)));
                }
                _ => self.replace.push(name(server).to_owned()),
            }
        }
    }

    /// `replicas` is lowered once for each begun Server: as long as the set has not too many by then.
    fn shrink(&mut self, set: &VMReplicaSet, servers: &[&Server], turn: &[&Server]) {
        let begun = i32::try_from(turn.len()).unwrap_or(i32::MAX);
        let active = i32::try_from(servers.iter().filter(|s| budget::is_active(s)).count()).unwrap_or(i32::MAX);
        let surplus = (active - set.spec.replicas).max(0);
        let wanted = (begun - surplus).max(0);
        self.shrink = wanted.min(set.spec.replicas - 1).max(0);
        if self.shrink < wanted {
            let message = format!("{} cannot be reached: the last Server of a set is not given up", names(turn));
            self.held = Some(Held { reason: "LastServer", message });
        }
    }

    /// Enters the next ones. Gives the Servers of the ledger that are still lost and not waited for: what was begun before
    /// the brake held waits with the others.
    fn begin<'a>(&mut self, next: &[&Server], servers: &[&'a Server], stages: &[(&Server, Stage)]) -> Vec<&'a Server> {
        self.ledger.extend(next.iter().map(|s| Entry::new(name(s), Axis::Failover).to_string()));
        let begun: BTreeSet<String> = budget::entered(&self.ledger, Axis::Failover).collect();
        let waits: BTreeSet<&str> =
            stages.iter().filter(|(_, stage)| stage.until().is_some()).map(|(server, _)| name(server)).collect();
        let is_its_turn = |server: &&Server| begun.contains(name(server)) && !waits.contains(name(server));
        servers.iter().copied().filter(|s| is_lost(s)).filter(is_its_turn).collect()
    }
}

/// The ledger without what has ended: a Server that is back, and one that is gone and whose place is taken.
fn still_begun(set: &VMReplicaSet, servers: &[&Server], ledger: &[String]) -> Vec<String> {
    let active = servers.iter().filter(|s| budget::is_active(s));
    let (healthy, total) =
        active.fold((0, 0), |(h, n), s| (h + usize::from(budget::is_ready(s) || is_lost(s)), n + 1usize));
    let replicas = usize::try_from(set.spec.replicas).unwrap_or(0);
    let mut missing = replicas.max(total) - healthy;
    let find = |wanted: &str| servers.iter().find(|s| name(s) == wanted);
    let mut stays = |line: &String| match line.parse::<Entry>() {
        Ok(entry) if entry.axis == Axis::Failover => match find(&entry.server) {
            Some(server) if is_lost(server) => true,
            Some(server) if budget::is_active(server) => false,
            // Going, kept or gone: until somebody has taken its place.
            _ => {
                let waits = missing > 0;
                missing = missing.saturating_sub(1);
                waits
            }
        },
        _ => true,
    };
    ledger.iter().filter(|line| stays(line)).cloned().collect()
}

/// Whether the machine cannot be reached, by the facts and not by a person's word.
#[must_use]
pub fn is_lost(server: &Server) -> bool {
    let Some(status) = &server.status else { return false };
    budget::is_active(server)
        && status.state == Some(State::Unknown)
        && !(server.spec.force.is_some() && status.force.as_ref().is_some_and(|force| force.active))
}

fn is_opted_out(server: &Server) -> bool {
    server.metadata.annotations.iter().flatten().any(|(key, value)| key == ANNOTATION && value == DISABLED)
}

/// Why nothing is replaced: more Servers are lost than `limit`.
fn braked(lost: &[&Server], active: usize, limit: usize) -> String {
    format!(
        "{} of {active} Servers cannot be reached, more than the {limit} up to which machines are rebooted or replaced: {}; look at the network first",
        lost.len(),
        names(lost)
    )
}

/// When the brake let go last: just now, if the set's status still shows it on.
fn brake_let_go(set: &VMReplicaSet, now: Timestamp) -> Timestamp {
    let known = set.status.as_ref().and_then(|status| conditions::get(&status.conditions, HELD));
    known.map_or(Timestamp::UNIX_EPOCH, |held| if held.status == "True" { now } else { held.last_transition_time.0 })
}

fn names(servers: &[&Server]) -> String {
    members::listed(servers.iter().map(|s| name(s)), NAMES)
}

/// One id for each loss, so that a request made twice is one.
fn reboot_id(server: &Server) -> String {
    format!("lost-{}", since(server).as_second())
}

/// Since when the Server is in its state.
fn since(server: &Server) -> Timestamp {
    server.status.as_ref().and_then(|s| s.state_since.as_ref()).map_or(Timestamp::UNIX_EPOCH, |at| at.0)
}

fn later(at: Timestamp, seconds: i32) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}
