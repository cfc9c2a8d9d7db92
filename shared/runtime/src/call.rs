//! A failed call, and what was tried by it.

use crate::{ReconcileError, WriteError};

/// A call to the API server that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct CallError {
    /// What was tried.
    what: String,
    /// What came of it.
    #[source]
    source: WriteError,
}

impl CallError {
    /// For `map_err`: says what was tried.
    pub fn call<E: Into<WriteError>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self { what, source: source.into() }
    }

    /// Whether a guarded write met an object that is no longer what it was meant for, or none.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self.source, WriteError::Stale { .. })
    }
}

impl From<WriteError> for CallError {
    fn from(source: WriteError) -> Self {
        Self { what: "write the Server's status".to_owned(), source }
    }
}

impl ReconcileError for CallError {
    fn is_terminal(&self) -> bool {
        self.source.is_terminal()
    }
}

/// For guarded writes: whether it was written; `false` when the object is no longer what the write was meant for.
pub fn written<T>(result: Result<T, CallError>) -> Result<bool, CallError> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.is_stale() => Ok(false),
        Err(error) => Err(error),
    }
}
