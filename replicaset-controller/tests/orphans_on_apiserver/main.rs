//! Machines without a Server, and MachineClasses, against a real kube-apiserver with the rights that are shipped.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod drivers;

#[path = "../common/context.rs"]
mod context;
#[path = "../common/object.rs"]
mod object;

use std::{collections::BTreeMap, future::Future, path::Path, sync::Arc, time::Duration};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_core::{
    api::{MachineClass, Outcome, Server, TaskKind},
    protocol::TaskResult,
};
use berth_iaas::{
    CallLimits, Classes, Drivers, MachineOwner, MachineRequest,
    simulated::{SimulatedMachines, Simulation},
};
use berth_machine::{Connector, MachineConnection, NotConnectable};
use berth_runtime::{Cache, CacheOptions, Context, Process};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use replicaset_controller::{
    cluster::identity,
    orphans::OrphanCollector,
    server::tasks::{TaskContext, acquire, carry_out},
    set::machines::{ClassMachines, MachineSource as _},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use drivers::{Bound, Guarded};

use context::context;
use object::object;

const LIMIT: Duration = Duration::from_mins(1);
const CLUSTER: &str = "here";
const PERIOD: Duration = Duration::from_mins(10);

struct Lab {
    control_plane: ControlPlane,
    admin: Client,
    ctx: Context,
    simulation: Simulation,
    classes: Classes,
    orphans: OrphanCollector,
}

impl Lab {
    async fn start() -> Self {
        Self::start_with(Simulation::new(SimulatedMachines::default())).await
    }

    async fn start_with(simulation: Simulation) -> Self {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        control_plane.install(&deploy, None).await.unwrap();
        let account = control_plane.service_account_client("berth-system", "replicaset-controller");
        let ctx = context(&Process::default(), account.await.unwrap(), "a");
        let cache: Cache<MachineClass> = Cache::start_with(&ctx, CacheOptions::default().keep_change_times());
        cache.ready().await;
        let providers = Drivers::default()
            .with("simulated", Arc::new(simulation.clone()))
            .with("bound", Arc::new(Bound(simulation.clone())))
            .with("guarded", Arc::new(Guarded(simulation.clone())));
        let classes = Classes::new(&ctx, &cache, providers, CallLimits::default(), 8);
        let orphans = OrphanCollector::new(&ctx, &classes, CLUSTER, PERIOD);
        // The first mark: machines that are created from now on may become orphans.
        orphans.collect().await;
        let admin = control_plane.admin_client();
        Self { control_plane, admin, ctx, simulation, classes, orphans }
    }

    /// Creates or changes the class, and waits until the controller's cache shows it.
    async fn class(&self, name: &str, spec: Value) {
        let api: Api<MachineClass> = Api::all(self.admin.clone());
        let class = object(name, &spec);
        let made = match api.get_opt(name).await.unwrap() {
            None => api.create(&PostParams::default(), &class).await.unwrap(),
            Some(_) => {
                let patch = Patch::Merge(json!({"spec": serde_json::to_value(&class.spec).unwrap()}));
                api.patch(name, &PatchParams::default(), &patch).await.unwrap()
            }
        };
        until("the cache shows the class", || async {
            self.classes.get(name).is_some_and(|seen| seen.metadata.resource_version == made.metadata.resource_version)
        })
        .await;
    }

    async fn server(&self, name: &str, class: &str) -> String {
        let api: Api<Server> = Api::default_namespaced(self.admin.clone());
        let server: Server = object(name, &json!({"machine": {"className": class}}));
        api.create(&PostParams::default(), &server).await.unwrap().uid().to_owned()
    }

    /// A machine in the account of the class.
    async fn machine(&self, class: &str, cluster: &str, uid: &str) {
        let owner =
            MachineOwner { cluster: cluster.into(), namespace: "default".into(), name: "s".into(), uid: uid.into() };
        let request = MachineRequest { owner, image: None, flavor: None, ssh_port: 22, authorized_key: String::new() };
        let (_, connection) = self.classes.connection(class).await.unwrap();
        connection.provider.create(&request).await.unwrap();
    }

    /// The UIDs of the Servers whose machines the class's provider lists.
    async fn machines(&self, class: &str, cluster: &str) -> Vec<String> {
        let (_, connection) = self.classes.connection(class).await.unwrap();
        let mut uids: Vec<String> =
            connection.provider.list(cluster).await.unwrap().into_iter().map(|info| info.owner.uid).collect();
        uids.sort();
        uids
    }

    /// Reasons and notes of the Events about a class.
    async fn events(&self, class: &str) -> BTreeMap<String, String> {
        let api: Api<Event> = Api::all(self.admin.clone());
        let all = api.list(&ListParams::default()).await.unwrap().items.into_iter();
        let own = all.filter(|event| event.involved_object.name.as_deref() == Some(class));
        own.map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default())).collect()
    }

    async fn event(&self, class: &str, reason: &str) -> String {
        until(&format!("Event {reason} about {class}"), || async { self.events(class).await.contains_key(reason) })
            .await;
        self.events(class).await[reason].clone()
    }

    /// Waits until the class is usable, or not for this reason, and returns the message.
    async fn problem(&self, class: &str, reason: &str) -> String {
        let found = || async { self.classes.usable(class).await.err() };
        until(&format!("{class}: {reason:?}"), || async { found().await.map_or("", |p| p.reason) == reason }).await;
        found().await.map(|problem| problem.message).unwrap_or_default()
    }
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_and_orphans() {
    let lab = Lab::start().await;
    only_orphans_are_destroyed_and_only_after_their_grace(&lab).await;
    orphans_are_only_reported_if_a_class_that_lists_them_says_so(&lab).await;
    too_many_orphans_are_left_to_a_person_who_may_raise_the_limit(&lab).await;
    after_a_restore_of_etcd_newer_machines_are_only_reported(&lab).await;
    a_machine_is_only_found_and_destroyed_at_its_place(&lab).await;
    a_class_is_unusable_with_a_reason_until_it_is_corrected(&lab).await;
    lab.control_plane.stop().await.unwrap();
}

