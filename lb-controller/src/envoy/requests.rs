//! Requests that are under way at endpoints that drain, from the admin interfaces of the proxies.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use berth_envoy_eds::EnvoyAdmin;
use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::classes::driver::EntryKey;

/// The limit of one answer. Processes are read each second.
const TIME_LIMIT: Duration = Duration::from_secs(2);
/// So long a count is used for all proxies that are read at about the same time.
const COUNTS_FOR: Duration = Duration::from_millis(300);

/// An endpoint that drains in all proxies: where it is, and the name of its cluster.
pub(super) type Draining = BTreeMap<EntryKey, (String, SocketAddr)>;
/// Requests by entry.
pub(super) type Counts = Arc<BTreeMap<EntryKey, u64>>;

/// Counts requests.
pub(super) struct Requests {
    admins: Vec<EnvoyAdmin>,
    last: tokio::sync::Mutex<Option<(Instant, Counts)>>,
    /// What was wrong the last time, so that it is logged once.
    wrong: Mutex<Option<String>>,
}

impl Requests {
    /// Asks these admin interfaces.
    pub(super) fn new(admins: &[SocketAddr]) -> Self {
        let admins = admins.iter().map(|address| EnvoyAdmin::new(*address, TIME_LIMIT)).collect();
        Self { admins, last: tokio::sync::Mutex::default(), wrong: Mutex::default() }
    }

    /// Whether the requests of so many proxies can be counted.
    pub(super) fn can_count(&self, proxies: usize) -> bool {
        !self.admins.is_empty() && self.admins.len() >= proxies
    }

    /// Requests under way at all proxies. `draining` says what drains before anybody is asked: only of that the counts mean anything.
    pub(super) async fn count(&self, draining: impl FnOnce() -> Draining) -> Counts {
        let mut last = self.last.lock().await;
        if let Some((at, counts)) = &*last
            && at.elapsed() < COUNTS_FOR
        {
            return Arc::clone(counts);
        }
        let counts = Arc::new(self.ask(&draining()).await);
        *last = Some((Instant::now(), Arc::clone(&counts)));
        counts
    }

    async fn ask(&self, draining: &Draining) -> BTreeMap<EntryKey, u64> {
        let mut clusters: BTreeMap<&str, BTreeMap<SocketAddr, &EntryKey>> = BTreeMap::new();
        for (key, (cluster, socket)) in draining {
            clusters.entry(cluster).or_default().insert(*socket, key);
        }
        let mut counts = BTreeMap::new();
        for (cluster, keys) in clusters {
            let hosts = try_join_all(self.admins.iter().map(|admin| admin.hosts(cluster))).await;
            let hosts = self.note(hosts.map_err(|error| error.to_string()));
            for (socket, key) in keys {
                // A host that a proxy does not list may have requests nevertheless.
                let of_proxy = |hosts: &Vec<berth_envoy_eds::EnvoyHost>| {
                    hosts.iter().find(|host| host.socket == socket).map(|host| host.active_requests)
                };
                if let Some(sum) = hosts.iter().flatten().map(of_proxy).sum::<Option<u64>>().filter(|_| hosts.is_some())
                {
                    counts.insert(key.clone(), sum);
                }
            }
        }
        counts
    }

    /// Logs what is wrong when that changes.
    fn note<T>(&self, result: Result<T, String>) -> Option<T> {
        let mut wrong = self.wrong.lock();
        match result {
            Ok(value) => {
                *wrong = None;
                Some(value)
            }
            Err(error) => {
                if wrong.as_ref() != Some(&error) {
                    tracing::warn!(error, "requests cannot be counted: draining takes its full time");
                }
                *wrong = Some(error);
                None
            }
        }
    }
}
