//! What the processes of a load balancer show, compared with what they should. Pure.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::api::{Server, TrafficPhase, UnreachablePolicy, WhenUnreachable};
use k8s_openapi::jiff::Timestamp;

use super::{
    driver::{Change, Entry, EntryKey, Shown},
    names,
};
use crate::{
    balancer::BalancerError,
    member::{ClassBackend, Registration, ServerRef},
    plan,
    subsets::Belongs,
};

/// What is known of one process.
#[derive(Clone, Debug, Default)]
pub struct ProcessView {
    /// What it showed when it answered last.
    pub shown: Shown,
    /// Why it does not answer, and since when.
    pub failed: Option<(String, Timestamp)>,
}

/// What is known of all processes of a class.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The processes, by name. Empty until they were read for the first time.
    pub processes: BTreeMap<String, ProcessView>,
    /// The processes that do not answer and that the class's administrator has said may be ignored by now.
    pub ignored: BTreeSet<String>,
    /// The weights of entries that have another one than their Servers declare: because their VMDeployment splits the traffic, or
    /// because they begin with a small share.
    pub weights: BTreeMap<EntryKey, u16>,
}

/// What a class should show of a Server.
#[must_use]
pub fn entries_of(class: &str, server: &ServerRef, desired: Option<&Registration>) -> BTreeMap<EntryKey, Entry> {
    let Some(desired) = desired else { return BTreeMap::new() };
    let backends = desired.classes.iter().filter(|backend| backend.class == class);
    backends.map(|backend| entry(server, &desired.address, backend, desired.phase)).collect()
}

fn entry(server: &ServerRef, address: &str, backend: &ClassBackend, phase: TrafficPhase) -> (EntryKey, Entry) {
    let key = EntryKey { backend: backend.name.clone(), name: names::name_of(server, address, backend.port) };
    (key, Entry { address: address.to_owned(), port: backend.port, weight: backend.weight, phase })
}

/// What a class should show of a Server, by its declaration and facts.
#[must_use]
pub fn entries_of_server(class: &str, server: &Server, belongs: Belongs, now: Timestamp) -> BTreeMap<EntryKey, Entry> {
    entries_of(class, &ServerRef::of(server), plan::desired(server, now, belongs).as_ref())
}

/// What has to change in a process, so that it shows these entries of the Server and no others.
#[must_use]
pub fn changes(shown: &Shown, server: &ServerRef, wanted: &BTreeMap<EntryKey, Entry>) -> Vec<Change> {
    let removed = shown.entries_of(server).filter(|key| !wanted.contains_key(*key));
    let differs =
        |(key, entry): &(&EntryKey, &Entry)| shown.entries.get(*key).is_none_or(|found| found.entry != **entry);
    let set = wanted.iter().filter(differs).map(|(key, entry)| (key.clone(), Some(entry.clone())));
    removed.map(|key| (key.clone(), None)).chain(set).collect()
}

impl View {
    /// What the class should show of a Server, with the weights that it has now.
    #[must_use]
    pub fn wanted(&self, class: &str, server: &ServerRef, desired: Option<&Registration>) -> BTreeMap<EntryKey, Entry> {
        let mut wanted = entries_of(class, server, desired);
        wanted.extend(self.left(class, server, desired));
        for (key, entry) in &mut wanted {
            entry.weight = self.weights.get(key).copied().unwrap_or(entry.weight);
        }
        wanted
    }

    /// The entries in backends for a subset that the Server is not in any more. They stay without traffic: to remove them would have to
    /// wait for open connections, and the Server may be back with the next roll-out.
    fn left(&self, class: &str, server: &ServerRef, desired: Option<&Registration>) -> Vec<(EntryKey, Entry)> {
        let Some(desired) = desired else { return Vec::new() };
        let backends = desired.left.iter().filter(|backend| backend.class == class);
        let entries = backends.map(|backend| entry(server, &desired.address, backend, TrafficPhase::Held));
        entries.filter(|(key, _)| self.processes.values().any(|view| view.shown.entries.contains_key(key))).collect()
    }