async fn only_orphans_are_destroyed_and_only_after_their_grace(lab: &Lab) {
    let spec = |grace: i32| {
        json!({"provider": "simulated", "orphanPolicy": "Delete", "orphanGraceSeconds": grace,
            "parameters": {"account": "delete"}})
    };
    lab.class("delete", spec(3600)).await;
    let uid = lab.server("kept", "delete").await;
    let gone = lab.server("gone", "delete").await;
    for uid in [uid.as_str(), gone.as_str(), "never-known"] {
        lab.machine("delete", CLUSTER, uid).await;
    }
    lab.machine("delete", "elsewhere", "foreign").await;
    let servers: Api<Server> = Api::default_namespaced(lab.admin.clone());
    servers.delete("gone", &DeleteParams::default()).await.unwrap();
    until("the Server is gone", || async { servers.get_opt("gone").await.unwrap().is_none() }).await;

    lab.orphans.collect().await;
    assert_eq!(lab.machines("delete", CLUSTER).await.len(), 3, "all are younger than the grace");
    lab.class("delete", spec(1)).await;
    sleep(Duration::from_millis(1100)).await;
    // Several controllers may collect at once.
    tokio::join!(lab.orphans.collect(), lab.orphans.collect());
    assert_eq!(lab.machines("delete", CLUSTER).await, std::slice::from_ref(&uid));
    assert_eq!(lab.machines("delete", "elsewhere").await, ["foreign"]);
    let note = lab.event("delete", "OrphanDestroyed").await;
    assert!(note.starts_with("destroyed the machine ") && note.contains("default/s"), "{note}");
    lab.orphans.collect().await;
    assert_eq!(lab.machines("delete", CLUSTER).await, [uid], "the machine of a Server is no orphan");
}

async fn orphans_are_only_reported_if_a_class_that_lists_them_says_so(lab: &Lab) {
    let parameters = json!({"account": "report"});
    let spec =
        json!({"provider": "simulated", "orphanGraceSeconds": 0, "orphanPolicy": "Report", "parameters": parameters});
    lab.class("report", spec).await;
    lab.machine("report", CLUSTER, "lost").await;
    // Another class that lists the same machines and would destroy them.
    let bolder =
        json!({"provider": "simulated", "orphanPolicy": "Delete", "orphanGraceSeconds": 0, "parameters": parameters});
    lab.class("bolder", bolder).await;
    lab.orphans.collect().await;
    assert_eq!(lab.machines("report", CLUSTER).await, ["lost"]);
    until("the orphan is reported", || async {
        let (one, other) = (lab.events("report").await, lab.events("bolder").await);
        let notes: Vec<_> = one.get("Orphan").into_iter().chain(other.get("Orphan")).collect();
        notes.len() == 1 && notes[0].contains("orphanPolicy")
    })
    .await;
}

