//! What people do in a world.

use berth_core::api::{MachineClass, Server, State, VMDeployment};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Dice, Faults, judges::Wanted, machines::APP_PORT};

/// Name of everything that people declare.
const NAME: &str = "web";
/// The most Servers that people want.
const MOST_SERVERS: usize = 6;

/// A person, who declares what a fleet should be, and changes it.
pub(crate) struct Person {
    client: Client,
    dice: Dice,
    wanted: Wanted,
    /// How many things this person has done, which numbers revisions and requests.
    acts: usize,
}

impl Person {
    pub(crate) fn new(client: Client, dice: &Dice) -> Self {
        let wanted = Wanted { replicas: dice.between(1, MOST_SERVERS), revision: "r0".into(), package: "0".into() };
        Self { client, dice: dice.clone(), wanted, acts: 0 }
    }

    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Declares the class of machines, the Service and the fleet.
    pub(crate) async fn declare(&self, faults: &Faults) -> kube::Result<()> {
        let rate = faults.provider_failures / 2.0;
        let class = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "MachineClass", "metadata": {"name": "small"},
            "spec": {"provider": "simulated", "access": {"user": "berth", "port": 22, "root": "opt/berth"},
                     "parameters": {"failureRate": rate, "lostAnswerRate": rate, "boot": {"uniformMs": [1000, 20000]}}}
        });
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
                             "spec": {"ports": [{"name": "http", "port": 80}]}});
        create::<MachineClass>(&Api::all(self.client.clone()), class).await?;
        create::<Service>(&Api::default_namespaced(self.client.clone()), service).await?;
        create::<VMDeployment>(&self.deployments(), self.deployment()).await
    }

    fn deployment(&self) -> Value {
        let traffic = json!({"services": [{"name": NAME, "port": 80, "portName": "http"}], "drainSeconds": 2});
        json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "VMDeployment", "metadata": {"name": NAME},
            "spec": {
                "replicas": self.wanted.replicas, "selector": {"matchLabels": {"app": NAME}},
                "template": {"metadata": {"labels": {"app": NAME}},
                             "spec": {"machine": {"className": "small"}, "packages": self.packages(), "traffic": traffic,
                                      "healthCheck": {"httpGet": {"port": APP_PORT, "path": "/"}, "periodSeconds": 2},
                                      "reachability": {"periodSeconds": 2, "timeoutSeconds": 1, "unreachableAfterSeconds": 6}}},
                "failover": {"waitSeconds": 20, "action": "Replace"},
                "app": self.app()
            }
        })
    }

    fn packages(&self) -> Value {
        json!([{"name": "jq", "version": self.wanted.package, "apt": {}}])
    }

    fn app(&self) -> Value {
        let artifact = json!({"url": format!("http://a/{}.tar", self.wanted.revision), "sha256": "ab".repeat(32)});
        json!({"name": NAME, "revision": self.wanted.revision, "command": "./run", "artifact": artifact})
    }

    /// Does one thing. Returns it in words.
    pub(crate) async fn act(&mut self) -> kube::Result<String> {
        self.acts += 1;
        let number = self.acts;
        match self.dice.between(0, 5) {
            0 => {
                self.wanted.replicas = self.dice.between(1, MOST_SERVERS);
                let replicas = self.wanted.replicas;
                self.patch(json!({"replicas": replicas})).await?;
                Ok(format!("scales to {replicas}"))
            }
            1 | 2 => {
                let back = self.dice.chance(0.3);
                self.wanted.revision = if back { "r0".to_owned() } else { format!("r{number}") };
                self.patch(json!({"app": self.app()})).await?;
                Ok(format!("declares code {}", self.wanted.revision))
            }
            3 => {
                self.wanted.package = number.to_string();
                self.patch(json!({"template": {"spec": {"packages": self.packages()}}})).await?;
                Ok(format!("declares package {number}"))
            }
            4 => {
                let Some(name) = self.some_server().await? else { return Ok("finds no Server".to_owned()) };
                self.servers().delete(&name, &DeleteParams::default()).await?;
                Ok(format!("deletes {name}"))
            }
            _ => {
                let names = self.retry_all().await?;
                Ok(format!("retries {}", names.join(", ")))
            }
        }
    }

    /// Asks for another attempt at whatever has failed.
    async fn retry_all(&mut self) -> kube::Result<Vec<String>> {
        self.acts += 1;
        let retry = json!({"spec": {"retry": {"id": format!("retry-{}", self.acts), "reason": "a person asks"}}});
        let mut names = Vec::new();
        for server in self.servers().list(&ListParams::default()).await? {
            self.servers().patch(server.name(), &PatchParams::default(), &Patch::Merge(&retry)).await?;
            names.push(server.name().to_owned());
        }
        Ok(names)
    }

    /// Does what a person does who was asked to: lets everything that has failed be tried again, and gives up the machines that are
    /// out of reach. Returns it in words.
    pub(crate) async fn repair(&mut self) -> kube::Result<String> {
        let mut given_up = Vec::new();
        for server in self.servers().list(&ListParams::default()).await? {
            if server.state() == Some(State::Unknown) {
                self.servers().delete(server.name(), &DeleteParams::default()).await?;
                given_up.push(server.name().to_owned());
            }
        }
        let retried = self.retry_all().await?;
        Ok(format!("gives up [{}] and retries [{}]", given_up.join(", "), retried.join(", ")))
    }

    /// Removes the fleet.
    pub(crate) async fn remove(&mut self) -> kube::Result<()> {
        self.wanted.replicas = 0;
        self.deployments().delete(NAME, &DeleteParams::default()).await.map(drop)
    }

    async fn some_server(&self) -> kube::Result<Option<String>> {
        let servers = self.servers().list(&ListParams::default()).await?.items;
        let count = servers.len();
        Ok((count > 0).then(|| servers[self.dice.between(0, count - 1)].name().to_owned()))
    }

    async fn patch(&self, spec: Value) -> kube::Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.deployments().patch(NAME, &PatchParams::default(), &patch).await.map(drop)
    }

    fn deployments(&self) -> Api<VMDeployment> {
        Api::default_namespaced(self.client.clone())
    }

    fn servers(&self) -> Api<Server> {
        Api::default_namespaced(self.client.clone())
    }
}

async fn create<K>(api: &Api<K>, document: Value) -> kube::Result<()>
where
    K: kube::Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object = serde_json::from_value(document).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await.map(drop)
}
