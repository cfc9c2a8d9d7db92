//! A decision: a state, and the reason for it.

use crate::api::State;

/// The state that a Server has to be in, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The state.
    pub state: State,
    /// Human-readable reason.
    pub reason: String,
}

impl Decision {
    pub(super) fn new(state: State, reason: impl Into<String>) -> Self {
        Self { state, reason: reason.into() }
    }
}