fn deletes_in(account: &str) -> Value {
    json!({"provider": "simulated", "orphanPolicy": "Delete", "orphanGraceSeconds": 0, "parameters": {"account": account}})
}

async fn too_many_orphans_are_left_to_a_person_who_may_raise_the_limit(lab: &Lab) {
    lab.class("many", deletes_in("many")).await;
    for n in 0..6 {
        lab.machine("many", CLUSTER, &format!("lost-{n}")).await;
    }
    lab.orphans.collect().await;
    assert_eq!(lab.machines("many", CLUSTER).await.len(), 6);
    let note = lab.event("many", "TooManyOrphans").await;
    assert!(note.contains("one of 6 orphans") && note.contains("spec.orphanLimit"), "{note}");
    let mut raised = deletes_in("many");
    raised["orphanLimit"] = 6.into();
    lab.class("many", raised).await;
    lab.orphans.collect().await;
    assert_eq!(lab.machines("many", CLUSTER).await, [""; 0]);
}

/// The restore is shown by its effect: the mark in the API is older than the one that the controller wrote.
async fn after_a_restore_of_etcd_newer_machines_are_only_reported(lab: &Lab) {
    let maps: Api<ConfigMap> = Api::namespaced(lab.admin.clone(), "berth-system");
    let name = "replicaset-controller-orphans";
    let backup = maps.get(name).await.unwrap().data;
    lab.class("restored", deletes_in("restored")).await;
    sleep(Duration::from_millis(10)).await;
    lab.machine("restored", CLUSTER, "newer").await;
    let uid = lab.server("of-newer", "restored").await;
    lab.machine("restored", CLUSTER, &uid).await;
    lab.orphans.collect().await;
    let servers: Api<Server> = Api::default_namespaced(lab.admin.clone());
    servers.delete("of-newer", &DeleteParams::default()).await.unwrap();
    maps.patch(name, &PatchParams::default(), &Patch::Merge(json!({"data": backup}))).await.unwrap();
    for _ in 0..2 {
        lab.orphans.collect().await;
        assert_eq!(lab.machines("restored", CLUSTER).await, [uid.as_str()], "the one before the restore was destroyed");
    }
    assert!(lab.event("restored", "OrphanMayServe").await.contains("restore of etcd"));
}

struct NoConnector;

impl Connector for NoConnector {
    fn connect(&self, _: &Server) -> std::result::Result<MachineConnection, NotConnectable> {
        Err(NotConnectable)
    }

    fn forget(&self, _: &Server) {}
}

