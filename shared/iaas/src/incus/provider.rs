//! One MachineClass's provider.

use berth_core::api::MachineAccess;
use futures::future::{BoxFuture, FutureExt as _};

use super::{client::IncusClient, parameters::IncusParameters};
use crate::{
    error::Result,
    provider::{MachineRequest, Provider, ProviderMachine},
};

/// Makes the machines of one MachineClass, see [`super::IncusDriver`].
#[derive(Clone, Debug)]
pub(super) struct IncusProvider {
    pub(super) client: IncusClient,
    pub(super) cluster: String,
    pub(super) parameters: IncusParameters,
    pub(super) access: MachineAccess,
    /// The class's image, for requests without one.
    pub(super) image: Option<String>,
    /// The class's flavor, for requests without one.
    pub(super) flavor: Option<String>,
}

impl Provider for IncusProvider {
    fn place(&self) -> String {
        format!("{} project {}", self.client.endpoint(), self.client.project())
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.check_all().boxed()
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<ProviderMachine>> {
        self.create_machine(request).boxed()
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<ProviderMachine>>> {
        self.get_machine(uid).boxed()
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<ProviderMachine>> {
        self.reboot_machine(uid).boxed()
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        self.delete_machine(uid).boxed()
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<ProviderMachine>>> {
        self.list_machines(cluster).boxed()
    }
}
