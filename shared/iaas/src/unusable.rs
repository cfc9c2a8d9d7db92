//! Why no machines of a MachineClass can be created.

use berth_core::machine_class::ClassRefusal;

use crate::{error::ProviderError, place::Place};

/// Reason for work on a machine that is at a place to which there is no way.
const ELSEWHERE: &str = "AnotherPlace";

/// Why no machines of a MachineClass can be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UnusableClass {
    /// Reason of a condition: `ClassNotFound`, `UnknownProvider`, `InvalidParameters`, `CredentialsNotFound`,
    /// `CredentialsRejected`, `ProviderUnavailable`, `AnotherPlace` (the machine is where the class does not lead), or one of a
    /// [`ClassRefusal`].
    pub reason: &'static str,
    /// Human-readable explanation, with the class's name.
    pub message: String,
    /// Whether it may pass without a change of the class, its Secret or the configuration.
    pub is_temporary: bool,
}

impl UnusableClass {
    /// There is no class of this name.
    pub(crate) fn not_found(name: &str) -> Self {
        let message = format!("there is no MachineClass {name:?}: create it, or declare another class");
        Self { reason: "ClassNotFound", message, is_temporary: false }
    }

    /// Unusable for work on a machine at this place: its class means another place `now`, or none.
    #[must_use]
    pub fn elsewhere(class: &str, place: &Place, now: Option<&Place>) -> Self {
        let now = now.map_or_else(|| "is gone or cannot be used".to_owned(), |now| format!("means {now} now"));
        let message = format!(
            "the machine may exist at {place}, but MachineClass {class} {now}: nothing is done elsewhere. Restore the class, or \
             retire the Server while any MachineClass means {place}"
        );
        Self { reason: ELSEWHERE, message, is_temporary: false }
    }

    /// Whether the machine is at a place to which there is no way.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.reason == ELSEWHERE
    }

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

impl From<ClassRefusal> for UnusableClass {
    fn from(refusal: ClassRefusal) -> Self {
        Self { reason: refusal.reason, message: refusal.message, is_temporary: false }
    }
}
