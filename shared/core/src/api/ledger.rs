//! The ledger of a set: what Berth itself is doing to its Servers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What Berth is changing on a Server that it disturbs on purpose.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
pub enum Axis {
    /// replicaset-controller updates its environment.
    Environment,
    /// deployment-controller updates its application.
    App,
    /// replicaset-controller removes it, because the set has too many Servers.
    Retirement,
    /// replicaset-controller gives it up, because its machine is unreachable.
    Failover,
    /// replicaset-controller repairs it, because its machine is no longer as it was when its facts were read.
    Drift,
    /// replicaset-controller replaces it, because it needs another machine.
    Replacement,
}

impl Axis {
    /// Every axis.
    pub const ALL: [Self; 6] =
        [Self::Environment, Self::App, Self::Retirement, Self::Failover, Self::Drift, Self::Replacement];

    /// Whether the Server itself leaves its set, or may leave it: then nothing else is begun on it.
    #[must_use]
    pub fn removes_the_server(self) -> bool {
        matches!(self, Self::Retirement | Self::Replacement | Self::Failover)
    }
}

/// An entry of the ledger: a Server, and what Berth is changing on it. Each controller removes only its own entries.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// Name of the Server.
    #[schemars(length(min = 1, max = 63))]
    pub server: String,
    /// What is being changed on the Server.
    pub axis: Axis,
}

impl LedgerEntry {
    /// An entry for this Server.
    #[must_use]
    pub fn new(server: impl Into<String>, axis: Axis) -> Self {
        Self { server: server.into(), axis }
    }
}

/// A Server that is about to be created.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase")]
pub struct PendingServer {
    /// Name of the Server.
    #[schemars(length(min = 1, max = 63))]
    pub server: String,
}

impl PendingServer {
    /// A Server of this name.
    #[must_use]
    pub fn new(server: impl Into<String>) -> Self {
        Self { server: server.into() }
    }
}
