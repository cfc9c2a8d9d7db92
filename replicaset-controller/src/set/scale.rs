//! How many Servers a set has: which names are given to new ones, and which Servers are retired.
//!
//! A name stands in `status.creating` before its Server is created, and a Server in the ledger before it is deleted.
//! Both are entered by a write that tests the set's `resourceVersion`, after the set and then its Servers were read
//! from the API server: so two controllers agree, and a stale cache never gives one machine too many.

use std::collections::BTreeSet;

use berth_core::{
    api::{Server, VMReplicaSet, VMReplicaSetStatus},
    budget::{self, Axis, Entry},
};

use super::{
    members::{ordinal, server_name},
    victims,
};

/// What has to be done about the number of Servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// `status.creating` as it has to be first.
    pub creating: Vec<String>,
    /// `status.disturbed` as it has to be first.
    pub disturbed: Vec<String>,
    /// Names of the Servers to create, all of which stand in `creating`.
    pub create: Vec<String>,
    /// Names of the Servers to delete, all of which stand in `disturbed`.
    pub delete: Vec<String>,
}

impl Scale {
    /// Whether the status differs from what it has to be first.
    #[must_use]
    pub fn changes(&self, status: &VMReplicaSetStatus) -> bool {
        self.creating != status.creating || self.disturbed != status.disturbed
    }

    /// Whether there is nothing to create or delete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }
}

/// Plans the number of Servers. `servers` are all that the set controls, also those that are being retired; `taken` are
/// names that belong to somebody else's Servers; never more than `max_creating` names are open at once.
#[must_use]
pub fn plan(set: &VMReplicaSet, servers: &[&Server], taken: &BTreeSet<String>, max_creating: usize) -> Scale {
    let status = set.status.clone().unwrap_or_default();
    let replicas = usize::try_from(set.spec.replicas).unwrap_or(0);
    let exists: BTreeSet<&str> = servers.iter().map(|s| name(s)).collect();
    let active: BTreeSet<&str> = servers.iter().filter(|s| budget::is_active(s)).map(|s| name(s)).collect();
    let mut pending: Vec<String> =
        status.creating.iter().filter(|n| !exists.contains(n.as_str()) && !taken.contains(*n)).cloned().collect();
    let mut disturbed: Vec<String> =
        status.disturbed.iter().filter(|line| !is_retired(line, &active)).cloned().collect();
    let leaving: BTreeSet<String> = budget::entered(&disturbed, Axis::Retirement).collect();
    let staying: Vec<&Server> =
        servers.iter().copied().filter(|s| active.contains(name(s)) && !leaving.contains(name(s))).collect();

    let current = staying.len() + pending.len();
    if current < replicas {
        let room = max_creating.saturating_sub(pending.len());
        let free = free_names(set, &exists, taken, &pending);
        pending.extend(free.take(room.min(replicas - current)));
    } else {
        let surplus = current - replicas;
        let unborn = surplus.min(pending.len());
        pending.truncate(pending.len() - unborn);
        let victims = victims::ranked(&set.spec.scale_down, &staying);
        let retired = victims.iter().take(surplus - unborn);
        disturbed.extend(retired.map(|s| Entry::new(name(s), Axis::Retirement).to_string()));
    }
    Scale {
        create: pending.clone(),
        creating: pending,
        delete: budget::entered(&disturbed, Axis::Retirement).collect(),
        disturbed,
    }
}

fn name(server: &Server) -> &str {
    server.metadata.name.as_deref().unwrap_or_default()
}

fn is_retired(line: &str, active: &BTreeSet<&str>) -> bool {
    line.parse::<Entry>().is_ok_and(|e| e.axis == Axis::Retirement && !active.contains(e.server.as_str()))
}

fn free_names(
    set: &VMReplicaSet,
    exists: &BTreeSet<&str>,
    taken: &BTreeSet<String>,
    pending: &[String],
) -> impl Iterator<Item = String> + use<> {
    let own = set.metadata.name.clone().unwrap_or_default();
    let names =
        exists.iter().copied().chain(taken.iter().map(String::as_str)).chain(pending.iter().map(String::as_str));
    let used: BTreeSet<usize> = names.filter_map(|name| ordinal(&own, name)).collect();
    (0..).filter(move |n| !used.contains(n)).map(move |n| server_name(&own, n))
}
