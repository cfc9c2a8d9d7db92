//! A VMDeployment of many Servers, watched from outside.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_core::api::{MachineClass, Server, VMDeployment, VMReplicaSet};
use berth_tests::{Berth, eventually};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::Object,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::reference::{created_per_second, until};

/// Much longer than expected, so that only a bench that hangs is ended by it.
const LIMIT: Duration = Duration::from_mins(10);

/// A Server of which only the state is decoded, so that the bench costs little.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Spec {}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Status {
    state: Option<String>,
    #[serde(rename = "waitingFor")]
    waiting_for: Option<String>,
    app: Option<AppStatus>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct AppStatus {
    revision: String,
}

/// What the watches have shown so far.
#[derive(Default)]
struct FleetProgress {
    /// The revision of each Server that is Ready and waits for nothing; none for one that is not.
    servers: HashMap<String, Option<String>>,
    all_ready_at: Option<Instant>,
    empty_at: Option<Instant>,
    set_writes: Vec<Instant>,
}

pub(crate) struct Fleet {
    client: Client,
    namespace: String,
    size: usize,
    begin: Instant,
    progress: Arc<Mutex<FleetProgress>>,
    watches: Vec<JoinHandle<()>>,
}

/// Listens on one port of every loopback address, for probes.
pub(crate) async fn listen() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            // The probe only connects, and closes the connection.
            let _ = listener.accept().await;
        }
    });
    port
}

/// Creates a VMReplicaSet of `size` Servers that declare only a machine, waits for them, and removes it. Returns the Servers
/// created per second.
pub(crate) async fn smallest_per_second(berth: &Berth, size: usize, port: u16) -> f64 {
    let client = berth.client();
    prepare(&client, "smallest", port).await;
    let sets: Api<VMReplicaSet> = Api::namespaced(client.clone(), "smallest");
    let template = json!({"spec": {"machine": {"className": format!("simulated-{port}")}}});
    let set = berth_testing::replica_set(json!({
        "metadata": {"name": "fleet", "namespace": "smallest"}, "spec": {"replicas": size, "template": template},
    }));
    let servers: Api<Server> = Api::namespaced(client, "smallest");
    created_per_second(&sets, &set, &servers, size).await
}

impl Fleet {
    /// Declares a VMDeployment of `size` Servers behind a Service, in a namespace of its own.
    pub(crate) async fn declare(berth: &Berth, namespace: &str, size: usize, port: u16) -> Self {
        let backend = json!({"service": "fleet", "port": 8080, "portName": "http"});
        Self::create(berth, namespace, size, port, vec![backend]).await
    }

    /// The same without a load balancer.
    pub(crate) async fn declare_without_balancer(berth: &Berth, namespace: &str, size: usize, port: u16) -> Self {
        Self::create(berth, namespace, size, port, Vec::new()).await
    }

    /// The same in the backend `web` of a class.
    pub(crate) async fn declare_behind_class(
        berth: &Berth,
        namespace: &str,
        size: usize,
        port: u16,
        class: &str,
    ) -> Self {
        let backend = json!({"class": class, "name": "web", "port": 8080});
        Self::create(berth, namespace, size, port, vec![backend]).await
    }

    async fn create(berth: &Berth, namespace: &str, size: usize, port: u16, backends: Vec<Value>) -> Self {
        let client = berth.client();
        prepare(&client, namespace, port).await;
        let progress: Arc<Mutex<FleetProgress>> = Arc::default();
        let watches = vec![watch_set(&client, namespace, &progress)];
        let deployments: Api<VMDeployment> = Api::namespaced(client.clone(), namespace);
        let digest = "a".repeat(64);
        let deployment = berth_testing::deployment(json!({
            "metadata": {"name": "fleet", "namespace": namespace},
            "spec": {
                "replicas": size,
                "template": {"spec": {
                    "machine": {"className": format!("simulated-{port}")},
                    "packages": [{"name": "tool", "version": "1", "archive": {"url": "http://127.0.0.1/tool.tar", "sha256": digest}}],
                    "healthCheck": {"tcpSocket": {"port": port}, "periodSeconds": 30, "successThreshold": 1},
                    "reachability": {"periodSeconds": 30},
                    "traffic": {"backends": backends, "drain": {"seconds": 0}},
                    "monitoring": {"port": 8080, "path": "/metrics"}
                }},
                "app": {"name": "fleet", "revision": "1", "command": "run", "artifact": {"url": "http://127.0.0.1/app.tar", "sha256": digest}}
            }
        }));
        let begin = Instant::now();
        deployments.create(&PostParams::default(), &deployment).await.unwrap();
        Self { client, namespace: namespace.to_owned(), size, begin, progress, watches }
    }

    /// The time until all Servers existed. They are counted as the reference's pods are.
    pub(crate) async fn created(&self) -> Duration {
        until(&Api::<Server>::namespaced(self.client.clone(), &self.namespace), self.size).await;
        self.begin.elapsed()
    }

    /// The time until all Servers were Ready. Starts the watch of them, so that it can be called only once.
    pub(crate) async fn ready(&mut self) -> Duration {
        self.watches.push(watch_servers(&self.client, &self.namespace, self.size, &self.progress));
        self.wait("Ready", |progress| progress.all_ready_at).await
    }

    async fn wait(&self, what: &str, done: impl Fn(&FleetProgress) -> Option<Instant>) -> Duration {
        let at = eventually(format!("{} Servers {what}", self.size), LIMIT, async || {
            let progress = self.progress.lock();
            let ready = progress.servers.values().flatten().count();
            done(&progress).ok_or_else(|| format!("{} Servers, {ready} Ready", progress.servers.len()))
        });
        at.await.unwrap() - self.begin
    }

