//! Why no machines of a MachineClass can be created.

use crate::error::ProviderError;

/// Why no machines of a MachineClass can be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UnusableClass {
    /// Reason of a condition: `ClassNotFound`, `UnknownProvider`, `InvalidParameters`, `CredentialsNotFound`,
    /// `CredentialsRejected` or `ProviderUnavailable`.
    pub reason: &'static str,
    /// Human-readable explanation, with the class's name.
    pub message: String,
    /// Whether it may pass without a change of the class, its Secret or the configuration.
    pub is_temporary: bool,
}

impl UnusableClass {
    /// Unusable for this reason, or because of an unavailable provider if the error may pass.
    pub(crate) fn new(class: &str, reason: &'static str, error: &ProviderError) -> Self {
        let is_temporary = !error.is_permanent();
        let reason = if is_temporary { "ProviderUnavailable" } else { reason };
        Self { reason, message: format!("MachineClass {class}: {error}"), is_temporary }
    }

    /// Unusable because of an error of its driver or provider.
    pub(crate) fn from_provider(class: &str, error: &ProviderError) -> Self {
        let is_rejected = matches!(error, ProviderError::Credentials(_));
        Self::new(class, if is_rejected { "CredentialsRejected" } else { "InvalidParameters" }, error)
    }
}
