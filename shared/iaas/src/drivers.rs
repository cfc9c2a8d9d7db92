//! The drivers that this process knows.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    driver::Driver,
    error::{ProviderError, Result},
};

/// Drivers by the name of the provider that a MachineClass uses.
#[derive(Clone, Default)]
pub struct Drivers(BTreeMap<String, Arc<dyn Driver>>);

impl Drivers {
    /// Adds the driver of the provider of this name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, driver: Arc<dyn Driver>) -> Self {
        self.0.insert(name.into(), driver);
        self
    }

    /// The driver of the provider of this name.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Driver>> {
        self.0.get(name).ok_or_else(|| {
            let known = self.names();
            ProviderError::Configuration(format!(
                "there is no provider {name:?}; replicaset-controller is configured with: {known}"
            ))
        })
    }

    fn names(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for Drivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Drivers({})", self.names())
    }
}
