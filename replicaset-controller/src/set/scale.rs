//! How many Servers a set has: which names are given to new ones, and which Servers are retired.
//!
//! A name stands in `status.creating` before its Server is created, and a Server in the ledger before it is deleted.
//! Both are entered by a write that tests the set's `resourceVersion`, after the set and then its Servers were read
//! from the API server: so two controllers agree, and a stale cache never gives one machine too many.

use std::collections::{BTreeSet, HashSet};

use berth_core::{
    api::{Server, VMReplicaSet},
    budget::{self, Axis, Entry, name},
};

use super::{
    members::{ordinal, server_name},
    plan::{Effect, Facts, Obstacle},
    replace::{Replacing, staying},
    victims,
};

/// Names that are entered at once. Each entry is a write of the status, and those are to be few; a name is a few bytes.
const NAMES: usize = 1000;

/// What has to be done about the number of Servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// `status.creating` as it has to be first.
    pub creating: Vec<String>,
    /// The ledger, with the Servers that are to be retired.
    pub ledger: Vec<String>,
    /// Names of the Servers to create, all of which stand in `creating`.
    pub create: Vec<String>,
    /// Why not as many are created as are declared.
    pub obstacle: Option<Obstacle>,
}

/// Plans the number of Servers. `servers` are all that the set controls, also those that are being retired, and `ledger`
/// has no lines of those that are retired already.
#[must_use]
pub fn plan(
    set: &VMReplicaSet,
    servers: &[&Server],
    ledger: &[String],
    replacing: &Replacing,
    facts: Facts<'_>,
) -> Scale {
    let replicas = usize::try_from(set.spec.replicas).unwrap_or(0);
    let ceiling = facts.limits.replicas;
    let obstacle = (replicas > ceiling).then(|| too_many(replicas, ceiling));
    let mut pending = pending(set, servers, facts.taken);
    let active = servers.iter().filter(|s| budget::is_active(s)).count();
    let staying = staying(servers, ledger);
    let mut ledger = ledger.to_vec();

    let surplus = (staying.len() + pending.len()).saturating_sub(replicas + replacing.surge);
    if surplus > 0 {
        let unborn = surplus.min(pending.len());
        pending.truncate(pending.len() - unborn);
        let lost: BTreeSet<String> = budget::entered(&ledger, Axis::Failover).collect();
        let victims = victims::ranked(set, &staying, &lost);
        let retired = victims.iter().take(surplus - unborn);
        ledger.extend(retired.map(|s| Entry::new(name(s), Axis::Retirement).to_string()));
    } else if facts.no_machines.is_none() {
        let surge = if replacing.is_held { 0 } else { replacing.surge };
        let room = (replicas.min(ceiling) + surge).saturating_sub(active + pending.len());
        // So many keep their machine; all others are new ones or are missing.
        let kept = replacing.old - replacing.wanted;
        let young = staying.len() - replacing.old;
        let missing = replicas.saturating_sub(kept + young + pending.len());
        let wanted = room.min(missing).min(NAMES.saturating_sub(pending.len()));
        if wanted > 0 {
            let free = free_names(set, servers, facts.taken, &pending);
            pending.extend(free.take(wanted));
        }
    }
    let create = if facts.no_machines.is_none() { pending.clone() } else { Vec::new() };
    Scale { create, creating: pending, ledger, obstacle }
}

fn too_many(replicas: usize, ceiling: usize) -> Obstacle {
    let message = format!(
        "spec.replicas is {replicas}, but at most {ceiling} Servers of one VMReplicaSet are created (replicaset-controller's \
         --max-replicas): lower the one or raise the other"
    );
    Obstacle { effect: Effect::Stalls, reason: "TooManyReplicas".to_owned(), message }
}

/// The names that are given, but have no Server yet.
fn pending(set: &VMReplicaSet, servers: &[&Server], taken: &BTreeSet<String>) -> Vec<String> {
    let creating = set.status.as_ref().map(|status| status.creating.as_slice()).unwrap_or_default();
    if creating.is_empty() {
        return Vec::new();
    }
    let exists: HashSet<&str> = servers.iter().map(|s| name(s)).collect();
    creating.iter().filter(|n| !exists.contains(n.as_str()) && !taken.contains(*n)).cloned().collect()
}

fn free_names(
    set: &VMReplicaSet,
    servers: &[&Server],
    taken: &BTreeSet<String>,
    pending: &[String],
) -> impl Iterator<Item = String> + use<> {
    let own = set.metadata.name.clone().unwrap_or_default();
    let names = servers
        .iter()
        .map(|s| name(s))
        .chain(taken.iter().map(String::as_str))
        .chain(pending.iter().map(String::as_str));
    let used: HashSet<usize> = names.filter_map(|name| ordinal(&own, name)).collect();
    (0..).filter(move |n| !used.contains(n)).map(move |n| server_name(&own, n))
}
