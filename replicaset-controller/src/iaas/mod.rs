//! IaaS: where machines come from.
//!
//! A [`Driver`] makes a [`Provider`] for a MachineClass. A [`Provider`] knows machines by the UID of their Server, so
//! that whoever looks finds the machine again, whatever crashed when. Every implementation passes the contract in
//! `tests/iaas_contract`.

mod bulkhead;
mod checked;
mod classes;
mod connections;
mod driver;
mod error;
pub mod incus;
pub mod local;
mod metered;
mod problem;
mod providers;
mod secrets;
pub mod simulated;

use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use bulkhead::Slot;
pub use classes::Classes;
pub use connections::Connection;
pub use driver::{Driver, SecretData, refuse_unknown};
pub use error::{Error, Result};
pub use metered::Limits;
pub use problem::ClassProblem;
pub use providers::Providers;
pub use secrets::Secrets;

/// Whose machine it is. The provider keeps it with the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Name of the cluster, so that several can share one provider.
    pub cluster: String,
    /// Namespace of the Server.
    pub namespace: String,
    /// Name of the Server.
    pub name: String,
    /// UID of the Server: identifies the machine.
    pub uid: String,
}

/// What a machine is to be, besides what the MachineClass says, which the provider was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineRequest {
    /// Whose machine it is.
    pub owner: Owner,
    /// Image, in the provider's terms.
    pub image: Option<String>,
    /// Size, in the provider's terms.
    pub flavor: Option<String>,
    /// Port on which the SSH server is wanted. A provider that cannot choose says in [`MachineInfo`] which it is.
    pub ssh_port: u16,
    /// OpenSSH public key line that may log in.
    pub authorized_key: String,
}

/// How far a machine is, as the provider sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is being made or boots.
    Starting,
    /// It runs.
    Running,
    /// It exists and does not run.
    Stopped,
}

/// A machine, as the provider sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineInfo {
    /// Whose machine it is.
    pub owner: Owner,
    /// The provider's id.
    pub id: String,
    /// How far it is.
    pub phase: Phase,
    /// Its address, once it is known.
    pub address: Option<String>,
    /// Port of its SSH server.
    pub ssh_port: u16,
    /// Its SSH host key as an OpenSSH public key line, learnt through the provider and never over the network that it
    /// protects.
    pub host_key: Option<String>,
    /// Differs after each boot, where the provider knows it.
    pub boot_id: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Makes, finds, reboots and destroys machines. Every call can be repeated, and returns within a bounded time.
pub trait Provider: Send + Sync {
    /// Whether machines can be had at all: the endpoint answers, accepts the credentials, and knows what the class names
    /// (as a project). Changes nothing.
    fn check(&self) -> BoxFuture<'_, Result<()>>;

    /// Makes the Server's machine, or finds it: repeated and concurrent calls with one UID give one machine. A machine
    /// that is stopped is started. May return before the machine runs.
    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<MachineInfo>>;

    /// The machine of the Server with this UID.
    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<MachineInfo>>>;

    /// Reboots the machine hard, and starts it if it is stopped. It is an error if there is none.
    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<MachineInfo>>;

    /// Destroys the machine and returns when it is gone. Succeeds if there is none.
    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>>;

    /// All machines of a cluster, by which those without a Server are found.
    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<MachineInfo>>>;
}
