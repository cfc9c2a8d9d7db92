//! How many Servers of each failure domain are unreachable, over all sets, so that the reconcile of one set costs nothing for the
//! Servers of all others. It is a function of the cached Servers, so that every copy of the controller counts the same.

use std::collections::{BTreeMap, HashMap};

use berth_core::api::{Server, VMReplicaSet};
use berth_runtime::Change;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

use super::zone::{DomainCounts, FailureDomain, FailureDomains};

/// The failure domains of all Servers, by the changes that it was given.
#[derive(Debug)]
pub struct ZoneIndex {
    /// See [`DomainCounts::is_braked`].
    percent: usize,
    inner: Mutex<Inner>,
}

/// Namespace and name of a Server.
type Key = (String, String);

#[derive(Debug, Default)]
struct Inner {
    /// The failure domain of each Server that counts.
    servers: HashMap<Key, FailureDomain>,
    domains: HashMap<FailureDomain, Domain>,
}

#[derive(Debug, Default)]
struct Domain {
    active: usize,
    /// The unreachable Servers, each with the set to reconcile when the brake begins or ceases to hold.
    unreachable: BTreeMap<Key, Option<ObjectRef<VMReplicaSet>>>,
}

impl Domain {
    fn counts(&self) -> DomainCounts {
        DomainCounts { active: self.active, unreachable: self.unreachable.len() }
    }
}

impl ZoneIndex {
    /// An index without Servers, for a brake that holds above so many percent.
    #[must_use]
    pub fn new(percent: usize) -> Self {
        Self { percent, inner: Mutex::default() }
    }

    /// Follows a change. Returns the sets that have to be reconciled, because the brake has begun or ceased to hold for them.
    pub fn follow(&self, change: &Change<Server>) -> Vec<ObjectRef<VMReplicaSet>> {
        let server = change.object();
        let counts = matches!(change, Change::Present(_)) && server.is_active() && server.machine().is_some();
        let domain = counts.then(|| FailureDomain::of(server));
        let key = (server.namespace().to_owned(), server.name().to_owned());
        let mut inner = self.inner.lock();
        let before = inner.servers.get(&key).cloned();
        let (concerned, was_braked) = self.braked([&before, &domain], &inner);
        inner.remove(&key);
        if let Some(domain) = domain.clone() {
            inner.insert(key, domain, server);
        }
        let (_, is_braked) = self.braked([&before, &domain], &inner);
        let flipped = concerned.into_iter().zip(was_braked.into_iter().zip(is_braked));
        let flipped = flipped.filter(|(_, (was, is))| was != is).map(|(domain, (_, is))| (domain, is));
        flipped.flat_map(|(domain, is_braked)| inner.announce(&domain, is_braked)).collect()
    }

    /// The failure domains of these Servers.
    #[must_use]
    pub fn of(&self, servers: &[&Server]) -> FailureDomains {
        let inner = self.inner.lock();
        // A set's Servers are nearly always in one failure domain, and it is a matter of unreachable Servers only.
        let domains = servers.iter().filter(|server| server.is_unreachable()).map(|server| FailureDomain::of(server));
        domains
            .filter_map(|domain| inner.domains.get(&domain).map(Domain::counts).map(|counts| (domain, counts)))
            .collect()
    }

    fn braked(&self, domains: [&Option<FailureDomain>; 2], inner: &Inner) -> (Vec<FailureDomain>, Vec<bool>) {
        let mut domains: Vec<FailureDomain> = domains.into_iter().flatten().cloned().collect();
        domains.dedup();
        let counts = |domain| inner.domains.get(domain).map(Domain::counts).unwrap_or_default();
        let braked = domains.iter().map(|domain| counts(domain).is_braked(self.percent)).collect();
        (domains, braked)
    }
}

impl Inner {
    fn insert(&mut self, key: Key, domain: FailureDomain, server: &Server) {
        let of = self.domains.entry(domain.clone()).or_default();
        of.active += 1;
        if server.is_unreachable() {
            let set = server.owner().map(|owner| ObjectRef::new(&owner.name).within(server.namespace()));
            of.unreachable.insert(key.clone(), set);
        }
        self.servers.insert(key, domain);
    }

    fn remove(&mut self, key: &Key) {
        let Some(domain) = self.servers.remove(key) else { return };
        let Some(of) = self.domains.get_mut(&domain) else { return };
        of.active -= 1;
        of.unreachable.remove(key);
        if of.active == 0 {
            self.domains.remove(&domain);
        }
    }

