//! Simulated providers that refuse some connections.

use std::sync::Arc;

use berth_core::api::MachineClassSpec;
use berth_iaas::{Driver, Provider, Result, SecretData, simulated::Simulation};

/// The simulation, which takes only one password.
pub(crate) struct Guarded(pub(crate) Simulation);

impl Driver for Guarded {
    fn connect(&self, class: &MachineClassSpec, credentials: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        let password = credentials.and_then(|data| data.get("password"));
        let mut class = class.clone();
        if password.is_none_or(|password| password != b"right") {
            class.parameters.insert("broken".into(), "Credentials".into());
        }
        self.0.connect(&class, None)
    }
}

/// The simulation, which needs a class to find its machines.
pub(crate) struct Bound(pub(crate) Simulation);

impl Driver for Bound {
    fn connect(&self, class: &MachineClassSpec, credentials: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        self.0.connect(class, credentials)
    }
}
