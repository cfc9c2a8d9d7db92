//! Berth's controllers, by name.

use berth_core::api::Executor;
use serde::{Deserialize, Serialize};

/// One of Berth's controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// Sets, machines and packages.
    ReplicasetController,
    /// Applications.
    DeploymentController,
    /// Traffic.
    LbController,
    /// Health and reachability.
    MonitorController,
}

impl Program {
    /// All programs.
    pub const ALL: [Self; 4] =
        [Self::ReplicasetController, Self::DeploymentController, Self::LbController, Self::MonitorController];

    pub(crate) fn executor(self) -> Executor {
        match self {
            Self::ReplicasetController => Executor::ReplicasetController,
            Self::DeploymentController => Executor::DeploymentController,
            Self::LbController => Executor::LbController,
            Self::MonitorController => Executor::MonitorController,
        }
    }
}
