//! The interface of a provider.

use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// The Server that a machine belongs to. The provider stores it with the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineOwner {
    /// Name of the cluster: several clusters may share one provider.
    pub cluster: String,
    /// Namespace of the Server.
    pub namespace: String,
    /// Name of the Server.
    pub name: String,
    /// UID of the Server, which identifies the machine.
    pub uid: String,
}

/// What a machine is to be. Everything else is in the MachineClass that the provider was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineRequest {
    /// The Server that the machine belongs to.
    pub owner: MachineOwner,
    /// Image, in the provider's terms.
    pub image: Option<String>,
    /// Size, in the provider's terms.
    pub flavor: Option<String>,
    /// Requested port of the SSH server. A provider that cannot choose it returns the actual port in [`ProviderMachine`].
    pub ssh_port: u16,
    /// OpenSSH public key line that the machine accepts.
    pub authorized_key: String,
}

/// Phase of a machine, according to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderMachinePhase {
    /// It is being created, or it boots.
    Starting,
    /// It runs.
    Running,
    /// It exists and does not run.
    Stopped,
}

/// A machine, according to the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderMachine {
    /// The Server that the machine belongs to.
    pub owner: MachineOwner,
    /// Id of the machine at the provider.
    pub id: String,
    /// Phase of the machine.
    pub phase: ProviderMachinePhase,
    /// Its address, once it is known.
    pub address: Option<String>,
    /// Port of its SSH server.
    pub ssh_port: u16,
    /// Its SSH host key as an OpenSSH public key line. It is read through the provider, never through the network that it
    /// protects.
    pub host_key: Option<String>,
    /// Differs after each boot; none if the provider does not know it.
    pub boot_id: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// Creates, finds, reboots and destroys machines. Every call is idempotent and returns within a bounded time.
pub trait Provider: Send + Sync {
    /// Where its machines are, in a form that identifies it among all providers of this kind and that people understand, such as
    /// endpoint and project. It is stored with each Server: two classes have the same place exactly if they see the same
    /// machines. Known without I/O.
    fn place(&self) -> String;

    /// Checks whether machines can be created at all: the endpoint answers, accepts the credentials, and has what the class
    /// names (as a project). Changes nothing.
    fn check(&self) -> BoxFuture<'_, Result<()>>;

    /// Creates the Server's machine unless it exists: repeated and concurrent calls with the same UID give one machine. A
    /// stopped machine is started. May return before the machine runs.
    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<ProviderMachine>>;

    /// The machine of the Server with this UID; none if there is none.
    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<ProviderMachine>>>;

    /// Reboots the machine hard, or starts it if it is stopped. Fails if there is no machine.
    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<ProviderMachine>>;

    /// Destroys the machine and returns when it is gone. Succeeds if there is no machine.
    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>>;

    /// All machines of a cluster. Orphans are found with it.
    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<ProviderMachine>>>;
}
