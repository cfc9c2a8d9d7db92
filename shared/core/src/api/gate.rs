//! Gates: points of the life cycle that a person guards.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point of the life cycle at which a person has to agree, by creating an Approval.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// The task that must not begin before the gate was approved. `DestroyMachine` holds up the whole retirement:
    /// traffic, monitoring and machine stay until then.
    pub before: GatePoint,
}

/// The task that a gate holds up.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
pub enum GatePoint {
    /// Creation of the machine.
    CreateMachine,
    /// Changes of the machine's packages.
    InstallPackages,
    /// Deployment of the application.
    DeployApp,
    /// Traffic to the Server.
    ReleaseTraffic,
    /// Retirement: traffic, monitoring and machine stay until the gate was approved.
    DestroyMachine,
}

impl GatePoint {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::CreateMachine, Self::InstallPackages, Self::DeployApp, Self::ReleaseTraffic, Self::DestroyMachine];
}

impl std::fmt::Display for GatePoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}
