//! The drift that checks have found and that is not reported yet.

use std::collections::{HashMap, HashSet};

use berth_core::api::Server;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

/// The Servers whose machines have drifted, as far as this process knows.
#[derive(Default)]
pub(super) struct DriftedServers {
    /// The differences, for people, by the Servers' UIDs.
    differences: Mutex<HashMap<String, String>>,
    /// How many there are.
    pub(super) count: Gauge,
}

impl DriftedServers {
    /// How the Server's machine differs.
    pub(super) fn difference(&self, server: &Server) -> Option<String> {
        self.differences.lock().get(server.uid()).cloned()
    }

    /// Remembers a difference. Says whether it is a new one.
    pub(super) fn insert(&self, server: &Server, difference: &str) -> bool {
        let before = self.differences.lock().insert(server.uid().to_owned(), difference.to_owned());
        self.update_count();
        before.as_deref() != Some(difference)
    }

    /// Forgets the Server. Says whether a difference was known.
    pub(super) fn remove(&self, server: &Server) -> bool {
        let was_known = self.differences.lock().remove(server.uid()).is_some();
        self.update_count();
        was_known
    }

    /// Forgets all Servers but those that these UIDs name.
    pub(super) fn retain<'a>(&self, uids: impl Iterator<Item = &'a str>) {
        if self.differences.lock().is_empty() {
            return;
        }
        let uids: HashSet<&str> = uids.collect();
        self.differences.lock().retain(|uid, _| uids.contains(uid.as_str()));
        self.update_count();
    }

    fn update_count(&self) {
        self.count.set(i64::try_from(self.differences.lock().len()).unwrap_or(i64::MAX));
    }
}
