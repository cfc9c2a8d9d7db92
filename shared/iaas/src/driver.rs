//! Drivers: each makes connections to the providers of one kind.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::api::MachineClassSpec;

use crate::{
    error::{ProviderError, Result},
    provider::Provider,
};

/// The `data` of a Secret.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// Makes connections to providers of one kind. A MachineClass names the kind (`spec.provider`), its parameters and its
/// credentials.
pub trait Driver: Send + Sync {
    /// The provider for machines of this class. Only reads what is declared, and does no I/O.
    ///
    /// # Errors
    /// [`ProviderError::Configuration`] for parameters, and [`ProviderError::Credentials`] for credentials, that are
    /// missing, malformed or unknown: the message names the field and what is allowed.
    fn connect(&self, class: &MachineClassSpec, credentials: Option<&SecretData>) -> Result<Arc<dyn Provider>>;

    /// A provider for machines at this place whose class is gone; none if this kind of provider cannot work without a class.
    fn without_class(&self, _place: &str) -> Option<Arc<dyn Provider>> {
        None
    }
}

/// Refuses a class with a parameter that is not among the known ones.
pub fn refuse_unknown_parameters(class: &MachineClassSpec, known: &[&str]) -> Result<()> {
    let Some(name) = class.parameters.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let provider = &class.provider;
    Err(ProviderError::Configuration(if known.is_empty() {
        format!("spec.parameters.{name}: the provider {provider} has no parameters; remove it")
    } else {
        format!("spec.parameters.{name}: the provider {provider} has no such parameter; it has {}", known.join(", "))
    }))
}
