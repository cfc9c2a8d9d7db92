//! EndpointSlices against a real kube-apiserver, written by two controllers at once.

#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use berth_control_plane::{ControlPlane, Options};
use berth_core::{
    api::{Executor, Server, ServiceBackend, TrafficPhase},
    identity::Identities,
};
use berth_runtime::{Context, ContextParts, Process, SystemClock};
use futures::{StreamExt, TryStreamExt, future::join_all};
use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointSlice},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    jiff::Timestamp,
};
use kube::{
    Api, Client, CustomResourceExt, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, conditions, wait::await_condition, watcher},
};
use lb_controller::{
    balancer::{BalancerError, LoadBalancer, Member},
    plan::Registration,
    reconcile::Traffic,
    slices::EndpointSlices,
};
use serde_json::json;

const NAMESPACE: &str = "default";
use TrafficPhase::{Draining, Held, Serving};

struct Lab {
    _cp: ControlPlane,
    client: Client,
}

impl Lab {
    async fn start() -> Self {
        let cp = ControlPlane::start(Options::default()).await.unwrap();
        let client = cp.admin_client();
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        crds.create(&PostParams::default(), &Server::crd()).await.unwrap();
        let established = await_condition(crds, Server::crd_name(), conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established).await.unwrap().unwrap();
        Self { _cp: cp, client }
    }

    /// A controller's view of the slices, with a watch of its own.
    async fn controller(&self) -> Arc<EndpointSlices> {
        let slices =
            Arc::new(EndpointSlices::new(self.client.clone(), Arc::new(Timestamp::now), Duration::from_millis(50)));
        let (observed, api) = (Arc::clone(&slices), Api::<EndpointSlice>::all(self.client.clone()));
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut ready = Some(ready);
            let mut events = watcher::watcher(api, EndpointSlices::watch_config()).default_backoff().boxed();
            while let Some(event) = events.next().await {
                let Ok(event) = event else { continue };
                observed.observe(&event);
                if matches!(event, watcher::Event::InitDone) {
                    ready.take().map(|ready| ready.send(()));
                }
            }
        });
        is_ready.await.unwrap();
        slices
    }

    /// A Server whose fact says Held, so that adding its endpoint is right.
    async fn server(&self, n: usize, address: &str) -> Server {
        let api = Api::<Server>::namespaced(self.client.clone(), NAMESPACE);
        let server: Server = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": format!("web-{n}")},
            "spec": {"machine": {"className": "c"}, "traffic": {"services": [{"name": "web", "port": 8080}]}}
        }))
        .unwrap();
        api.create(&PostParams::default(), &server).await.unwrap();
        let status = json!({"status": {
            "state": "Initializing", "machine": {"phase": "Running", "address": address},
            "traffic": {"phase": "Held", "services": [{"name": "web", "port": 8080}], "address": address}}});
        api.patch_status(&format!("web-{n}"), &PatchParams::default(), &Patch::Merge(&status)).await.unwrap()
    }

    /// A process of lb-controller that has just started.
    async fn process(&self) -> Traffic {
        let parts = ContextParts {
            client: self.client.clone(),
            executor: Executor::LbController,
            instance: "test".into(),
            identities: Identities::default(),
            clock: Arc::new(SystemClock),
            lock_duration: Duration::from_secs(30),
            concurrency: 1,
        };
        Traffic::new(&Context::new(&Process::default(), parts), &self.controller().await)
    }

    async fn status(&self, name: &str, status: serde_json::Value) -> Arc<Server> {
        let api = Api::<Server>::namespaced(self.client.clone(), NAMESPACE);
        let patch = Patch::Merge(json!({"status": status}));
        Arc::new(api.patch_status(name, &PatchParams::default(), &patch).await.unwrap())
    }

    async fn slices(&self) -> Vec<EndpointSlice> {
        let labels = ListParams::default().labels("kubernetes.io/service-name=web");
        Api::<EndpointSlice>::namespaced(self.client.clone(), NAMESPACE).list(&labels).await.unwrap().items
    }

    /// The endpoints by name of their Server; that each Server has one only is checked here.
    async fn endpoints(&self) -> BTreeMap<String, Endpoint> {
        let mut found = BTreeMap::new();
        for endpoint in self.slices().await.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default()) {
            let name = endpoint.target_ref.clone().unwrap().name.unwrap();
            assert!(found.insert(name.clone(), endpoint).is_none(), "two endpoints of {name}");
        }
        found
    }

    async fn ready(&self) -> usize {
        self.endpoints().await.values().filter(|e| e.conditions.as_ref().unwrap().ready == Some(true)).count()
    }
}

