//! What people do in a world.

use berth_core::api::{MachineClass, Server, State, VMDeployment};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{Dice, Faults, judges::Wanted, machines::APP_PORT};

/// Name of everything that people declare.
const NAME: &str = "web";
/// The revision of the code that is declared first.
const FIRST: &str = "r0";

/// Something that a person does. Numbers choose among what there is at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Act {
    /// Declares how many Servers there should be.
    Scale {
        /// How many.
        replicas: usize,
    },
    /// Declares which code should run.
    DeclareCode {
        /// Its revision.
        revision: String,
    },
    /// Declares which version of a package there should be.
    DeclarePackage {
        /// The version.
        version: String,
    },
    /// Deletes a Server.
    DeleteServer {
        /// Which one.
        server: usize,
    },
    /// Asks for another attempt at whatever has failed.
    RetryAll,
}

impl Act {
    /// The most Servers that people want.
    pub(crate) const MOST_SERVERS: usize = 6;

    /// Draws what a person does. The number of the act makes revisions new.
    pub(crate) fn draw(dice: &Dice, number: usize) -> Self {
        match dice.between(0, 5) {
            0 => Self::Scale { replicas: dice.between(1, Self::MOST_SERVERS) },
            // Back to the first code, sometimes.
            1 | 2 => {
                Self::DeclareCode { revision: if dice.chance(0.3) { FIRST.to_owned() } else { format!("r{number}") } }
            }
            3 => Self::DeclarePackage { version: number.to_string() },
            4 => Self::DeleteServer { server: dice.between(0, 99) },
            _ => Self::RetryAll,
        }
    }
}

/// A person, who declares what a fleet should be, and changes it.
pub(crate) struct Person {
    client: Client,
    wanted: Wanted,
    /// How many requests this person has made, which numbers them.
    requests: usize,
}

impl Person {
    pub(crate) fn new(client: Client, replicas: usize) -> Self {
        let wanted = Wanted { replicas, revision: FIRST.into(), package: "0".into() };
        Self { client, wanted, requests: 0 }
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

    /// Does this. Returns it in words.
    pub(crate) async fn act(&mut self, act: &Act) -> kube::Result<String> {
        match act {
            Act::Scale { replicas } => {
                self.wanted.replicas = *replicas;
                self.patch(json!({"replicas": replicas})).await?;
                Ok(format!("scales to {replicas}"))
            }
            Act::DeclareCode { revision } => {
                self.wanted.revision.clone_from(revision);
                self.patch(json!({"app": self.app()})).await?;
                Ok(format!("declares code {revision}"))
            }
            Act::DeclarePackage { version } => {
                self.wanted.package.clone_from(version);
                self.patch(json!({"template": {"spec": {"packages": self.packages()}}})).await?;
                Ok(format!("declares package {version}"))
            }
            Act::DeleteServer { server } => {
                let Some(name) = self.server(*server).await? else { return Ok("finds no Server".to_owned()) };
                self.servers().delete(&name, &DeleteParams::default()).await?;
                Ok(format!("deletes {name}"))
            }
            Act::RetryAll => Ok(format!("retries {}", self.retry_all().await?.join(", "))),
        }
    }

    /// Asks for another attempt at whatever has failed.
    async fn retry_all(&mut self) -> kube::Result<Vec<String>> {
        self.requests += 1;
        let retry = json!({"spec": {"retry": {"id": format!("retry-{}", self.requests), "reason": "a person asks"}}});
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

    async fn server(&self, number: usize) -> kube::Result<Option<String>> {
        let servers = self.servers().list(&ListParams::default()).await?.items;
        Ok((!servers.is_empty()).then(|| servers[number % servers.len()].name().to_owned()))
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

pub(crate) async fn create<K>(api: &Api<K>, document: Value) -> kube::Result<()>
where
    K: kube::Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object = serde_json::from_value(document).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await.map(drop)
}
