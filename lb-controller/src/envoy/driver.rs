//! Envoy as a driver of a class. Its processes are the proxies that ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Weak},
};

use berth_core::api::{BalancerClass, TrafficPhase};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::{
    backend::endpoint,
    class::{KnownProxy, ServedClass},
    requests::{Counts, Draining, Requests},
};
use crate::classes::driver::{Change, Driver, DriverError, Entry, EntryKey, FirstEntries, Leads, Shown, ShownEntry};

/// The process that stands for proxies that have never asked.
const MISSING: &str = "a proxy that has not asked";

/// The place of a class among the routes.
#[derive(Default)]
pub(super) struct Slot {
    /// Whose class it is. The next driver of the class waits until the one before has ended.
    turn: Arc<tokio::sync::Mutex<()>>,
    served: Mutex<Weak<ServedClass>>,
}

impl Slot {
    /// The class, if it has begun and its driver lives.
    pub(super) fn served(&self) -> Option<Arc<ServedClass>> {
        self.served.lock().upgrade()
    }
}

/// The driver.
pub(super) struct EnvoyDriver {
    class: Arc<ServedClass>,
    slot: Arc<Slot>,
    turn: Mutex<Option<OwnedMutexGuard<()>>>,
    requests: Requests,
    /// The proxies that have asked, and what each rejects: the version, and the words of the first time.
    seen: Mutex<BTreeMap<String, Option<(String, String)>>>,
}

