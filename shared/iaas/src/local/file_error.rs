//! Errors of files and processes, as errors of the provider.

use std::{fmt::Display, io, path::Path};

use crate::error::ProviderError;

/// Says what failed and at which path. A full disk counts as the provider's quota.
pub(super) fn during(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProviderError {
    let path = path.display().to_string();
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ProviderError::Quota(format!("{what} {path}: {error}"))
        }
        _ => ProviderError::Retryable(format!("{what} {path}: {error}")),
    }
}

/// The error with its causes.
pub(super) fn retryable(error: &impl Display) -> ProviderError {
    ProviderError::Retryable(format!("{error:#}"))
}
