//! The state that all simulated providers of a process share.

use std::{sync::Arc, time::Duration};

use berth_runtime::{Clock, SystemClock};
use k8s_openapi::jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use super::{cloud::Cloud, machines::SimulatedMachines};

/// The simulated machines of a process, whatever their class. Clones share them.
#[derive(Clone)]
pub struct Simulation {
    cloud: Arc<Mutex<Cloud>>,
    machines: SimulatedMachines,
    clock: Arc<dyn Clock>,
}

impl Simulation {
    /// Creates no machine yet. Commands run on `machines`, see [`super::SimulatedConnector`].
    #[must_use]
    pub fn new(machines: SimulatedMachines) -> Self {
        Self { cloud: Arc::default(), machines, clock: Arc::new(SystemClock) }
    }

    /// Takes the times at which machines are created from this clock instead of the system's.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// From now on no machine gets the address of a destroyed one.
    pub fn give_new_addresses(&self) {
        self.lock().give_new_addresses();
    }

    /// Stops the machine of the Server with this UID as a crash would, without a call of the provider.
    pub fn crash(&self, uid: &str) {
        self.lock().crash(uid);
    }

    /// Reboots the machine of the Server with this UID if it runs, without a call of the provider. It runs again after so long.
    pub fn reboot(&self, uid: &str, duration: Duration) {
        self.lock().reboot_by_itself(uid, duration);
    }

    /// Destroys the machine of the Server with this UID, without a call of the provider. Its address is given to another machine, or
    /// to none.
    pub fn vanish(&self, uid: &str, frees_address: bool) {
        self.lock().vanish(uid, frees_address);
        self.machines.remove(uid);
    }

    /// The UID of the Server whose machine runs at this address; none when no machine does.
    #[must_use]
    pub fn runs_at(&self, address: &str) -> Option<String> {
        self.lock().runs_at(address)
    }

    /// The UIDs of the Servers that have a machine, in the order of their accounts.
    #[must_use]
    pub fn owners(&self) -> Vec<String> {
        self.lock().owners()
    }

    /// Whether the Server with this UID has a machine, running or not.
    #[must_use]
    pub fn has_machine(&self, uid: &str) -> bool {
        self.lock().has_machine(uid)
    }

    /// The UID of a Server that has more than one machine; none when there is no such Server.
    #[must_use]
    pub fn first_with_several(&self) -> Option<String> {
        self.lock().first_with_several()
    }

    /// Number of machines.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Cloud> {
        self.cloud.lock()
    }

    pub(super) fn machines(&self) -> &SimulatedMachines {
        &self.machines
    }
}
