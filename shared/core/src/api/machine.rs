//! The machine that is asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which machine: a class, and what may vary within it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Name of the MachineClass.
    #[schemars(length(min = 1, max = 253))]
    pub class_name: String,
    /// Image, where it differs from the class's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Flavor (size), where it differs from the class's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub flavor: Option<String>,
}
