//! What one class should show, and which proxies show it.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use axum::Router;
use berth_core::api::{BalancerClass, WhenUnreachable};
use berth_envoy_eds::{EdsService, ProxyRules, ProxyStatus};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::backend::{Entries, ServedBackend, changed, endpoints};
use crate::classes::driver::{Change, DriverError, Entry, EntryKey, Leads};

/// Without a number of proxies: so long after the start all of them have asked, unless their `refresh_delay` is above 5 s.
const LEARN_FOR: Duration = Duration::from_secs(10);
/// A proxy that asks less often than this has gone, whatever it did before.
const SILENT_AFTER: Duration = Duration::from_secs(5);
/// Or so many times the time between its last two requests, which are up to twice as far apart as others.
const SILENT_AFTER_REQUESTS: u32 = 4;
/// Backends that proxies may ask for. Requests are not authenticated, and must not fill the memory.
const MAX_BACKENDS: usize = 1000;
/// So long a change is waited for. With `refresh_delay: 1s` the slowest takes 6.7 s; what takes longer is tried again.
const SETTLE_FOR: Duration = Duration::from_secs(10);

/// What one class should show.
pub(super) struct ServedClass {
    name: String,
    eds: EdsService,
    /// How many proxies there are.
    pub(super) expected: Option<usize>,
    /// A proxy that has gone is not waited for.
    pub(super) forgets: bool,
    began: Instant,
    leads: OnceLock<Leads>,
    backends: Mutex<BTreeMap<String, ServedBackend>>,
}

/// What is known of one proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KnownProxy {
    /// Why it does not run what it was sent, and the version of that.
    pub(super) rejects: Option<(String, String)>,
    /// The backends that it asks for, and the list that it has at least. Empty if it has stopped to ask.
    pub(super) backends: BTreeMap<String, Option<usize>>,
}

impl ServedClass {
    /// The class before it has begun.
    pub(super) fn new(class: &BalancerClass) -> Self {
        let proxies = class.spec.envoy.as_ref().and_then(|envoy| envoy.proxies);
        let expected = proxies.and_then(|proxies| usize::try_from(proxies).ok());
        let unreachable = class.spec.unreachable();
        let forgets = unreachable.then == WhenUnreachable::Proceed;
        let after = Duration::from_secs(u64::try_from(unreachable.after_seconds).unwrap_or_default());
        let rules = ProxyRules {
            // Who may be missing is not waited for.
            expected: expected.filter(|_| !forgets),
            learn_for: LEARN_FOR,
            forget_after: after.max(SILENT_AFTER),
            ..ProxyRules::default()
        };
        Self {
            name: class.name().to_owned(),
            eds: EdsService::new(rules),
            expected,
            forgets,
            began: Instant::now(),
            leads: OnceLock::new(),
            backends: Mutex::default(),
        }
    }

    /// Begins with these entries. Those that Envoy would not take are left out, and refused when they are applied.
    pub(super) fn begin(&self, entries: BTreeMap<EntryKey, Entry>, leads: Leads) {
        let changes: Vec<Change> = entries.into_iter().map(|(key, entry)| (key, Some(entry))).collect();
        for ((key, _), result) in changes.iter().zip(self.change(&changes)) {
            if let Err(error) = result {
                tracing::warn!(class = self.name, backend = key.backend, entry = key.name, %error, "left out");
            }
        }
        // It is called once.
        let _ = self.leads.set(leads);
    }

    /// The routes for a proxy that asks for this backend. One that no Server names has no endpoints.
    pub(super) fn routes(&self, backend: &str) -> Result<Router, String> {
        if !self.leads.get().is_some_and(|leads| leads()) {
            return Err("another copy of lb-controller is in charge".to_owned());
        }
        let mut backends = self.backends.lock();
        if !backends.contains_key(backend) {
            if backends.len() >= MAX_BACKENDS {
                return Err(format!("BalancerClass {} has {MAX_BACKENDS} backends, and takes no more", self.name));
            }
            self.serve(&mut backends, backend, Entries::new())?;
        }
        Ok(self.eds.router())
    }

