//! What happens when a roll-out fails.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens when a roll-out fails.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum OnFailure {
    /// No further Server is touched.
    #[default]
    Pause,
    /// The roll-out is aborted: the stable version comes back to every Server that has the new one.
    Rollback,
}
