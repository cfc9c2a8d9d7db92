//! Who brings an application onto a machine.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who brings the application onto a machine.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'External') == has(self.className)")
    .message("app.executor: type External needs className, the name of a DeployClass; type SSH has none"))]
pub struct AppExecutor {
    /// `SSH`: Berth itself, by SSH. `External`: the deploy system of a DeployClass.
    #[serde(rename = "type")]
    pub kind: AppExecutorType,
    /// Name of the DeployClass, for type `External`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
}

/// A way to bring an application onto a machine.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum AppExecutorType {
    /// Berth itself, by SSH.
    #[default]
    #[serde(rename = "SSH")]
    Ssh,
    /// A deploy system.
    External,
}

impl AppExecutor {
    /// Whether it is Berth itself, by SSH.
    #[must_use]
    pub fn is_ssh(&self) -> bool {
        self.kind == AppExecutorType::Ssh
    }
}
