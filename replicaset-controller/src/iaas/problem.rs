//! Why machines of a class cannot be had.

use super::Error;

/// Why machines of a class cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ClassProblem {
    /// Reason of a condition: `ClassNotFound`, `UnknownProvider`, `InvalidParameters`, `CredentialsNotFound`,
    /// `CredentialsRejected` or `ProviderUnavailable`.
    pub reason: &'static str,
    /// In words, with the class's name.
    pub message: String,
    /// Whether another look may help, without a change of what is declared or configured.
    pub is_temporary: bool,
}

impl ClassProblem {
    /// With this reason, unless another attempt may help.
    pub(super) fn new(class: &str, reason: &'static str, error: &Error) -> Self {
        let is_temporary = !error.is_permanent();
        let reason = if is_temporary { "ProviderUnavailable" } else { reason };
        Self { reason, message: format!("MachineClass {class}: {error}"), is_temporary }
    }

    /// What a driver or a provider says about its class.
    pub(super) fn of_provider(class: &str, error: &Error) -> Self {
        let is_rejected = matches!(error, Error::Credentials(_));
        Self::new(class, if is_rejected { "CredentialsRejected" } else { "InvalidParameters" }, error)
    }
}
