//! What one backend should show, and what each proxy is known to show. Pure: the time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::api::TrafficPhase;
use berth_envoy_eds::{AssignmentVersion, Endpoint, EndpointTraffic};
use tokio::time::Instant;

use crate::classes::driver::{DriverError, Entry};

/// Entries by name, held ones included.
pub(super) type Entries = BTreeMap<String, Entry>;

/// So many lists that not all proxies have are told apart. More mean that a proxy is behind by minutes.
const REMEMBERED: usize = 32;

/// Entries that were set, and what proxies call that.
#[derive(Clone, Debug)]
pub(super) struct SetEntries {
    pub(super) entries: Entries,
    pub(super) version: AssignmentVersion,
    /// A proxy has it at the earliest with a request after this.
    pub(super) since: Instant,
}

/// The entries of one backend.
#[derive(Debug)]
pub(super) struct ServedBackend {
    /// The oldest first. Never empty: the last one is wanted.
    sets: Vec<SetEntries>,
}

impl ServedBackend {
    /// A backend whose first entries are these.
    pub(super) fn new(entries: Entries, version: AssignmentVersion, now: Instant) -> Self {
        Self { sets: vec![SetEntries { entries, version, since: now }] }
    }

    /// What is wanted.
    pub(super) fn wanted(&self) -> Option<&SetEntries> {
        self.sets.last()
    }

    /// All lists that a proxy may have; the oldest first.
    pub(super) fn sets(&self) -> &[SetEntries] {
        &self.sets
    }

    /// Wants these entries from now on.
    pub(super) fn set(&mut self, entries: Entries, version: AssignmentVersion, now: Instant) {
        // What is the same to proxies needs no request of theirs.
        let since = self.wanted().filter(|last| last.version == version).map_or(now, |last| last.since);
        self.sets.push(SetEntries { entries, version, since });
        if self.sets.len() > REMEMBERED {
            self.sets.remove(1);
        }
    }

    /// Forgets the lists that no proxy has any more: all before this one.
    pub(super) fn all_have(&mut self, index: usize) {
        self.sets.drain(..index.min(self.sets.len().saturating_sub(1)));
    }

    /// What a proxy shows that has the list at this index or a later one; none if it is not known to have any. An entry that is not the
    /// same in all lists that it may have has no address, and the least traffic that it may have before the change.
    pub(super) fn shown(&self, has: Option<usize>) -> Entries {
        let possible = &self.sets[has.unwrap_or(0).min(self.sets.len().saturating_sub(1))..];
        let names: BTreeSet<&String> = possible.iter().flat_map(|set| set.entries.keys()).collect();
        let entry = |name: &String| {
            let first = possible.first()?.entries.get(name);
            let is_same = has.is_some() && possible.iter().all(|set| set.entries.get(name) == first);
            if is_same {
                return first.cloned();
            }
            let any = possible.iter().find_map(|set| set.entries.get(name))?;
            let phase = first.map_or(TrafficPhase::Held, |first| first.phase);
            Some(Entry { address: String::new(), phase, ..any.clone() })
        };
        names.into_iter().filter_map(|name| Some((name.clone(), entry(name)?))).collect()
    }
}

/// The entries after these changes, and whether each could be made. One that cannot leaves the entry as it is.
pub(super) fn changed<'a>(
    before: &Entries,
    changes: impl Iterator<Item = (&'a str, Option<&'a Entry>)>,
) -> (Entries, Vec<Result<(), DriverError>>) {
    let mut entries = before.clone();
    let change = |(name, wanted): (&str, Option<&Entry>)| {
        let Some(wanted) = wanted else {
            entries.remove(name);
            return Ok(());
        };
        check(&entries, name, wanted).map_err(DriverError::Refused)?;
        entries.insert(name.to_owned(), wanted.clone());
        Ok(())
    };
    let results = changes.map(change).collect();
    (entries, results)
}

/// Whether Envoy would take the entry beside the others.
fn check(entries: &Entries, name: &str, wanted: &Entry) -> Result<(), String> {
    endpoint(name, wanted)?;
    let is_told = |entry: &Entry| entry.phase != TrafficPhase::Held;
    let same = entries.iter().find(|(other, entry)| {
        *other != name && is_told(entry) && entry.address == wanted.address && entry.port == wanted.port
    });
    match same.filter(|_| is_told(wanted)) {
        Some((other, _)) => Err(format!(
            "{}:{} is the address of {other} already: Envoy knows a host by address and port, and has each once in a backend",
            wanted.address, wanted.port
        )),
        None => Ok(()),
    }
}

/// The endpoints of these entries. Held ones are not told: Envoy has no word for them.
pub(super) fn endpoints(entries: &Entries) -> Vec<Endpoint> {
    let told = entries.iter().filter(|(_, entry)| entry.phase != TrafficPhase::Held);
    told.filter_map(|(name, entry)| endpoint(name, entry).ok()).collect()
}

/// The endpoint of an entry, or why there can be none.
pub(super) fn endpoint(name: &str, entry: &Entry) -> Result<Endpoint, String> {
    let address =
        entry.address.parse().map_err(|_| format!("{:?} is no IP address: Envoy needs one", entry.address))?;
    if entry.port == 0 {
        return Err("the port is 0: Envoy needs another".to_owned());
    }
    let traffic = match entry.phase {
        TrafficPhase::Serving => EndpointTraffic::Serving,
        TrafficPhase::Draining => EndpointTraffic::Draining,
        TrafficPhase::Held => EndpointTraffic::Held,
    };
    let (port, weight) = (entry.port, u32::from(entry.weight));
    Ok(Endpoint { name: name.to_owned(), address, port, weight, traffic, zone: String::new() })
}

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;
