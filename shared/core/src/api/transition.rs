//! A change of a Server's state.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::State;

/// A change of state, as versions before `status.history` stored it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// State before the change. Absent for the first state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<State>,
    /// State after the change.
    pub to: State,
    /// When the state changed.
    pub at: Time,
    /// Human-readable reason of the decision.
    pub reason: String,
    /// User whose write led to the change.
    pub author: String,
}
