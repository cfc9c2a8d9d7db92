//! The providers that this process knows.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Error, Provider, Result};

/// Providers by the name that a MachineClass uses.
#[derive(Clone, Default)]
pub struct Providers(BTreeMap<String, Arc<dyn Provider>>);

impl Providers {
    /// With one more provider.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, provider: Arc<dyn Provider>) -> Self {
        self.0.insert(name.into(), provider);
        self
    }

    /// The provider of this name.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Provider>> {
        self.0.get(name).ok_or_else(|| {
            let known = self.names();
            Error::Configuration(format!(
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

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Providers({})", self.names())
    }
}
