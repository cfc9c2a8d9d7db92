//! The declaration of a machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The machine of a Server: a class, and what may differ from it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Name of the MachineClass.
    #[schemars(length(min = 1, max = 253))]
    pub class_name: String,
    /// Image of the machine. Defaults to that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Flavor (size) of the machine. Defaults to that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub flavor: Option<String>,
}