impl EnvoyDriver {
    /// The driver of a class. The error says what is wrong with the class.
    pub(super) fn new(class: &BalancerClass, slot: Arc<Slot>) -> Result<Self, String> {
        let proxies = class.spec.envoy.as_ref().ok_or("spec.envoy is missing: it may be empty")?;
        let admin = |text: &String| {
            let found = text.parse::<SocketAddr>();
            found
                .map_err(|_| format!("spec.envoy.admins: {text:?} is no IP address with a port, such as 10.0.0.7:9901"))
        };
        let admins = proxies.admins.iter().map(admin).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            class: Arc::new(ServedClass::new(class)),
            slot,
            turn: Mutex::default(),
            requests: Requests::new(&admins),
            seen: Mutex::default(),
        })
    }

    /// The proxies that count, and whether some are missing.
    fn names(&self) -> (Vec<String>, bool) {
        let known = self.class.proxies();
        let mut seen = self.seen.lock();
        for (id, proxy) in &known {
            let before = seen.entry(id.clone()).or_default();
            let is_same = |now: &(String, String)| before.as_ref().is_some_and(|(version, _)| *version == now.0);
            if !proxy.rejects.as_ref().is_some_and(is_same) {
                before.clone_from(&proxy.rejects);
            }
        }
        let asks = |id: &str| known.get(id).is_some_and(|proxy| !proxy.backends.is_empty());
        let asking = seen.keys().filter(|id| asks(id)).count();
        // As many as there are ask: the others were replaced.
        let is_complete = self.class.expected.is_some_and(|expected| asking >= expected);
        let is_forgotten = |id: &str| self.class.forgets && !known.contains_key(id);
        seen.retain(|id, _| asks(id) || !(is_complete || is_forgotten(id)));
        let missing = seen.is_empty() || self.class.expected.is_some_and(|expected| seen.len() < expected);
        (seen.keys().cloned().collect(), missing)
    }

    /// Why proxies are missing.
    fn missing(&self) -> String {
        let (seen, cluster) = (self.seen.lock().len(), self.class.cluster("BACKEND"));
        let asked = match self.class.expected {
            Some(expected) if seen > 0 => format!("{seen} of {expected} proxies (spec.envoy.proxies) have asked"),
            _ => "no proxy has asked".to_owned(),
        };
        format!(
            "{asked} for endpoints of {cluster} since this copy of lb-controller is in charge: compare `service_name` and the \
             address of lb-controller in Envoy's configuration with docs/howto/envoy.md"
        )
    }

    async fn read_proxy(&self, process: &str) -> Result<Shown, DriverError> {
        if process == MISSING {
            return Err(DriverError::Unreachable(self.missing()));
        }
        let known = self.class.proxies();
        let proxy = known.get(process).filter(|proxy| !proxy.backends.is_empty());
        let proxy = proxy.ok_or_else(|| DriverError::Unreachable("it has stopped to ask for endpoints".to_owned()))?;
        if proxy.rejects.is_some() {
            let words = self.seen.lock().get(process).cloned().flatten().map(|(_, words)| words);
            return Err(DriverError::Refused(format!("it rejects its endpoints: {}", words.unwrap_or_default())));
        }
        let has_learned = self.class.has_learned(known.len());
        let mut shown = self.shown(proxy, has_learned);
        let drains =
            |found: &ShownEntry| found.entry.phase == TrafficPhase::Draining && !found.entry.address.is_empty();
        if self.requests.can_count(known.len()) && shown.entries.values().any(drains) {
            let counts: Counts = self.requests.count(|| self.draining()).await;
            for (key, found) in shown.entries.iter_mut().filter(|(_, found)| drains(found)) {
                found.requests = counts.get(key).copied();
            }
        }
        Ok(shown)
    }

    /// What this proxy shows, without requests.
    fn shown(&self, proxy: &KnownProxy, has_learned: bool) -> Shown {
        let mut shown = Shown::default();
        self.class.with_backends(|backends| {
            for (name, backend) in backends {
                let has = proxy.backends.get(name).copied();
                let set = if has.is_some() { &mut shown.backends } else { &mut shown.absent };
                set.insert(name.clone());
                for (entry_name, entry) in backend.shown(has.flatten().filter(|_| has_learned)) {
                    let is_out = entry.phase == TrafficPhase::Held && !entry.address.is_empty();
                    let key = EntryKey { backend: name.clone(), name: entry_name };
                    shown.entries.insert(key, ShownEntry { entry, requests: is_out.then_some(0) });
                }
            }
        });
        shown
    }

    /// What drains in all proxies that ask for it.
    fn draining(&self) -> Draining {
        let known = self.class.proxies();
        let has_learned = self.class.has_learned(known.len());
        let mut drains: BTreeMap<EntryKey, Entry> = BTreeMap::new();
        let mut does_not: BTreeSet<EntryKey> = BTreeSet::new();
        for proxy in known.values() {
            let shown = self.shown(proxy, has_learned);
            for (key, found) in shown.entries.into_iter().filter(|(key, _)| shown.backends.contains(&key.backend)) {
                if found.entry.phase == TrafficPhase::Draining && !found.entry.address.is_empty() {
                    drains.insert(key, found.entry);
                } else {
                    does_not.insert(key);
                }
            }
        }
        drains.retain(|key, _| !does_not.contains(key));
        let place = |(key, entry): (EntryKey, Entry)| {
            let socket = endpoint(&key.name, &entry).ok()?.socket();
            let cluster = self.class.cluster(&key.backend);
            Some((key, (cluster, socket)))
        };
        drains.into_iter().filter_map(place).collect()
    }
}

impl Driver for EnvoyDriver {
    fn is_asked(&self) -> bool {
        true
    }

    fn begin<'a>(&'a self, entries: FirstEntries<'a>, leads: Leads) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // Until then the driver before may still change something, and report that.
            let turn = Arc::clone(&self.slot.turn).lock_owned().await;
            self.class.begin(entries.await, leads);
            *self.slot.served.lock() = Arc::downgrade(&self.class);
            *self.turn.lock() = Some(turn);
        })
    }

    fn processes(&self) -> Vec<String> {
        let (mut names, missing) = self.names();
        names.extend(missing.then(|| MISSING.to_owned()));
        names
    }

    fn read<'a>(
        &'a self,
        process: &'a str,
        _backends: &'a BTreeSet<String>,
    ) -> BoxFuture<'a, Result<Shown, DriverError>> {
        Box::pin(self.read_proxy(process))
    }

    fn apply<'a>(
        &'a self,
        _process: &'a str,
        _shown: &'a Shown,
        changes: &'a [Change],
    ) -> BoxFuture<'a, Vec<Result<(), DriverError>>> {
        Box::pin(async { self.class.change(changes) })
    }

    fn settled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.class.settled())
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