    /// Wants these changes, and answers for each.
    pub(super) fn change(&self, changes: &[Change]) -> Vec<Result<(), DriverError>> {
        let mut by_backend: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, (key, _)) in changes.iter().enumerate() {
            by_backend.entry(&key.backend).or_default().push(index);
        }
        let mut results: Vec<Result<(), DriverError>> = vec![Ok(()); changes.len()];
        let mut backends = self.backends.lock();
        for (backend, indices) in by_backend {
            let before = backends.get(backend).and_then(ServedBackend::wanted).map(|set| set.entries.clone());
            let of_backend = indices.iter().filter_map(|index| changes.get(*index));
            let of_backend = of_backend.map(|(key, wanted)| (key.name.as_str(), wanted.as_ref()));
            let (entries, outcomes) = changed(&before.unwrap_or_default(), of_backend);
            let refused = self.serve(&mut backends, backend, entries).err().map(DriverError::Refused);
            for (index, outcome) in indices.into_iter().zip(outcomes) {
                if let Some(result) = results.get_mut(index) {
                    *result = refused.clone().map_or(outcome, Err);
                }
            }
        }
        results
    }

    /// What all proxies are known to have.
    pub(super) fn proxies(&self) -> BTreeMap<String, KnownProxy> {
        let mut proxies: BTreeMap<String, KnownProxy> = BTreeMap::new();
        let mut backends = self.backends.lock();
        for (name, backend) in &mut *backends {
            let of_backend = self.of_backend(name, backend);
            if let Some(all) = of_backend.values().map(|(_, has)| *has).min().flatten() {
                backend.all_have(all);
            }
            for (id, (status, has)) in of_backend {
                let proxy = proxies.entry(id).or_default();
                let rejection = status.rejection.as_ref();
                let words = rejection.map(|rejection| (rejection.version.to_string(), rejection.message.clone()));
                proxy.rejects = proxy.rejects.take().or(words);
                if !is_silent(&status) {
                    proxy.backends.insert(name.clone(), has);
                }
            }
        }
        proxies
    }

    /// By proxy, its status and the last list that it has.
    fn of_backend(&self, name: &str, backend: &ServedBackend) -> BTreeMap<String, (ProxyStatus, Option<usize>)> {
        let now = Instant::now();
        let mut found: BTreeMap<String, (ProxyStatus, Option<usize>)> = BTreeMap::new();
        for (index, set) in backend.sets().iter().enumerate() {
            let Ok(acknowledged) = self.eds.acknowledged(&self.cluster(name), &set.version) else { continue };
            for status in acknowledged.has_not {
                found.entry(status.id.clone()).or_insert((status, None));
            }
            for status in acknowledged.has {
                let has_asked = status.silent_for < now.duration_since(set.since);
                let entry = found.entry(status.id.clone()).or_insert((status, None));
                entry.1 = if has_asked { Some(index) } else { entry.1 };
            }
        }
        found
    }

    /// Whether all proxies have had the time to ask.
    pub(super) fn has_learned(&self, proxies: usize) -> bool {
        self.expected.is_some_and(|expected| proxies >= expected) || self.began.elapsed() >= LEARN_FOR
    }

    /// Looks at the entries of each backend.
    pub(super) fn with_backends<T>(&self, look: impl FnOnce(&BTreeMap<String, ServedBackend>) -> T) -> T {
        look(&self.backends.lock())
    }

    /// Waits until all proxies that ask have what is wanted.
    pub(super) async fn settled(&self) {
        let deadline = Instant::now() + SETTLE_FOR;
        let wanted: Vec<_> = self.with_backends(|backends| {
            backends
                .iter()
                .filter_map(|(name, backend)| Some((self.cluster(name), backend.wanted()?.version.clone())))
                .collect()
        });
        for (cluster, version) in wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_stuck = |proxy: &ProxyStatus| is_silent(proxy) || proxy.rejection.is_some();
            // Whatever is still missing shows when proxies are read.
            let _ = self.eds.wait_until(&cluster, &version, left, |found| found.has_not.iter().all(is_stuck)).await;
        }
    }

    /// What Envoy calls the backend.
    pub(super) fn cluster(&self, backend: &str) -> String {
        format!("{}/{backend}", self.name)
    }

    /// Serves these entries. On an error everything is as it was.
    fn serve(
        &self,
        backends: &mut BTreeMap<String, ServedBackend>,
        backend: &str,
        entries: Entries,
    ) -> Result<(), String> {
        let now = Instant::now();
        let set = self.eds.set(&self.cluster(backend), &endpoints(&entries));
        let version = set.map_err(|error| error.to_string())?;
        match backends.get_mut(backend) {
            Some(known) => known.set(entries, version, now),
            None => _ = backends.insert(backend.to_owned(), ServedBackend::new(entries, version, now)),
        }
        Ok(())
    }
}

/// Whether the proxy has stopped to ask.
fn is_silent(proxy: &ProxyStatus) -> bool {
    let usual = proxy.asks_every.unwrap_or_default() * SILENT_AFTER_REQUESTS;
    proxy.silent_for > SILENT_AFTER.max(usual)
}
