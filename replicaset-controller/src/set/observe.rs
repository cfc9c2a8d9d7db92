//! What is known about sets besides the API's objects: from the drift checks, and earlier reconciles of this process. A restart loses what is remembered here, which costs only time.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use berth_core::api::{Server, VMReplicaSet};
use k8s_openapi::jiff::Timestamp;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    drift_repair::{DriftMemory, DriftReports, DriftView},
    held_servers::{HeldGauge, HeldServers},
    plan::Hold,
};

/// What is known about a set before it and its Servers are read.
pub(super) struct Observed {
    /// Names that look like the set's own and belong to Servers of somebody else.
    pub(super) foreign_names: BTreeSet<String>,
    pub(super) drift: DriftView,
    /// When any of this changes even if nothing happens before.
    pub(super) requeue_at: Option<Timestamp>,
}

/// What this process remembers of each set, by its UID.
#[derive(Default)]
pub(super) struct SetMemories(Mutex<HashMap<String, SetMemory>>);

#[derive(Default)]
struct SetMemory {
    /// Nothing is written before this.
    next_write: Option<Instant>,
    foreign_names: BTreeSet<String>,
    drift: DriftMemory,
    /// Servers that failover does nothing about.
    held: HeldServers,
}

impl SetMemories {
    pub(super) fn observe(
        &self,
        set: &VMReplicaSet,
        servers: &[&Server],
        drifts: &dyn DriftReports,
        now: Timestamp,
    ) -> Observed {
        let mut memory = self.of(set);
        let drift = memory.drift.observe(set, servers, now, |server| drifts.is_drifted(server));
        let requeue_at = memory.drift.requeue_at(&drift);
        Observed { foreign_names: memory.foreign_names.clone(), drift, requeue_at }
    }

    pub(super) fn note_foreign_name(&self, set: &VMReplicaSet, name: &str) {
        self.of(set).foreign_names.insert(name.to_owned());
    }

    /// Counts the Servers of the set that failover does nothing about.
    pub(super) fn note_held(&self, set: &VMReplicaSet, held: &[Hold], gauge: &HeldGauge) {
        self.of(set).held.update(held, gauge);
    }

    pub(super) fn note_repair_request(&self, set: &VMReplicaSet, server: &Server, now: Timestamp) {
        self.of(set).drift.note_request(server.name(), now);
    }

    /// How long nothing may be written about the set yet.
    pub(super) fn write_allowed_in(&self, set: &VMReplicaSet) -> Option<Duration> {
        let next = self.of(set).next_write?;
        Some(next.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    pub(super) fn pause_writes(&self, set: &VMReplicaSet, pause: Duration) {
        self.of(set).next_write = Some(Instant::now() + pause);
    }

    pub(super) fn forget(&self, set: &VMReplicaSet) {
        self.0.lock().remove(set.uid());
    }

    fn of(&self, set: &VMReplicaSet) -> MappedMutexGuard<'_, SetMemory> {
        MutexGuard::map(self.0.lock(), |memories| memories.entry(set.uid().to_owned()).or_default())
    }
}