    /// The processes whose word counts.
    pub fn counted(&self) -> impl Iterator<Item = (&String, &ProcessView)> {
        self.processes.iter().filter(|(name, _)| !self.ignored.contains(*name))
    }

    /// Whether all processes show these entries of the Server and no others.
    #[must_use]
    pub fn shows(&self, server: &ServerRef, wanted: &BTreeMap<EntryKey, Entry>) -> bool {
        !self.processes.is_empty()
            && self.counted().all(|(_, view)| view.failed.is_none() && changes(&view.shown, server, wanted).is_empty())
    }

    /// Whether any process shows the entry with traffic.
    #[must_use]
    pub fn is_serving(&self, key: &EntryKey) -> bool {
        let found = |view: &ProcessView| view.shown.entries.get(key).map(|found| found.entry.phase);
        self.processes.values().any(|view| found(view) == Some(TrafficPhase::Serving))
    }

    /// Whether all processes answer and have no request under way at these entries.
    #[must_use]
    pub fn is_idle(&self, wanted: &BTreeMap<EntryKey, Entry>) -> bool {
        let idle = |view: &ProcessView, key| view.shown.entries.get(key).is_none_or(|found| found.requests == Some(0));
        !self.processes.is_empty()
            && self.counted().all(|(_, view)| view.failed.is_none() && wanted.keys().all(|key| idle(view, key)))
    }

    /// The Servers that have an entry.
    #[must_use]
    pub fn servers(&self) -> BTreeSet<ServerRef> {
        let keys = self.processes.values().flat_map(|view| view.shown.entries.keys());
        keys.filter_map(|key| names::server_of(&key.name)).collect()
    }

    /// The Servers that any process sends traffic to.
    #[must_use]
    pub fn serving_servers(&self) -> BTreeSet<ServerRef> {
        let entries = self.processes.values().flat_map(|view| &view.shown.entries);
        let serving = entries.filter(|(_, shown)| shown.entry.phase == TrafficPhase::Serving);
        serving.filter_map(|(key, _)| names::server_of(&key.name)).collect()
    }

    /// Whether any process has an entry of this Server.
    #[must_use]
    pub fn knows(&self, server: &ServerRef) -> bool {
        self.processes.values().any(|view| view.shown.entries_of(server).next().is_some())
    }

    /// Records whether a process has answered.
    pub fn record(&mut self, process: &str, read: Result<Shown, String>, now: Timestamp) {
        let view = self.processes.entry(process.to_owned()).or_default();
        match read {
            Ok(shown) => *view = ProcessView { shown, failed: None },
            Err(why) => {
                let since = view.failed.take().map_or(now, |(_, since)| since);
                view.failed = Some((why, since));
            }
        }
    }

    /// Decides anew which processes are ignored.
    pub fn ignore(&mut self, policy: UnreachablePolicy, now: Timestamp) {
        let is_gone = |view: &ProcessView| {
            let since = view.failed.as_ref().map(|(_, since)| *since);
            since.is_some_and(|since| now.duration_since(since).as_secs() >= i64::from(policy.after_seconds))
        };
        let gone = self.processes.iter().filter(|(_, view)| is_gone(view)).map(|(name, _)| name.clone());
        self.ignored = if policy.then == WhenUnreachable::Proceed { gone.collect() } else { BTreeSet::new() };
    }

    /// Why not all processes show these entries of the Server, if it is for somebody else to do something about it.
    #[must_use]
    pub fn blocked(&self, class: &str, wanted: &BTreeMap<EntryKey, Entry>) -> Option<BalancerError> {
        for (process, view) in self.counted() {
            if let Some((why, since)) = &view.failed {
                return Some(BalancerError::Blocked(format!(
                    "BalancerClass {class}: {process} does not answer since {since}: {why}. It may still send traffic; \
                     spec.unreachable.then: Proceed goes on without it"
                )));
            }
            let missing = wanted.keys().find(|key| !view.shown.backends.contains(&key.backend));
            if let Some(EntryKey { backend, .. }) = missing {
                return Some(BalancerError::Blocked(format!(
                    "BalancerClass {class}: {process} has no backend {backend:?}: add it to its configuration, or correct \
                     spec.traffic.backends"
                )));
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
