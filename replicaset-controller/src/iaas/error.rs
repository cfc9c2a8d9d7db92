//! Why a provider could not do something.

/// The result of a provider's call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a provider could not do something. The messages are for people: they end up in tasks and Events.
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
}
