//! A real kube-apiserver with Servers, and copies of lb-controller's parts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_core::{
    api::{Executor, Server, TrafficPhase},
    identity::Identities,
};
use berth_runtime::{Cache, CacheOptions, Context, ContextParts, Process, SystemClock};
use futures::{
    channel::mpsc::{self, UnboundedReceiver},
    future::join_all,
};
use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointSlice},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResourceExt, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use lb_controller::{
    balancer::{BalancerError, LoadBalancer},
    balancers::{Balancers, Observations},
    endpoint_slices::{EndpointSlices, PanicFloor},
    kept::KeptServers,
    member::{Member, Registration, ServerRef, ServiceBackend, ServicePort},
    panic_floor::PanicThreshold,
    reconcile::TrafficReconciler,
    subsets::Subsets,
};
use serde_json::json;

pub(crate) const NAMESPACE: &str = "default";
const BATCH_WINDOW: Duration = Duration::from_millis(50);
pub(crate) struct Lab {
    _cp: ControlPlane,
    pub(crate) client: Client,
}

/// The parts of a copy of lb-controller.
pub(crate) struct LbCopy {
    pub(crate) slices: Arc<EndpointSlices>,
    pub(crate) reconciler: TrafficReconciler,
    pub(crate) servers: Cache<Server>,
    /// The Servers that are to be reconciled although they have not changed.
    pub(crate) changes: UnboundedReceiver<ServerRef>,
    pub(crate) kept: Arc<KeptServers>,
    /// The Servers that may be gone.
    pub(crate) suspects: UnboundedReceiver<ServerRef>,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        let cp = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
        let client = cp.admin_client();
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        crds.create(&PostParams::default(), &Server::crd()).await.unwrap();
        let established = await_condition(crds, Server::crd_name(), conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established).await.unwrap().unwrap();
        Self { _cp: cp, client }
    }

    pub(crate) fn context(&self, process: &Process) -> Context {
        let parts = ContextParts {
            client: self.client.clone(),
            executor: Executor::LbController,
            instance: "test".into(),
            identities: Identities::default(),
            clock: Arc::new(SystemClock),
            lock_duration: Duration::from_secs(30),
            concurrency: 1,
        };
        Context::new(process, parts)
    }

    /// A load balancer with a watch of its own, as another copy of lb-controller has it.
    pub(crate) async fn load_balancer(&self) -> Arc<EndpointSlices> {
        self.copy().await.slices
    }

    /// The reconciler of a copy of lb-controller that has just started.
    pub(crate) async fn reconciler(&self) -> TrafficReconciler {
        self.copy().await.reconciler
    }

    /// A copy of lb-controller that has just started.
    pub(crate) async fn copy(&self) -> LbCopy {
        let process = Process::default();
        let ctx = self.context(&process);
        let servers = Cache::start_with(&ctx, CacheOptions::servers_with_state());
        let kept = Arc::new(KeptServers::default());
        let floor = PanicFloor { default: PanicThreshold::DEFAULT, servers: servers.clone(), kept: Arc::clone(&kept) };
        let slices = Arc::new(EndpointSlices::new(&ctx, BATCH_WINDOW, floor, Subsets::default()));
        let balancers = Balancers::new([slices.clone() as Arc<dyn LoadBalancer>]);
        let Observations { changes, synced } = balancers.start(&ctx, &process);
        synced.await;
        servers.ready().await;
        let (suspect, suspects) = mpsc::unbounded();
        let reconciler = TrafficReconciler::new(&ctx, &balancers, &kept, &Subsets::default(), suspect);
        LbCopy { slices, reconciler, servers, changes, kept, suspects }
    }

    /// A Server whose fact says Held, so that adding its endpoint is right.
    pub(crate) async fn server(&self, n: usize, address: &str) -> Server {
        let api = Api::<Server>::namespaced(self.client.clone(), NAMESPACE);
        let server = berth_testing::server(json!({
            "metadata": {"name": format!("web-{n}")},
            "spec": {"traffic": {"backends": [{"service": "web", "port": 8080}]}}
        }));
        api.create(&PostParams::default(), &server).await.unwrap();
        let status = json!({"status": {
            "state": "Initializing", "machine": {"phase": "Running", "address": address},
            "traffic": {"phase": "Held", "backends": [{"service": "web", "port": 8080}], "address": address}}});
        api.patch_status(&format!("web-{n}"), &PatchParams::default(), &Patch::Merge(&status)).await.unwrap()
    }

    pub(crate) async fn status(&self, name: &str, status: serde_json::Value) -> Arc<Server> {
        let api = Api::<Server>::namespaced(self.client.clone(), NAMESPACE);
        let patch = Patch::Merge(json!({"status": status}));
        Arc::new(api.patch_status(name, &PatchParams::default(), &patch).await.unwrap())
    }

    pub(crate) async fn slices(&self) -> Vec<EndpointSlice> {
        let labels = ListParams::default().labels("kubernetes.io/service-name=web");
        Api::<EndpointSlice>::namespaced(self.client.clone(), NAMESPACE).list(&labels).await.unwrap().items
    }

    /// The endpoints by the name of their Server. Checks that no Server has two.
    pub(crate) async fn endpoints(&self) -> BTreeMap<String, Endpoint> {
        let mut found = BTreeMap::new();
        for endpoint in self.slices().await.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default()) {
            let name = endpoint.target_ref.clone().unwrap().name.unwrap();
            assert!(found.insert(name.clone(), endpoint).is_none(), "two endpoints of {name}");
        }
        found
    }

    pub(crate) async fn ready(&self) -> usize {
        self.endpoints().await.values().filter(|e| e.conditions.as_ref().unwrap().ready == Some(true)).count()
    }
}

pub(crate) fn member(server: &Server, phase: Option<TrafficPhase>) -> Member {
    let address = server.address().unwrap().to_owned();
    Member {
        server: ServerRef::of(server),
        version: server.resource_version().unwrap().parse().unwrap(),
        desired: phase.map(|phase| Registration {
            phase,
            services: vec![ServiceBackend {
                name: "web".into(),
                ports: vec![ServicePort { name: String::new(), port: 8080 }],
                subset: None,
            }],
            classes: Vec::new(),
            left: Vec::new(),
            address,
        }),
        must_record_version: false,
        held_for: None,
    }
}

/// What is decided on a later version of the Server.
pub(crate) fn later(server: &Server, by: u64, phase: Option<TrafficPhase>) -> Member {
    let member = member(server, phase);
    Member { version: member.version + by, ..member }
}

pub(crate) async fn apply_all(
    balancers: &[&Arc<EndpointSlices>],
    members: &[Member],
) -> Vec<Result<(), BalancerError>> {
    join_all(balancers.iter().flat_map(|lb| members.iter().map(move |member| lb.apply(member)))).await
}
