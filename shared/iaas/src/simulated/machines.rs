//! Machines in memory, by the UID of their Servers.

use std::{collections::HashMap, sync::Arc};

use berth_machine::fake::FakeMachine;
use parking_lot::Mutex;

/// Name of the provider.
pub const PROVIDER: &str = "simulated";

/// Machines on which every command succeeds at once. Clones share them. Each process has its own: what one process does on
/// a machine, another does not see.
#[derive(Clone, Debug, Default)]
pub struct SimulatedMachines(Arc<Mutex<HashMap<String, FakeMachine>>>);

impl SimulatedMachines {
    /// The machine of the Server with this UID, made when it is first asked for.
    #[must_use]
    pub fn of_server(&self, uid: &str) -> FakeMachine {
        self.0.lock().entry(uid.to_owned()).or_default().clone()
    }

    /// Removes the machine of the Server with this UID.
    pub(super) fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}
