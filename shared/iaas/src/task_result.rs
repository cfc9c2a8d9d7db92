//! What a provider's error means for the task that met it.

use berth_core::protocol::TaskResult;

use crate::error::ProviderError;

/// A mistake in the configuration fails the task: other attempts would only hide it. Wrong credentials do not: they are
/// checked before the next attempt, which is not begun until they are accepted.
impl From<ProviderError> for TaskResult {
    fn from(error: ProviderError) -> Self {
        match &error {
            ProviderError::Configuration(message) => Self::failed(message),
            ProviderError::Quota(_) => Self::retry(error.to_string()),
            ProviderError::Retryable(message) | ProviderError::Credentials(message) => Self::retry(message),
        }
    }
}
