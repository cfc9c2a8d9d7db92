//! MachineClasses as the API server has them, read once for many Servers.
//!
//! A machine may be created for a Server when the API server has shown its class marked as in use, and not being deleted, at a time when
//! the Server existed: see [`crate::in_use`]. One reading shows that for every Server that existed when it began. So of a thousand Servers
//! that are created at once, few have to wait for a reading of their own.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use berth_core::api::{MachineClass, Server};
use berth_runtime::{Cache, Context};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{in_use, unusable::UnusableClass};

/// For how long a reading counts: a class that a person has changed gives machines by its old bounds for no longer.
const FRESH: Duration = Duration::from_secs(1);

/// The last reading of one class.
struct Reading {
    began: Instant,
    class: MachineClass,
    /// UIDs of Servers that existed when it began.
    existing: HashSet<String>,
}

impl Reading {
    fn counts_for(&self, uid: &str) -> bool {
        self.began.elapsed() < FRESH && self.existing.contains(uid) && !self.class.is_being_deleted()
    }
}

type LastReading = Arc<tokio::sync::Mutex<Option<Reading>>>;

/// The last reading of each class.
#[derive(Default)]
pub(crate) struct ClassReadings {
    servers: OnceLock<Cache<Server>>,
    by_class: Mutex<HashMap<String, LastReading>>,
}

impl ClassReadings {
    /// From now on, a reading counts for all Servers in this cache.
    pub(crate) fn know_servers(&self, servers: &Cache<Server>) {
        // Only the first cache counts; there is one in each process.
        let _ = self.servers.set(servers.clone());
    }

    /// The class of this existing Server, marked, as the API server had it when the Server existed, and at most a second ago.
    ///
    /// # Errors
    /// When it is gone, or the API server does not answer.
    pub(crate) async fn marked(&self, ctx: &Context, server: &Server) -> Result<MachineClass, UnusableClass> {
        let name = &server.spec.machine.class_name;
        let last = self.by_class.lock().entry(name.clone()).or_default().clone();
        // Those who come while it is read wait, and need not read it again.
        let mut last = last.lock().await;
        if let Some(reading) = last.as_ref().filter(|reading| reading.counts_for(server.uid())) {
            return Ok(reading.class.clone());
        }
        let (began, mut existing) = (Instant::now(), self.known_servers(name));
        existing.insert(server.uid().to_owned());
        *last = None;
        let class = in_use::mark(ctx, name).await?;
        *last = Some(Reading { began, class: class.clone(), existing });
        Ok(class)
    }

    fn known_servers(&self, class: &str) -> HashSet<String> {
        let Some(servers) = self.servers.get() else { return HashSet::new() };
        let servers = servers.store().state();
        let waiting =
            servers.iter().filter(|server| server.spec.machine.class_name == class && server.machine().is_none());
        waiting.map(|server| server.uid().to_owned()).collect()
    }
}
