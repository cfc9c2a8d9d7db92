//! Two copies of the controller share the drift checks, on a real kube-apiserver and with the rights that are shipped.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "common/context.rs"]
mod context;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_core::api::Server;
use berth_runtime::{Cache, Copies, Process, build_client};
use futures::FutureExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use replicaset_controller::drift::{DriftDetector, MachineReading};
use serde_json::json;
use tokio::time::{Instant, sleep};

use context::context;

const LIMIT: Duration = Duration::from_mins(1);
/// Between two checks of a Server, and between two renewals of a Lease.
const INTERVAL: Duration = Duration::from_secs(1);
const SERVERS: usize = 12;

/// How often each Server was checked, by copy and name.
type Checks = Arc<Mutex<BTreeMap<(&'static str, String), usize>>>;

/// A copy of the controller that checks for drift and writes down what it checks.
struct ControllerCopy {
    process: Process,
    copies: Copies,
}

impl ControllerCopy {
    async fn start(kubeconfig: &Path, instance: &'static str, checks: Checks) -> Self {
        let process = Process::default();
        let ctx = context(&process, build_client(Some(kubeconfig), Duration::from_secs(10)).await.unwrap(), instance);
        let cache = Cache::start(&ctx);
        cache.ready().await;
        let copies = Copies::start_with(&ctx, &process.tasks, INTERVAL);
        let read = move |server: Arc<Server>| {
            *checks.lock().entry((instance, server.name().to_owned())).or_default() += 1;
            let environment = server.status.as_ref().unwrap().environment.clone().unwrap();
            async move { Ok(MachineReading { environment, app: None }) }.boxed()
        };
        let drift = DriftDetector::with_reader(&ctx, Arc::new(read), &cache, INTERVAL).shared_among(&copies);
        tokio::spawn(async move { drift.run().await });
        Self { process, copies }
    }
}

async fn create_servers(control_plane: &ControlPlane) {
    let api: Api<Server> = Api::default_namespaced(control_plane.admin_client());
    for n in 0..SERVERS {
        let server = berth_testing::server(json!({
            "metadata": {"name": format!("web-{n}")},
            "spec": {"machine": {"className": "simulated"}, "packages": [{"name": "nginx", "version": "1", "apt": {}}]},
        }));
        let created = api.create(&PostParams::default(), &server).await.unwrap();
        let status = json!({
            "state": "Ready", "observedGeneration": created.metadata.generation, "machine": {"phase": "Running"},
            "environment": {"verified": true, "packages": [{"name": "nginx", "version": "1"}]},
        });
        let status = Patch::Merge(json!({"status": status}));
        api.patch_status(created.name(), &PatchParams::default(), &status).await.unwrap();
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + LIMIT;
    while let Err(state) = done().await {
        assert!(Instant::now() < deadline, "waited in vain for: {what}: {state}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until every Server was checked twice from now on. Returns which copies have checked it.
async fn checked(checks: &Checks) -> BTreeMap<String, BTreeSet<&'static str>> {
    checks.lock().clear();
    let by_server = || {
        let mut by_server: BTreeMap<String, (usize, BTreeSet<&str>)> = BTreeMap::new();
        for ((copy, server), count) in &*checks.lock() {
            let (total, copies) = by_server.entry(server.clone()).or_default();
            *total += count;
            copies.insert(copy);
        }
        by_server
    };
    until("two checks of every Server", async || {
        let found = by_server();
        let done = found.len() == SERVERS && found.values().all(|(total, _)| *total >= 2);
        if done { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    by_server().into_iter().map(|(server, (_, copies))| (server, copies)).collect()
}

async fn leases(control_plane: &ControlPlane) -> BTreeSet<String> {
    let api: Api<Lease> = Api::namespaced(control_plane.admin_client(), "berth-system");
    let list = api.list(&ListParams::default()).await.unwrap();
    list.items.into_iter().filter_map(|lease| lease.spec?.holder_identity).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_is_checked_by_one_copy_and_when_it_is_killed_by_the_other() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    control_plane.install(&deploy, None).await.unwrap();
    create_servers(&control_plane).await;
    let account = control_plane.service_account_kubeconfig("berth-system", "replicaset-controller").await.unwrap();
    let checks = Checks::default();
    let one = ControllerCopy::start(&account, "one", checks.clone()).await;

    // A copy on a runtime of its own: it is killed by dropping that, without any farewell.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let two = runtime.spawn({
        let (account, checks) = (account.clone(), checks.clone());
        async move { ControllerCopy::start(&account, "two", checks).await }
    });
    let two = two.await.unwrap();
    until("the copies see each other", async || {
        let seen = [&one, &two].map(|copy| copy.copies.others().len());
        if seen == [1, 1] { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    // Checks that began before they saw each other do not count.
    let shared = async || checked(&checks).await.into_values().all(|copies| copies.len() == 1);
    until("each Server has one copy", async || if shared().await { Ok(()) } else { Err("some have two".to_owned()) })
        .await;
    let by_copy: BTreeSet<_> = checked(&checks).await.into_values().flatten().collect();
    assert_eq!(by_copy, ["one", "two"].into(), "both have a share");
    let both = ["one", "two"].map(|copy| format!("replicaset-controller/{copy}")).into();
    assert_eq!(leases(&control_plane).await, both);

    runtime.shutdown_background();
    until("the other copy is gone", async || {
        let others = one.copies.others();
        if others.is_empty() { Ok(()) } else { Err(format!("{others:?}")) }
    })
    .await;
    let after = checked(&checks).await;
    assert!(after.values().all(|copies| *copies == ["one"].into()), "{after:?}");
    let rest = ["replicaset-controller/one".to_owned()].into();
    until("the Lease of the killed copy is removed", async || {
        let found = leases(&control_plane).await;
        if found == rest { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;

    // A copy that ends in order takes its Lease along.
    one.process.shutdown.cancel();
    one.process.tasks.close();
    one.process.tasks.wait().await;
    assert_eq!(leases(&control_plane).await, BTreeSet::new());
}
