//! The state that all simulated providers of a process share.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::{cloud::Cloud, machines::SimulatedMachines};

/// The simulated machines of a process, whatever their class. Clones share them.
#[derive(Clone, Debug)]
pub struct Simulation {
    cloud: Arc<Mutex<Cloud>>,
    machines: SimulatedMachines,
}

impl Simulation {
    /// Creates no machine yet. Commands run on `machines`, see [`super::SimulatedConnector`].
    #[must_use]
    pub fn new(machines: SimulatedMachines) -> Self {
        Self { cloud: Arc::default(), machines }
    }

    /// Stops the machine of the Server with this UID as a crash would, without a call of the provider.
    pub fn crash(&self, uid: &str) {
        self.lock().crash(uid);
    }

    /// Number of machines.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Cloud> {
        self.cloud.lock()
    }

    pub(super) fn machines(&self) -> &SimulatedMachines {
        &self.machines
    }
}