    /// The sets with unreachable Servers in this failure domain, whose brake has begun or ceased to hold.
    fn announce(&self, domain: &FailureDomain, is_braked: bool) -> Vec<ObjectRef<VMReplicaSet>> {
        let Some(of) = self.domains.get(domain) else { return Vec::new() };
        let DomainCounts { active, unreachable } = of.counts();
        if is_braked {
            tracing::warn!(%domain, active, unreachable, "too many Servers cannot be reached: failover is held");
        } else {
            tracing::info!(%domain, active, unreachable, "failover is no longer held for all sets");
        }
        let mut sets: Vec<ObjectRef<VMReplicaSet>> = of.unreachable.values().flatten().cloned().collect();
        sets.dedup();
        sets
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::set::{template, zone::ZONE_LABEL};

    fn server(set: &str, state: &str, zone: Option<&str>) -> Server {
        let of = berth_testing::replica_set(json!({"metadata": {"name": set}}));
        let mut server = template::new_server_in(&of, &format!("{set}-0"), zone);
        let status = json!({"state": state, "observedGeneration": 1, "machine": {"phase": "Running"}});
        server.status = Some(serde_json::from_value(status).unwrap());
        server
    }

    fn present(server: &Server) -> Change<Server> {
        Change::Present(Arc::new(server.clone()))
    }

    fn names(sets: Vec<ObjectRef<VMReplicaSet>>) -> Vec<String> {
        let mut names: Vec<String> = sets.into_iter().map(|set| set.name).collect();
        names.sort();
        names
    }

    #[test]
    fn sets_are_reconciled_when_the_brake_begins_and_ceases_to_hold_for_them() {
        let index = ZoneIndex::new(40);
        for name in ["a", "b", "c", "d", "e"] {
            assert!(index.follow(&present(&server(name, "Ready", Some("z1")))).is_empty());
        }
        index.follow(&present(&server("f", "Unknown", Some("z2"))));
        let lost: Vec<Server> = ["a", "b", "c"].map(|name| server(name, "Unknown", Some("z1"))).into();
        assert!(index.follow(&present(&lost[0])).is_empty() && index.follow(&present(&lost[1])).is_empty());
        assert_eq!(names(index.follow(&present(&lost[2]))), ["a", "b", "c"], "the third of five");
        assert!(index.follow(&present(&lost[2])).is_empty(), "seen again, it is not counted again");
        let domain = FailureDomain { class: "local".into(), zone: "z1".into() };
        let counts = DomainCounts { active: 5, unreachable: 3 };
        assert_eq!(index.of(&[&lost[0]]), FailureDomains::from([(domain, counts)]));
        assert_eq!(index.of(&[&server("d", "Ready", Some("z1"))]), FailureDomains::new(), "it needs no brake");
        assert_eq!(names(index.follow(&present(&server("b", "Ready", Some("z1"))))), ["a", "c"]);
    }

    #[test]
    fn only_active_servers_with_a_machine_count_and_nothing_is_kept_of_those_that_are_gone() {
        let index = ZoneIndex::new(40);
        let lost = server("a", "Unknown", None);
        let counts = |index: &ZoneIndex| index.of(&[&lost]).into_values().next().unwrap_or_default();
        index.follow(&present(&lost));
        let (mut without, mut retired, mut retained) = (lost.clone(), lost.clone(), lost.clone());
        without.status.as_mut().unwrap().machine = None;
        retired.spec.offline = true;
        retained.spec.retain = serde_json::from_value(json!({"until": "2026-01-01T00:00:00Z", "reason": "x"})).ok();
        for other in [without, retired, retained] {
            assert_eq!(counts(&index), DomainCounts { active: 1, unreachable: 1 });
            index.follow(&present(&other));
            assert_eq!(counts(&index), DomainCounts::default());
            index.follow(&present(&lost));
        }
        let mut moved = lost.clone();
        moved.metadata.labels.get_or_insert_default().insert(ZONE_LABEL.into(), "z1".into());
        index.follow(&present(&moved));
        assert_eq!(counts(&index), DomainCounts::default(), "it is in another zone");
        index.follow(&Change::Gone(Arc::new(moved)));
        let inner = index.inner.lock();
        assert!(inner.servers.is_empty() && inner.domains.is_empty());
    }
}
