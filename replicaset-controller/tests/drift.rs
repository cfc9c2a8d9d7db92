//! Drift, with a real kube-apiserver and simulated machines. There is no webhook: the test sets the state of Servers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "common/context.rs"]
mod context;

use std::{path::Path, sync::Arc, time::Duration};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_core::{
    api::{EnvironmentFact, Executor, Server, State, VMReplicaSet},
    identity::{Author, Identities},
    lifecycle::admit_status,
};
use berth_iaas::simulated::{SimulatedConnector, SimulatedMachines};
use berth_machine::{
    SshConnector,
    app::AppStatus,
    ssh::{ClientKey, PoolConfig, SshPool},
};
use berth_runtime::{Cache, Context, Process, ServerCache};
use berth_testing::{FakeMachine, FakePackage, MachineFault};
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use replicaset_controller::{
    drift::{DriftDetector, DriftReport, MachineReading},
    server::tasks::TaskContext,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use context::context;

const LIMIT: Duration = Duration::from_mins(1);
const INTERVAL: Duration = Duration::from_secs(1);

struct Lab {
    _control_plane: ControlPlane,
    process: Process,
    ctx: Context,
    servers: Api<Server>,
    cache: ServerCache,
    machines: SimulatedMachines,
}

impl Lab {
    async fn start() -> Self {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        control_plane.install(&deploy, None).await.unwrap();
        let servers = Api::default_namespaced(control_plane.admin_client());
        let process = Process::default();
        // With the rights that are shipped.
        let account = control_plane.service_account_client("berth-system", "replicaset-controller");
        let ctx = context(&process, account.await.unwrap(), "one");
        let cache = Cache::start(&ctx);
        cache.ready().await;
        Self { _control_plane: control_plane, process, ctx, servers, cache, machines: SimulatedMachines::default() }
    }

    fn drift(&self) -> DriftDetector {
        let key = ClientKey::generate().unwrap();
        let authorized_key = key.public_openssh().unwrap();
        let ssh = Arc::new(SshConnector::new(SshPool::new(key, PoolConfig::default())));
        let connector = Arc::new(SimulatedConnector::new(self.machines.clone(), ssh));
        let tasks = TaskContext { connector, authorized_key, cluster: "test".into() };
        let drift = DriftDetector::new(&self.ctx, tasks, &self.cache, INTERVAL);
        tokio::spawn({
            let drift = drift.clone();
            async move { drift.run().await }
        });
        drift
    }

    /// A Ready Server with a machine that is as the Server says.
    async fn create(&self, name: &str, set: Option<&str>) -> FakeMachine {
        let owner = match set {
            Some(set) => Some(self.create_set(set).await),
            None => None,
        };
        let server = berth_testing::server(json!({
            "metadata": {"name": name, "ownerReferences": owner.into_iter().collect::<Vec<_>>()},
            "spec": {"machine": {"className": "simulated"}, "packages": [{"name": "nginx", "version": "1", "apt": {}}]},
        }));
        let created = self.servers.create(&PostParams::default(), &server).await.unwrap();
        let host_key = ClientKey::generate().unwrap().public_openssh().unwrap();
        let status = json!({
            "state": "Ready", "observedGeneration": created.metadata.generation,
            "machine": {"phase": "Running", "provider": "simulated", "id": name, "address": "127.0.0.1", "bootID": "fake-0",
                        "ssh": {"port": 22, "user": "root", "hostKey": host_key, "root": "/opt/berth"}},
            "environment": {"verified": true, "packages": [{"name": "nginx", "version": "1"}]},
        });
        let machine = self.machines.of_server(name);
        install(&machine);
        self.write(name, json!({"status": status})).await;
        machine
    }

    /// A set that no controller reconciles, as an owner reference.
    async fn create_set(&self, name: &str) -> Value {
        let set = berth_testing::replica_set(json!({"metadata": {"name": name}, "spec": {"replicas": 0}}));
        let sets: Api<VMReplicaSet> = Api::default_namespaced(self.servers.clone().into_client());
        let created = sets.create(&PostParams::default(), &set).await.unwrap();
        serde_json::to_value(created.controller_owner_ref(&()).unwrap()).unwrap()
    }

    async fn write(&self, name: &str, patch: Value) {
        let patched = self.servers.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        self.cache.catch_up_with(&patched).await;
    }

    async fn get(&self, name: &str) -> Server {
        self.servers.get(name).await.unwrap()
    }

    async fn packages(&self, name: &str) -> usize {
        self.get(name).await.status.unwrap().environment.unwrap().packages.len()
    }

    fn count(&self, result: &str) -> u64 {
        let text = self.process.metrics.encode().unwrap();
        let line = format!("berth_drift_checks_total{{result=\"{result}\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }

    /// Waits until another check has ended with this result.
    async fn checked(&self, result: &str) {
        let before = self.count(result);
        until(result, || self.count(result) > before).await;
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn install(machine: &FakeMachine) {
    let package = FakePackage { version: Some("1".to_owned()), held: true, mark: Some(true) };
    machine.change(|state| drop(state.managed.insert(("apt".into(), "nginx".into()), package)));
}

fn remove(machine: &FakeMachine) {
    machine.change(|state| state.managed.clear());
}

async fn next(notifications: &mut BoxStream<'static, kube::runtime::reflector::ObjectRef<VMReplicaSet>>) {
    let set = timeout(LIMIT, notifications.next()).await.unwrap().unwrap();
    assert_eq!((set.name.as_str(), set.namespace.as_deref()), ("web", Some("default")));
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_remembered_without_a_write_until_it_is_reported_or_gone() {
    let lab = Lab::start().await;
    let machine = lab.create("web-1", Some("web")).await;
    let before = lab.get("web-1").await;
    let drift = lab.drift();
    let mut notifications = drift.notifications().boxed();
    lab.checked("matches").await;
    assert_eq!(drift.difference(&before), None);

    remove(&machine);
    next(&mut notifications).await;
    assert_eq!(drift.difference(&before).as_deref(), Some("nginx 1 is missing"));
    // A machine that cannot be read proves nothing.
    machine.fail_always(Some(MachineFault::Unreachable));
    lab.checked("failed").await;
    assert!(drift.difference(&before).is_some());
    machine.fail_always(None);
    install(&machine);
    until("the drift is forgotten", || drift.difference(&before).is_none()).await;
    assert_eq!(lab.get("web-1").await.resource_version(), before.resource_version(), "nothing was written");

    remove(&machine);
    until("it is found again", || drift.difference(&before).is_some()).await;
    // The drift is gone before it was reported.
    install(&machine);
    assert_eq!(drift.report_now(&before).await.unwrap(), DriftReport::NoDrift);
    remove(&machine);
    assert_eq!(drift.report_now(&before).await.unwrap(), DriftReport::Written);
    assert_eq!(lab.packages("web-1").await, 0);

    // The webhook's decision on that write.
    let after = lab.get("web-1").await;
    let (ids, now) = (Identities::default(), Timestamp::now());
    let author = Author::new(ids.username(Executor::ReplicasetController));
    let admitted = admit_status(&before, after, &author, &ids, now).unwrap();
    assert_eq!(admitted.status.unwrap().state, Some(State::Initializing));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_another_application_runs_than_was_deployed_everything_is_read_back() {
    let lab = Lab::start().await;
    lab.create("web-1", Some("web")).await;
    let artifact = json!({"url": "http://127.0.0.1/a", "sha256": "a".repeat(64)});
    let app = json!({"spec": {"app": {"name": "web", "revision": "v1", "command": "./run", "artifact": artifact}}});
    let patched = lab.servers.patch("web-1", &PatchParams::default(), &Patch::Merge(app)).await.unwrap();
    let digest = patched.spec.app_digest();
    let fact = json!({"revision": "v1", "digest": digest, "verified": true});
    lab.write("web-1", json!({"status": {"observedGeneration": patched.metadata.generation, "app": fact}})).await;
    let before = lab.get("web-1").await;
    let detector = |digest: Option<String>| {
        let app = AppStatus { revision: Some("v1".into()), digest, running: true, ..AppStatus::default() };
        let environment = before.status.as_ref().unwrap().environment.clone().unwrap();
        let reading = MachineReading { environment, app: Some(app) };
        let read = move |_: Arc<Server>| {
            let reading = reading.clone();
            async move { Ok(reading) }.boxed()
        };
        DriftDetector::with_reader(&lab.ctx, Arc::new(read), &lab.cache, Duration::ZERO)
    };
    assert_eq!(detector(digest).report_now(&before).await.unwrap(), DriftReport::NoDrift);
    assert_eq!(detector(Some("other".into())).report_now(&before).await.unwrap(), DriftReport::Written);
    let after = lab.get("web-1").await;
    assert!(!after.status.as_ref().unwrap().environment.as_ref().unwrap().verified);
    // The webhook's decision on that write.
    let (ids, now) = (Identities::default(), Timestamp::now());
    let author = Author::new(ids.username(Executor::ReplicasetController));
    let decided = admit_status(&before, after, &author, &ids, now).unwrap().status.unwrap();
    assert_eq!((decided.state, decided.app.unwrap().verified), (Some(State::Initializing), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drift_of_a_server_without_a_set_is_reported_at_once() {
    let lab = Lab::start().await;
    let machine = lab.create("lonely", None).await;
    let _drift = lab.drift();
    lab.checked("matches").await;
    assert_eq!(lab.packages("lonely").await, 1);
    remove(&machine);
    let deadline = Instant::now() + LIMIT;
    while lab.packages("lonely").await > 0 {
        assert!(Instant::now() < deadline, "it is not reported");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_a_task_changes_is_neither_checked_nor_reported() {
    let lab = Lab::start().await;
    let machine = lab.create("web-1", Some("web")).await;
    remove(&machine);
    let before = lab.get("web-1").await;
    let lock = json!({"holder": "h", "taskID": 1, "acquiredAt": "2026-01-01T00:00:00Z",
                      "renewedAt": "2026-01-01T00:00:00Z", "durationSeconds": 30});
    // The lock is taken while the machine is being read.
    let (servers, taken) = (lab.servers.clone(), json!({"status": {"lock": lock}}));
    let reads = Arc::new(move |_: Arc<Server>| {
        let (servers, taken) = (servers.clone(), taken.clone());
        async move {
            servers.patch_status("web-1", &PatchParams::default(), &Patch::Merge(taken)).await.unwrap();
            let environment = EnvironmentFact { verified: true, packages: Vec::new() };
            Ok(MachineReading { environment, app: None })
        }
        .boxed()
    });
    let drift = DriftDetector::with_reader(&lab.ctx, reads, &lab.cache, Duration::ZERO);
    assert_eq!(drift.report_now(&before).await.unwrap(), DriftReport::NotWritten);
    assert_eq!(lab.packages("web-1").await, 1);
    let locked = lab.get("web-1").await;
    lab.cache.catch_up_with(&locked).await;
    assert_eq!(drift.report_now(&locked).await.unwrap(), DriftReport::NoDrift, "its machine is not checked");
}
