//! Provider `incus`: machines are instances (system containers or virtual machines) of Incus 6, by its REST API over a
//! unix socket, or over HTTPS with a client certificate.
//!
//! Nothing is kept here: everything is read from Incus. An instance's name follows from the cluster and the Server's UID,
//! so that a creation done twice meets itself; its tags (`user.berth.*`) say whose it is, and what does not carry this
//! cluster's tags is never touched.
//!
//! What the images must have: an SSH server with its public host key in one of `hostKeyFiles`, and either cloud-init or
//! the user of `spec.access`; virtual machines also the Incus agent, through which both are reached.

mod access;
mod check;
mod client;
mod credentials;
mod fault;
mod instance;
mod lifecycle;
mod parameters;

use std::sync::Arc;

use berth_core::api::{MachineAccess, MachineClassSpec};
use futures::future::{BoxFuture, FutureExt as _};

use self::{client::Client, parameters::Parameters};
use super::{Driver, Error, MachineInfo, MachineRequest, Provider, Result, SecretData};

/// Makes providers for MachineClasses whose `spec.provider` is `incus`.
#[derive(Clone, Debug)]
pub struct IncusDriver {
    cluster: String,
}

impl IncusDriver {
    /// For the machines of the cluster of this name.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self { cluster: cluster.into() }
    }
}

impl Driver for IncusDriver {
    fn connect(&self, class: &MachineClassSpec, credentials: Option<&SecretData>) -> Result<Arc<dyn Provider>> {
        let parameters = Parameters::read(class)?;
        let client = Client::new(class, &parameters, credentials)?;
        Ok(Arc::new(IncusProvider {
            client,
            cluster: self.cluster.clone(),
            parameters,
            access: class.access.clone(),
            image: class.image.clone(),
            flavor: class.flavor.clone(),
        }))
    }
}

/// One MachineClass's way to Incus.
#[derive(Clone, Debug)]
struct IncusProvider {
    client: Client,
    cluster: String,
    parameters: Parameters,
    access: MachineAccess,
    /// The class's image, for requests without one.
    image: Option<String>,
    /// The class's flavor, for requests without one.
    flavor: Option<String>,
}

impl Provider for IncusProvider {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.check_all().boxed()
    }

    fn create<'a>(&'a self, request: &'a MachineRequest) -> BoxFuture<'a, Result<MachineInfo>> {
        self.create_machine(request).boxed()
    }

    fn get<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Option<MachineInfo>>> {
        self.get_machine(uid).boxed()
    }

    fn reboot<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<MachineInfo>> {
        self.reboot_machine(uid).boxed()
    }

    fn delete<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<()>> {
        self.delete_machine(uid).boxed()
    }

    fn list<'a>(&'a self, cluster: &'a str) -> BoxFuture<'a, Result<Vec<MachineInfo>>> {
        self.list_machines(cluster).boxed()
    }
}

/// How an image is meant: 12 to 64 hexadecimal digits are (the beginning of) a fingerprint, everything else an alias.
fn image_reference(image: &str) -> (&'static str, &str) {
    let is_fingerprint = (12..=64).contains(&image.len()) && image.chars().all(|c| c.is_ascii_hexdigit());
    (if is_fingerprint { "fingerprint" } else { "alias" }, image)
}