/// Carries out DestroyMachine.
async fn destroy(lab: &Lab, server: &Server) -> TaskResult {
    let (connector, cluster) = (Arc::new(NoConnector), CLUSTER.to_owned());
    let context = TaskContext { connector, authorized_key: String::new(), cluster };
    let kind = TaskKind::DestroyMachine;
    let deadline = Instant::now() + LIMIT;
    let resources = loop {
        match acquire(&lab.classes, server, kind).await {
            Ok(resources) => break resources,
            Err(_) => assert!(Instant::now() < deadline, "the class is not usable"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    carry_out(&context, server, kind, &resources, &CancellationToken::new()).await
}

fn bound_to(account: &str) -> Value {
    json!({"provider": "bound", "parameters": {"account": account}})
}

async fn a_machine_is_only_found_and_destroyed_at_its_place(lab: &Lab) {
    lab.class("moved", bound_to("here")).await;
    let uid = lab.server("moved", "moved").await;
    lab.machine("moved", CLUSTER, &uid).await;
    let api: Api<Server> = Api::default_namespaced(lab.admin.clone());
    let mut server = api.get("moved").await.unwrap();
    let fact = json!({"machine": {"phase": "Running", "provider": "bound", "place": "here", "id": uid}});
    server.status = Some(serde_json::from_value(fact).unwrap());

    lab.class("moved", bound_to("there")).await;
    let count = lab.simulation.count();
    let result = destroy(lab, &server).await;
    assert_eq!((lab.simulation.count(), result.outcome), (count, Outcome::Failed), "{}", result.message);
    for part in ["bound here", "MachineClass moved", "bound there", "nothing is done elsewhere"] {
        assert!(result.message.contains(part), "{}", result.message);
    }
    let machines = ClassMachines::new(lab.classes.clone(), Arc::new(NoConnector));
    let found = machines.find(&server).await.unwrap_err();
    assert_eq!(found, result.message, "the machine does not count as gone");

    // Any class that means the place leads to the machine.
    lab.class("bridge", bound_to("here")).await;
    until("the machine is destroyed", || async { destroy(lab, &server).await.outcome == Outcome::Succeeded }).await;
    assert_eq!(lab.simulation.count(), count - 1);
}

/// Two clusters with one account of a provider, both with the shipped defaults.
#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_never_touch_each_others_machines() {
    let simulation = Simulation::new(SimulatedMachines::default());
    let one = Lab::start_with(simulation.clone()).await;
    let other = Lab::start_with(simulation).await;
    let identities =
        [identity(&one.ctx, None).await.unwrap().unwrap(), identity(&other.ctx, None).await.unwrap().unwrap()];
    assert_eq!(identity(&one.ctx, Some("name")).await.unwrap().unwrap(), "name");
    for (lab, cluster) in [(&one, &identities[0]), (&other, &identities[1])] {
        lab.class("shared", deletes_in("shared")).await;
        let orphans = OrphanCollector::new(&lab.ctx, &lab.classes, cluster, PERIOD);
        orphans.collect().await;
        sleep(Duration::from_millis(10)).await;
        let uid = lab.server("serves", "shared").await;
        lab.machine("shared", cluster, &uid).await;
    }
    for (lab, cluster) in [(&one, &identities[0]), (&other, &identities[1])] {
        OrphanCollector::new(&lab.ctx, &lab.classes, cluster, PERIOD).collect().await;
    }
    assert_eq!(one.simulation.count(), 2, "both machines serve");
    assert_ne!(identities[0], identities[1]);
    one.control_plane.stop().await.unwrap();
    other.control_plane.stop().await.unwrap();
}

async fn a_class_is_unusable_with_a_reason_until_it_is_corrected(lab: &Lab) {
    assert!(lab.problem("none", "ClassNotFound").await.contains("\"none\""));
    lab.class("wrong", json!({"provider": "moon"})).await;
    let known = lab.problem("wrong", "UnknownProvider").await;
    assert!(known.contains("\"moon\"") && known.contains("bound, guarded, simulated"), "{known}");
    assert!(lab.event("wrong", "UnknownProvider").await.contains("\"moon\""));
    lab.class("wrong", json!({"provider": "simulated", "parameters": {"seed": "one"}})).await;
    assert!(lab.problem("wrong", "InvalidParameters").await.contains("spec.parameters.seed"));
    lab.class("wrong", json!({"provider": "simulated", "parameters": {"seed": null, "broken": "Unavailable"}})).await;
    assert!(lab.classes.usable("wrong").await.unwrap_err().is_temporary);
    lab.problem("wrong", "ProviderUnavailable").await;
    lab.class("wrong", json!({"provider": "simulated", "parameters": {"broken": null}})).await;
    lab.problem("wrong", "").await;
    assert!(lab.event("wrong", "Usable").await.contains("again"));

    let credentials = |namespace: &str| json!({"namespace": namespace, "name": "cloud"});
    lab.class("secret", json!({"provider": "guarded", "credentials": credentials("default")})).await;
    let forbidden = lab.problem("secret", "CredentialsNotFound").await;
    assert!(
        forbidden.contains("default/cloud may not be read") && forbidden.contains("berth-credentials"),
        "{forbidden}"
    );
    lab.class("secret", json!({"provider": "guarded", "credentials": credentials("berth-credentials")})).await;
    assert!(lab.problem("secret", "CredentialsNotFound").await.contains("berth-credentials/cloud does not exist"));
    let secrets: Api<Secret> = Api::namespaced(lab.admin.clone(), "berth-credentials");
    let secret = json!({"metadata": {"name": "cloud"}, "stringData": {"password": "wrong"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    assert!(lab.problem("secret", "CredentialsRejected").await.contains("not accepted"));
    let right = Patch::Merge(json!({"stringData": {"password": "right"}}));
    secrets.patch("cloud", &PatchParams::default(), &right).await.unwrap();
    // The class has not changed; the Secret is read again after half a minute.
    lab.problem("secret", "").await;
    assert_eq!(lab.simulation.count(), 4);
}
