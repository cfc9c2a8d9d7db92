//! What people do in a world.

mod act;
mod approvals;
mod bad_input;
mod fleet;
mod fleet_acts;
mod give_way;
mod send_bad;
mod server_acts;
mod steering;
#[cfg(test)]
mod tests;

use berth_core::api::{MachineClass, Server};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) use self::fleet::Fleet;
pub use self::{act::Act, bad_input::BadInput, fleet::Shape};
use crate::{Finding, Judge};

/// People, who declare what fleets should be, and change them.
pub(crate) struct People {
    client: Client,
    /// Somebody else, with the same rights.
    other: Client,
    fleets: Vec<Fleet>,
    /// How many requests they have made, which numbers them.
    requests: usize,
}

impl People {
    pub(crate) fn new(client: Client, other: Client, shapes: &[Shape], replicas: usize) -> Self {
        let fleets =
            shapes.iter().enumerate().map(|(number, shape)| Fleet::new(number, shape.clone(), replicas)).collect();
        Self { client, other, fleets, requests: 0 }
    }

    pub(crate) fn fleets(&self) -> &[Fleet] {
        &self.fleets
    }

    /// Declares the class of machines, and each fleet with its Service.
    pub(crate) async fn declare(&mut self) -> kube::Result<()> {
        let class = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "MachineClass", "metadata": {"name": "small"},
            "spec": {"provider": "simulated", "access": {"user": "berth", "port": 22, "root": "opt/berth"},
                     "parameters": {"boot": {"uniformMs": [1000, 20000]}}}
        });
        create::<MachineClass>(&Api::all(self.client.clone()), class).await?;
        for number in 0..self.fleets.len() {
            let fleet = &self.fleets[number];
            if fleet.shape.is_elsewhere && self.fleets[..number].iter().all(|other| other.namespace != fleet.namespace)
            {
                let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": fleet.namespace}});
                create::<Namespace>(&Api::all(self.client.clone()), namespace).await?;
            }
            let fleet = &self.fleets[number];
            create::<Service>(&self.services(fleet), fleet.service()).await?;
            self.create_fleet(number).await?;
        }
        Ok(())
    }

    async fn create_fleet(&mut self, number: usize) -> kube::Result<()> {
        let fleet = &self.fleets[number];
        let object = serde_json::from_value(fleet.declaration()).map_err(kube::Error::SerdeError)?;
        let stored = self.declarations(fleet).create(&PostParams::default(), &object).await?;
        self.remember(number, &stored);
        Ok(())
    }

    /// Does this with a fleet. Returns it in words.
    pub(crate) async fn act(&mut self, fleet: usize, act: &Act) -> Result<String, Finding> {
        let fleet = fleet % self.fleets.len();
        if let Act::Bad { input } = act {
            return self.send_bad(fleet, *input).await;
        }
        let done = match act {
            Act::Force { .. }
            | Act::ForceAll { .. }
            | Act::ClearForce { .. }
            | Act::TakeOffline { .. }
            | Act::Retain { .. }
            | Act::Reboot { .. }
            | Act::Label { .. }
            | Act::EditAll { .. }
            | Act::DeleteServer { .. }
            | Act::RetryAll => self.act_on_servers(fleet, act).await,
            Act::Decide { server, decision } => self.decide(fleet, *server, *decision).await,
            Act::DecideAll { gate, decision, is_old } => self.decide_all(fleet, *gate, *decision, *is_old).await,
            _ => self.act_on_fleet(fleet, act).await,
        };
        match done {
            // What a person has seen may be gone or changed when the request arrives.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                Ok(format!("comes too late: {}", status.message))
            }
            done => done.map_err(|error| Finding::new(Judge::Story, format!("{act:?} is refused: {error}"))),
        }
    }

    /// The number of a new request.
    fn next(&mut self) -> usize {
        self.requests += 1;
        self.requests
    }

    async fn list(&self, fleet: &Fleet) -> kube::Result<Vec<Server>> {
        let mut servers = self.servers(fleet).list(&ListParams::default()).await?.items;
        servers.retain(|server| is_of(fleet, server));
        Ok(servers)
    }

    async fn server(&self, fleet: &Fleet, number: usize) -> kube::Result<Option<Server>> {
        let mut servers = self.list(fleet).await?;
        Ok((!servers.is_empty()).then(|| servers.swap_remove(number % servers.len())))
    }

    fn remember(&mut self, fleet: usize, stored: &DynamicObject) {
        let fleet = &mut self.fleets[fleet];
        if let Ok(stored) = serde_json::to_value(stored) {
            fleet.history.push((stored, fleet.wanted.clone()));
        }
    }

    fn declarations(&self, fleet: &Fleet) -> Api<DynamicObject> {
        self.berth(fleet, fleet.kind())
    }

    /// Objects of one of Berth's kinds, beside the fleet.
    fn berth(&self, fleet: &Fleet, kind: &str) -> Api<DynamicObject> {
        let plural = format!("{}s", kind.to_lowercase());
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("berth.dev", "v1alpha1", kind), &plural);
        Api::namespaced_with(self.client.clone(), fleet.namespace, &resource)
    }

    fn servers(&self, fleet: &Fleet) -> Api<Server> {
        Api::namespaced(self.client.clone(), fleet.namespace)
    }

    fn services(&self, fleet: &Fleet) -> Api<Service> {
        Api::namespaced(self.client.clone(), fleet.namespace)
    }
}

/// Whether the Server is one of this fleet.
pub(crate) fn is_of(fleet: &Fleet, server: &Server) -> bool {
    let rest = server.name().strip_prefix(fleet.name).and_then(|rest| rest.strip_prefix('-'));
    server.namespace() == fleet.namespace && rest.is_some()
}

pub(crate) async fn create<K>(api: &Api<K>, document: Value) -> kube::Result<()>
where
    K: kube::Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object = serde_json::from_value(document).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await.map(drop)
}
