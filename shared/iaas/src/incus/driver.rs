//! Makes Incus providers for MachineClasses.

use std::sync::Arc;

use berth_core::api::MachineClassSpec;

use super::{client::IncusClient, parameters::IncusParameters, provider::IncusProvider};
use crate::{
    driver::{Driver, SecretData},
    error::Result,
    provider::Provider,
};

/// Makes providers for MachineClasses whose `spec.provider` is `incus`.
#[derive(Clone, Debug)]
pub struct IncusDriver {
    cluster: String,
}

impl IncusDriver {
    /// Makes providers for machines of the cluster of this name.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self { cluster: cluster.into() }
    }
}

impl Driver for IncusDriver {
    fn connect(&self, class: &MachineClassSpec, credentials: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        let parameters = IncusParameters::read(class)?;
        let client = IncusClient::new(class, &parameters, credentials)?;
        Ok(Arc::new(IncusProvider {
            client,
            cluster: self.cluster.clone(),
            parameters,
            access: class.access.clone(),
            image: class.image.clone(),
            flavor: class.flavor.clone(),
        }))
    }
}
