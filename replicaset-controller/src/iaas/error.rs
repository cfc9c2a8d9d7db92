//! Why a provider could not do something.

/// The result of a provider's call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a provider could not do something. The messages are for people: they end up in tasks, conditions and Events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another attempt may help.
    #[error("{0}")]
    Retryable(String),
    /// The provider has no room left; another attempt helps once there is.
    #[error("the provider has no room for another machine: {0}")]
    Quota(String),
    /// What was asked for cannot be had. Only a change of what is declared or configured helps.
    #[error("{0}")]
    Configuration(String),
    /// The credentials are missing, malformed or not accepted. Only a change of the Secret, or of the MachineClass that
    /// names it, helps.
    #[error("{0}")]
    Credentials(String),
}

impl Error {
    /// Whether only a change of what is declared or configured helps.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Configuration(_) | Self::Credentials(_))
    }

    /// With the place where it happened in front.
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