fn member(server: &Server, phase: Option<TrafficPhase>) -> Member {
    let address = server.status.as_ref().unwrap().machine.as_ref().unwrap().address.clone().unwrap();
    Member {
        namespace: NAMESPACE.into(),
        name: server.name_any(),
        uid: server.uid().unwrap(),
        version: server.resource_version().unwrap().parse().unwrap(),
        target: phase.map(|phase| Registration {
            phase,
            services: vec![ServiceBackend { name: "web".into(), port: 8080, port_name: None }],
            haproxy: Vec::new(),
            address,
        }),
        fence: false,
    }
}

/// What a later version of the Server asks for.
fn later(server: &Server, by: u64, phase: Option<TrafficPhase>) -> Member {
    let member = member(server, phase);
    Member { version: member.version + by, ..member }
}

async fn all(controllers: &[&Arc<EndpointSlices>], members: &[Member]) -> Vec<Result<(), BalancerError>> {
    join_all(controllers.iter().flat_map(|lb| members.iter().map(move |member| lb.apply(member)))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_register_release_hold_and_remove_a_fleet() {
    let lab = Lab::start().await;
    let (one, two) = (lab.controller().await, lab.controller().await);
    let both = [&one, &two];
    let servers: Vec<Server> = futures::stream::iter(0..230)
        .map(|n| {
            let lab = &lab;
            async move { Ok::<_, ()>(lab.server(n, &format!("10.0.{}.{}", n / 200, n % 200 + 1)).await) }
        })
        .buffer_unordered(16)
        .try_collect()
        .await
        .unwrap();

    // Registered by both at once: every Server once, no slice too full, few writes.
    let held: Vec<Member> = servers.iter().map(|server| member(server, Some(Held))).collect();
    for result in all(&both, &held).await {
        result.unwrap();
    }
    assert_eq!(lab.endpoints().await.len(), 230);
    let slices = lab.slices().await;
    assert!(slices.iter().all(|slice| slice.endpoints.as_ref().unwrap().len() <= 100), "a slice is too full");
    let writes: i64 = slices.iter().map(|slice| slice.metadata.generation.unwrap_or(1)).sum();
    println!("230 Servers registered by two controllers: {} slices, {writes} writes", slices.len());
    assert!(writes <= 20, "{writes} writes");
    assert_eq!(lab.ready().await, 0);
    assert!(held.iter().all(|member| one.shows(member)));

    // Released: one write a slice, though two controllers do it.
    let serving: Vec<Member> = servers.iter().map(|server| later(server, 1, Some(Serving))).collect();
    for result in all(&both, &serving).await {
        result.unwrap();
    }
    assert_eq!(lab.ready().await, 230);

    // A hold by the one is not undone by the other, who still believes in the release.
    let taken = Member { fence: true, ..later(&servers[0], 2, Some(Held)) };
    one.apply(&taken).await.unwrap();
    assert!(matches!(two.apply(&serving[0]).await, Err(BalancerError::Superseded)));
    assert_eq!(lab.ready().await, 229);

    // A fence holds also where there was nothing to change.
    let again = Member { fence: true, ..later(&servers[0], 4, Some(Held)) };
    one.apply(&again).await.unwrap();
    assert!(matches!(two.apply(&later(&servers[0], 3, Some(Serving))).await, Err(BalancerError::Superseded)));

    // Draining as Kubernetes marks it.
    one.apply(&later(&servers[1], 5, Some(Draining))).await.unwrap();
    let conditions = lab.endpoints().await[&servers[1].name_any()].conditions.clone().unwrap();
    assert_eq!((conditions.ready, conditions.serving, conditions.terminating), (Some(false), Some(true), Some(true)));

    // Removed: nothing is left but the signs of slices that were full once.
    let gone: Vec<Member> = servers.iter().map(|server| later(server, 9, None)).collect();
    for result in all(&both, &gone).await {
        result.unwrap();
    }
    assert!(lab.endpoints().await.is_empty());
    assert!(lab.slices().await.iter().all(|slice| slice.annotations().contains_key("berth.dev/closed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_our_slices_is_mended() {
    let lab = Lab::start().await;
    let lb = lab.controller().await;
    let (server, member_held) = {
        let server = lab.server(0, "10.0.0.1").await;
        let held = member(&server, Some(Held));
        (server, held)
    };
    lb.apply(&member_held).await.unwrap();
    let api = Api::<EndpointSlice>::namespaced(lab.client.clone(), NAMESPACE);
    let name = lab.slices().await[0].name_any();
    let unseen = || async {
        tokio::time::timeout(Duration::from_secs(10), async {
            while lb.shows(&member_held) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the change is seen");
    };

    api.delete(&name, &DeleteParams::default()).await.unwrap();
    unseen().await;
    lb.apply(&member_held).await.unwrap();
    assert_eq!(lab.endpoints().await.len(), 1);

    let unlabelled = json!({"metadata": {"labels": null}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&unlabelled)).await.unwrap();
    unseen().await;
    lb.apply(&member_held).await.unwrap();
    assert_eq!(lab.endpoints().await.len(), 1);

    let opened = json!([{"op": "replace", "path": "/endpoints/0/conditions/ready", "value": true},
                        {"op": "replace", "path": "/ports/0/port", "value": 22}]);
    let opened: json_patch::Patch = serde_json::from_value(opened).unwrap();
    api.patch(&name, &PatchParams::default(), &Patch::Json::<()>(opened)).await.unwrap();
    unseen().await;
    lb.apply(&member_held).await.unwrap();
    assert_eq!((lab.ready().await, lab.slices().await[0].ports.as_ref().unwrap()[0].port), (0, Some(8080)));

    // A Server that is gone gets no endpoint, however sure somebody is that it should.
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    unseen().await;
    Api::<Server>::namespaced(lab.client.clone(), NAMESPACE).delete("web-0", &DeleteParams::default()).await.unwrap();
    assert!(matches!(lb.apply(&member(&server, Some(Held))).await, Err(BalancerError::Superseded)));
    assert!(lab.endpoints().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_addresses_are_accepted_and_impossible_ones_stand_in_nobodys_way() {
    let lab = Lab::start().await;
    let lb = lab.controller().await;
    let good = member(&lab.server(0, "10.0.0.1").await, Some(Held));
    let loopback = member(&lab.server(1, "127.77.0.5").await, Some(Held));
    let impossible = member(&lab.server(2, "169.254.1.1").await, Some(Held));
    let results = join_all([lb.apply(&good), lb.apply(&loopback), lb.apply(&impossible)]).await;
    assert!(results[0].is_ok() && results[1].is_ok(), "{results:?}");
    let refusal = results[2].as_ref().unwrap_err();
    assert!(
        matches!(refusal, BalancerError::Refused { .. }) && refusal.to_string().contains("link-local"),
        "{refusal}"
    );
    let endpoints = lab.endpoints().await;
    assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["web-0", "web-1"]);
    assert_eq!(endpoints["web-1"].addresses, ["127.77.0.5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_is_made_up_for_by_the_next_process() {
    let lab = Lab::start().await;
    lab.server(0, "10.0.0.1").await;

    // The release was reported, and the process died before the endpoint was ready.
    let released = lab.status("web-0", json!({"state": "Ready", "traffic": {"phase": "Serving"}})).await;
    lab.process().await.reconcile(released.clone()).await.unwrap();
    assert_eq!(lab.ready().await, 1);

    // An older process that wakes up late does no harm.
    let late = lab.process().await;
    let left = lab.status("web-0", json!({"state": "Deploying"})).await;
    lab.process().await.reconcile(left).await.unwrap();
    late.reconcile(released).await.unwrap();
    assert_eq!(lab.ready().await, 0, "the Server has left Ready");
}
