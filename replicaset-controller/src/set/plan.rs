//! What is to be done about a set: one plan, made of parts that know nothing of each other.
//!
//! Each part takes the ledger as the one before has left it, and gives it back with its own lines. What a plan does to a
//! Server stands in the ledger that it asks for, so that it is done only after that was written.

use std::collections::BTreeSet;

use berth_core::{
    api::{Server, VMReplicaSet},
    budget::{self, Axis},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{
    drifted::{self, Known},
    failover::{self, Held},
    machines::NoMachines,
    pace::Pacer,
    replace::{self, Replacing},
    roll, room, scale,
};

/// What is known besides the set and its Servers.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The time.
    pub now: Timestamp,
    /// Names that belong to somebody else's Servers.
    pub taken: &'a BTreeSet<String>,
    /// What the controller is told to keep to.
    pub limits: Limits,
    /// Why no machines can be had, if so.
    pub no_machines: Option<&'a NoMachines>,
    /// Which Servers are not what was read back from them.
    pub drift: &'a Known,
    /// Of which Servers that cannot be reached the provider does not say what became of them.
    pub silent: &'a failover::Silent,
}

/// What the controller is told to keep to, for every set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Creations in flight at once.
    pub creating: usize,
    /// Servers beyond which none is created, whatever `replicas` says.
    pub replicas: usize,
}

/// The parts of the status that are guarded: entered before something is done, by a write that tests the set's
/// `resourceVersion`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledgers {
    /// `status.creating`.
    pub creating: Vec<String>,
    /// `status.disturbed`.
    pub disturbed: Vec<String>,
    /// `status.lastDisturbedAt`.
    pub last_disturbed_at: Option<Time>,
}

impl Ledgers {
    /// Those of the set.
    #[must_use]
    pub fn of(set: &VMReplicaSet) -> Self {
        let status = set.status.clone().unwrap_or_default();
        Self { creating: status.creating, disturbed: status.disturbed, last_disturbed_at: status.last_disturbed_at }
    }
}

/// Why the set does not get on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What it means.
    pub effect: Effect,
    /// Reason of a condition.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// What an [`Obstacle`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A person is needed: condition `Stalled`.
    Stalls,
    /// The roll-out begins nothing more: condition `Progressing` is False.
    Holds,
    /// It may pass by itself.
    Delays,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan<'a> {
    /// What has to be entered first.
    pub ledgers: Ledgers,
    /// Names of the Servers to create, all of which stand in `ledgers.creating`.
    pub create: Vec<String>,
    /// The Servers to retire, because there are too many.
    pub retire: Vec<&'a Server>,
    /// The Servers to retire, because their machine is to be another one.
    pub replace: Vec<&'a Server>,
    /// The Servers that get the template's environment.
    pub touch: Vec<&'a Server>,
    /// The drifted Servers that are to be reported.
    pub repair: Vec<&'a Server>,
    /// What is to be done about Servers that cannot be reached.
    pub failover: failover::Plan,
    /// Whether Ready Servers are changed one at a time. What was not Ready when it was looked at must then be left alone if
    /// it has become Ready since: its turn has not come.
    pub is_slow: bool,
    /// Servers whose machine is yet to be replaced.
    pub to_replace: usize,
    /// Why the set does not get on.
    pub obstacles: Vec<Obstacle>,
    /// When there is something to do although nothing happens.
    pub wake: Option<Timestamp>,
}

impl Plan<'_> {
    /// Whether there is nothing to do, but perhaps something to enter.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let Self { create, retire, replace, touch, repair, failover, .. } = self;
        create.is_empty()
            && retire.is_empty()
            && replace.is_empty()
            && touch.is_empty()
            && repair.is_empty()
            && failover.is_done()
    }

    /// Whether it depends on machines being had.
    #[must_use]
    pub fn needs_machines(&self) -> bool {
        !self.create.is_empty() || self.to_replace > 0 || self.failover.gives_up_machines()
    }
}

/// Plans what is to be done about a set. `servers` are all that it controls, also those that are being retired.
///
/// What is done because of it must come from a set that was read first and its Servers read after that, both from the
/// API server, and only after `ledgers` was written by a write that tests that set's `resourceVersion`.
#[must_use]
pub fn plan<'a>(set: &VMReplicaSet, servers: &[&'a Server], facts: Facts<'_>) -> Plan<'a> {
    let mut obstacles: Vec<Obstacle> = Vec::new();
    let failed = roll::too_many_failed(set, servers);
    let hold = set.spec.paused || failed.is_some();
    obstacles.extend(failed);
    obstacles.extend(facts.no_machines.map(NoMachines::obstacle));

    let entered = Ledgers::of(set);
    let left = |ledger: &[String], axis| budget::without(servers, ledger, axis, |_| true);
    let ledger = left(&left(&entered.disturbed, Axis::Retirement), Axis::Replacement);
    let mut failover = failover::plan(set, servers, &ledger, facts.silent, facts.now);
    if facts.no_machines.is_some() {
        // Nobody could take their places.
        failover.replace.clear();
        failover.retain.clear();
    }
    obstacles.extend(failover.held.as_ref().map(Held::obstacle));
    let ledger = failover.ledger.clone();
    let replacing = Replacing::of(set, servers, &ledger, hold || facts.no_machines.is_some());
    obstacles.extend(replacing.obstacle());
    obstacles.extend(room::obstacle(set, servers, facts.drift));

    let scale = scale::plan(set, servers, &ledger, &replacing, facts);
    obstacles.extend(scale.obstacle);
    let mut pacer = Pacer::of(set, facts.now);
    let replaced = replace::plan(set, servers, &scale.ledger, &replacing, &mut pacer, facts.now);
    let rolled = roll::plan(set, servers, &replaced.ledger, &mut pacer, hold, facts.now);
    let repaired = drifted::plan(set, servers, &rolled.ledger, facts);

    Plan {
        create: scale.create,
        retire: budget::entered_servers(servers, &repaired.ledger, Axis::Retirement),
        replace: replaced.touch,
        is_slow: pacer.is_slow(),
        touch: rolled.touch,
        repair: repaired.touch,
        to_replace: replacing.wanted,
        obstacles,
        wake: pacer.wake().into_iter().chain(failover.wake).min(),
        failover,
        ledgers: Ledgers {
            creating: scale.creating,
            disturbed: repaired.ledger,
            last_disturbed_at: pacer.last().or(entered.last_disturbed_at),
        },
    }
}
