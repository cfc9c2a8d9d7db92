//! Projects of the incusd.

use std::{sync::Arc, time::Duration};

use berth_core::api::MachineClassSpec;
use berth_iaas::{
    Driver, MachineOwner, MachineRequest, Provider, ProviderMachine, ProviderMachinePhase, SecretData,
    incus::IncusDriver,
};
use berth_machine::ssh::ClientKey;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{lab::Incus, provider_contract::Lab};

/// Time limit for a machine to run.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// A project of the incusd, and how a provider connects to it.
#[derive(Clone)]
pub(crate) struct Project {
    incus: &'static Incus,
    cluster: String,
    name: String,
    endpoint: String,
    credentials: Option<SecretData>,
    network: Option<&'static str>,
}

impl Project {
    /// Creates a project and connects through the unix socket.
    pub(crate) fn new(incus: &'static Incus, name: &str) -> Self {
        incus.project(name);
        let (cluster, name) = ("c".to_owned(), name.to_owned());
        Self { incus, cluster, name, endpoint: incus.socket(), credentials: None, network: None }
    }

    pub(crate) fn of_cluster(&self, cluster: &str) -> Self {
        Self { cluster: cluster.into(), ..self.clone() }
    }

    /// The same connection to another project.
    pub(crate) fn named(&self, name: &str) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    pub(crate) fn over_https(&self, credentials: SecretData) -> Self {
        Self { endpoint: "https://127.0.0.1:8443".into(), credentials: Some(credentials), ..self.clone() }
    }

    /// Puts machines on another network. Their names are derived from cluster and UID, and must be unique in a network.
    pub(crate) fn on_another_network(&self) -> Self {
        Self { network: Some("incusbr1"), ..self.clone() }
    }

    pub(crate) fn spec(&self, changes: &Value) -> MachineClassSpec {
        let mut spec = json!({
            "provider": "incus",
            "image": "small",
            "parameters": {"endpoint": self.endpoint, "project": self.name},
        });
        if let Some(network) = self.network {
            spec["parameters"]["devices"] = json!({"eth0": {"type": "nic", "name": "eth0", "network": network}});
        }
        json_patch::merge(&mut spec, changes);
        serde_json::from_value(spec).unwrap()
    }

    pub(crate) fn with(&self, changes: &Value) -> Arc<dyn Provider> {
        IncusDriver::new(&self.cluster).connect(&self.spec(changes), self.credentials.as_ref()).unwrap()
    }

    pub(crate) fn connect(&self) -> Arc<dyn Provider> {
        self.with(&json!({}))
    }

    pub(crate) fn request(&self, uid: &str) -> MachineRequest {
        MachineRequest {
            owner: MachineOwner {
                cluster: self.cluster.clone(),
                namespace: "n".into(),
                name: "s".into(),
                uid: uid.into(),
            },
            image: Some("small".into()),
            flavor: None,
            ssh_port: 22,
            authorized_key: ClientKey::generate().unwrap().public_openssh().unwrap(),
        }
    }

    pub(crate) fn instance(&self, uid: &str) -> String {
        self.incus.instance_of(&self.name, uid)
    }
}

impl Lab for Project {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(IncusDriver::new(&self.cluster))
    }

    fn class(&self) -> MachineClassSpec {
        self.spec(&json!({}))
    }

    fn credentials(&self) -> Option<SecretData> {
        self.credentials.clone()
    }

    fn provider_of(&self, cluster: &str) -> Arc<dyn Provider> {
        self.of_cluster(cluster).connect()
    }

    fn with_quota(&self) -> Option<(Arc<dyn Provider>, usize)> {
        let project = format!("{}-small", self.name);
        Some((self.with(&json!({"parameters": {"project": project}})), 2))
    }

    fn broken(&self) -> Option<Arc<dyn Provider>> {
        Some(self.with(&json!({"parameters": {"project": "no-such-project"}})))
    }

    fn crash(&self, uid: &str) {
        self.incus.incus(&["stop", "--force", "--project", &self.name, &self.instance(uid)]);
    }

    fn user(&self) -> String {
        "root".into()
    }

    fn impossible(&self, mut request: MachineRequest) -> Option<MachineRequest> {
        request.image = Some("no-such-image".into());
        Some(request)
    }
}

/// Waits until the machine runs.
pub(crate) async fn running(provider: &dyn Provider, uid: &str) -> ProviderMachine {
    let deadline = Instant::now() + LIMIT;
    loop {
        let info = provider.get(uid).await.unwrap().unwrap();
        if info.phase == ProviderMachinePhase::Running {
            return info;
        }
        assert!(Instant::now() < deadline, "the machine does not run: {info:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A project for the contract, and a second one with a quota of two machines.
pub(crate) fn contract_project(incus: &'static Incus, project: &str) -> Project {
    let small = format!("{project}-small");
    incus.project(&small);
    incus.incus(&["project", "set", &small, "limits.instances=2"]);
    Project::new(incus, project).of_cluster(&contract_cluster())
}

/// The cluster that the contract uses.
pub(crate) fn contract_cluster() -> String {
    format!("contract-{}", std::process::id())
}
