//! Drivers: how a [`Provider`] is made for a MachineClass.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::api::MachineClassSpec;

use super::{Error, Provider, Result};

/// The `data` of a Secret.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// Makes providers of one kind. A MachineClass names the kind (`spec.provider`), its parameters and its credentials.
pub trait Driver: Send + Sync {
    /// The provider for machines of this class. Looks at what is declared alone and does no I/O.
    ///
    /// # Errors
    /// [`Error::Configuration`] for parameters, and [`Error::Credentials`] for credentials, that are missing, malformed
    /// or unknown: the message names the field and what is allowed.
    fn connect(&self, class: &MachineClassSpec, credentials: Option<&SecretData>) -> Result<Arc<dyn Provider>>;

    /// A provider that needs no class, for machines whose class is gone, where there is such a thing.
    fn without_class(&self) -> Option<Arc<dyn Provider>> {
        None
    }
}

/// Refuses every parameter that is not among the known ones.
pub fn refuse_unknown(class: &MachineClassSpec, known: &[&str]) -> Result<()> {
    let Some(name) = class.parameters.keys().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let provider = &class.provider;
    Err(Error::Configuration(if known.is_empty() {
        format!("spec.parameters.{name}: the provider {provider} has no parameters; remove it")
    } else {
        format!("spec.parameters.{name}: the provider {provider} has no such parameter; it has {}", known.join(", "))
    }))
}
