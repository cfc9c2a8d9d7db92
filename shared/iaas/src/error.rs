//! Errors of drivers and providers.

/// The result of a call of a driver or a provider.
pub type Result<T> = std::result::Result<T, ProviderError>;

/// Why a driver or a provider failed. The messages are for people: they are shown in tasks, conditions and Events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Another attempt may help.
    #[error("{0}")]
    Retryable(String),
    /// The provider's quota is exhausted; another attempt helps once a machine is gone.
    #[error("the provider's quota is exhausted: {0}")]
    Quota(String),
    /// The request can never succeed. Only a change of what is declared or configured helps.
    #[error("{0}")]
    Configuration(String),
    /// The credentials are missing, malformed or not accepted. Only a change of the Secret, or of the MachineClass that
    /// names it, helps.
    #[error("{0}")]
    Credentials(String),
}

impl ProviderError {
    /// Whether only a change of what is declared or configured helps.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Configuration(_) | Self::Credentials(_))
    }

    /// The same error with the place where it happened before its message.
    #[must_use]
    pub fn at(self, place: &str) -> Self {
        let with = |message: String| format!("{place}: {message}");
        match self {
            Self::Retryable(message) => Self::Retryable(with(message)),
            Self::Quota(message) => Self::Quota(with(message)),
            Self::Configuration(message) => Self::Configuration(with(message)),
            Self::Credentials(message) => Self::Credentials(with(message)),
        }
    }
}