    /// One of the Servers, as it is now.
    pub(crate) async fn one(&self) -> Server {
        let servers: Api<Server> = Api::namespaced(self.client.clone(), &self.namespace);
        servers.get("fleet-0").await.unwrap()
    }

    /// Waits until the statuses of set and deployment are up to date and nothing is written any more.
    pub(crate) async fn settled(&self) {
        let deployments: Api<VMDeployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let wanted = i32::try_from(self.size).unwrap();
        eventually("the status of the VMDeployment", LIMIT, async || {
            // Listed, because reads of single objects are counted as Berth's.
            let found = deployments.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            let status = found.items.into_iter().next().and_then(|found| found.status).unwrap_or_default();
            let last = self.progress.lock().set_writes.last().map(Instant::elapsed).unwrap_or_default();
            let rests = status.ready_replicas == wanted && last > Duration::from_secs(3);
            if rests { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await
        .unwrap();
    }

    /// Declares another revision, rolled out to all Servers at once, and returns the time until all are Ready with it.
    pub(crate) async fn deploy(&self, revision: &str) -> Duration {
        self.deploy_to(revision, self.size).await
    }

    /// The same for so many of the Servers.
    pub(crate) async fn deploy_to(&self, revision: &str, count: usize) -> Duration {
        let deployments: Api<VMDeployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = json!({"spec": {
            "app": {"revision": revision, "artifact": {"sha256": "b".repeat(64)}},
            "updateStrategy": {"maxUnavailable": "100%"},
            "rollout": {"partition": self.size - count},
        }});
        let begin = Instant::now();
        deployments.patch("fleet", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        self.wait(&format!("Ready with revision {revision}"), |progress| {
            let have = progress.servers.values().filter(|of| of.as_deref() == Some(revision)).count();
            (have == count).then(Instant::now)
        })
        .await;
        begin.elapsed()
    }

    /// Writes to the set, per second between the first and the last.
    pub(crate) fn set_writes_per_second(&self) -> f64 {
        let progress = self.progress.lock();
        match (progress.set_writes.first(), progress.set_writes.last()) {
            (Some(first), Some(last)) => progress.set_writes.len() as f64 / (*last - *first).as_secs_f64().max(1.0),
            _ => 0.0,
        }
    }

    /// Scales to zero, and returns the time until the last Server was gone.
    pub(crate) async fn scale_to_nothing(&self) -> Duration {
        let deployments: Api<VMDeployment> = Api::namespaced(self.client.clone(), &self.namespace);
        self.progress.lock().empty_at = None;
        let begin = Instant::now();
        let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
        deployments.patch("fleet", &PatchParams::default(), &patch).await.unwrap();
        self.wait("gone", |progress| progress.empty_at).await;
        self.progress.lock().empty_at.unwrap() - begin
    }

    /// Deletes the fleet, and waits until it is gone.
    pub(crate) async fn delete(self) {
        let deployments: Api<VMDeployment> = Api::namespaced(self.client.clone(), &self.namespace);
        deployments.delete("fleet", &DeleteParams::foreground()).await.unwrap();
        if !self.progress.lock().servers.is_empty() {
            self.wait("gone", |progress| progress.empty_at).await;
        }
        self.forget();
    }

    /// Ends the watches.
    pub(crate) fn forget(self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

async fn prepare(client: &Client, namespace: &str, port: u16) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in [namespace, "bare"] {
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let created = namespaces.create(&PostParams::default(), &object).await;
        assert!(created.is_ok() || name == "bare", "{created:?}");
    }
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service =
        json!({"metadata": {"name": "fleet"}, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let classes: Api<MachineClass> = Api::all(client.clone());
    let class = berth_testing::machine_class(json!({
        "metadata": {"name": format!("simulated-{port}")},
        "spec": {"provider": "simulated", "access": {"user": "berth", "port": port, "root": "opt/berth"}}
    }));
    let _ = classes.create(&PostParams::default(), &class).await;
}

fn watch_servers(
    client: &Client,
    namespace: &str,
    size: usize,
    progress: &Arc<Mutex<FleetProgress>>,
) -> JoinHandle<()> {
    let resource = kube::core::ApiResource::erase::<berth_core::api::Server>(&());
    let api: Api<Object<Spec, Status>> = Api::namespaced_with(client.clone(), namespace, &resource);
    let progress = progress.clone();
    tokio::spawn(async move {
        let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            let mut progress = progress.lock();
            match event {
                Ok(Event::Apply(server) | Event::InitApply(server)) => {
                    let status = server.status.as_ref();
                    let ready = status.is_some_and(|s| s.state.as_deref() == Some("Ready") && s.waiting_for.is_none());
                    let revision = status.and_then(|s| s.app.as_ref()).map(|app| app.revision.clone());
                    progress.servers.insert(server.name_any(), ready.then_some(revision.unwrap_or_default()));
                }
                Ok(Event::Delete(server)) => {
                    progress.servers.remove(&server.name_any());
                }
                _ => continue,
            }
            progress.record(size);
        }
    })
}

impl FleetProgress {
    fn record(&mut self, size: usize) {
        let (count, now) = (self.servers.len(), Instant::now());
        if count == size && self.all_ready_at.is_none() && self.servers.values().all(Option::is_some) {
            self.all_ready_at = Some(now);
        }
        if count == 0 {
            self.empty_at = Some(now);
        }
    }
}

fn watch_set(client: &Client, namespace: &str, progress: &Arc<Mutex<FleetProgress>>) -> JoinHandle<()> {
    let api: Api<VMReplicaSet> = Api::namespaced(client.clone(), namespace);
    let progress = progress.clone();
    tokio::spawn(async move {
        let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            if matches!(event, Ok(Event::Apply(_))) {
                progress.lock().set_writes.push(Instant::now());
            }
        }
    })
}
