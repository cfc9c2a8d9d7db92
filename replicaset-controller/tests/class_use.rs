//! MachineClasses that are in use, against a real kube-apiserver with the shipped policies and rights.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

#[path = "common/context.rs"]
mod context;
#[path = "common/object.rs"]
mod object;

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_core::api::{MachineClass, Server, TaskKind, VMDeployment, VMReplicaSet};
use berth_iaas::{
    CallLimits, Classes, Drivers,
    simulated::{SimulatedMachines, Simulation},
};
use berth_runtime::{Cache, CacheOptions, Context, Process};
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use replicaset_controller::{
    class_use::{ClassReconciler, ClassRooms},
    server::tasks::acquire,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use context::context;
use object::object;

const LIMIT: Duration = Duration::from_mins(1);

struct Lab {
    control_plane: ControlPlane,
    admin: Client,
    ctx: Context,
    class_cache: Cache<MachineClass>,
    server_cache: Cache<Server>,
    classes: Classes,
}

async fn until<F: Future<Output = Result<(), String>>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + LIMIT;
    while let Err(instead) = holds().await {
        assert!(Instant::now() < deadline, "{what}: {instead}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn check(holds: bool, instead: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(instead.into()) }
}

impl Lab {
    async fn start() -> Self {
        let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let report = control_plane.install(&deploy, None).await.unwrap();
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        let account = control_plane.service_account_client("berth-system", "replicaset-controller");
        let ctx = context(&Process::default(), account.await.unwrap(), "a");
        let class_cache = Cache::start_with(&ctx, CacheOptions::default().keep_change_times());
        let server_cache = Cache::start_with(&ctx, CacheOptions::servers());
        class_cache.ready().await;
        server_cache.ready().await;
        let drivers = Drivers::default()
            .with("simulated", Arc::new(Simulation::new(SimulatedMachines::default())))
            .with("bound", Arc::new(Simulation::new(SimulatedMachines::default())));
        let classes = Classes::new(&ctx, &class_cache, drivers, CallLimits::default(), 8).of_servers(&server_cache);
        let admin = control_plane.admin_client();
        let lab = Self { control_plane, admin, ctx, class_cache, server_cache, classes };
        lab.policies_have_an_effect().await;
        lab
    }

    /// A new policy takes effect a moment later.
    async fn policies_have_an_effect(&self) {
        let spec = json!({"provider": "simulated"});
        self.class("probe", &spec, &["berth.dev/in-use"]).await;
        until("the policy for classes in use", || async {
            check(self.refusal("probe", &json!({"provider": "incus"})).await.is_some(), "no effect")
        })
        .await;
        self.class("bounded-probe", &json!({"provider": "simulated", "allowedNamespaces": []}), &[]).await;
        until("the policy for bounds", || async {
            check(self.set_refusal("default", &json!({"className": "bounded-probe"})).await.is_some(), "no effect")
        })
        .await;
    }

    fn class_api(&self) -> Api<MachineClass> {
        Api::all(self.admin.clone())
    }

    fn servers(&self) -> Api<Server> {
        Api::default_namespaced(self.admin.clone())
    }

    async fn class(&self, name: &str, spec: &Value, finalizers: &[&str]) {
        let mut class: MachineClass = object(name, spec);
        class.metadata.finalizers = Some(finalizers.iter().map(|f| (*f).to_owned()).collect());
        self.class_api().create(&PostParams::default(), &class).await.unwrap();
        self.seen(name, |_| true).await;
    }

    /// Waits until the controller's cache shows the class so.
    async fn seen(&self, name: &str, holds: impl Fn(&MachineClass) -> bool) {
        until("the cache shows the class", || async {
            check(self.classes.get(name).is_some_and(|class| holds(&class)), format!("{:?}", self.classes.get(name)))
        })
        .await;
    }

    /// Tries a change of a class without making it; gives the refusal.
    async fn refusal(&self, name: &str, spec: &Value) -> Option<String> {
        let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::Merge(json!({"spec": spec}));
        self.class_api().patch(name, &dry_run, &patch).await.err().map(|error| error.to_string())
    }

    /// Tries to create a set and a deployment with this machine; gives the refusal of both.
    async fn set_refusal(&self, namespace: &str, machine: &Value) -> Option<String> {
        let labels = json!({"app": "web"});
        let mut spec = json!({"selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"machine": machine}}});
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let sets: Api<VMReplicaSet> = Api::namespaced(self.admin.clone(), namespace);
        let set = sets.create(&params, &object("web", &spec)).await.err().map(|e| e.to_string());
        let artifact = json!({"url": "http://127.0.0.1/w.tgz", "sha256": "b".repeat(64)});
        spec["app"] = json!({"name": "web", "artifact": artifact, "command": "./run"});
        let deployments: Api<VMDeployment> = Api::namespaced(self.admin.clone(), namespace);
        let created = deployments.create(&params, &object("web", &spec)).await;
        assert_eq!(created.is_err(), set.is_some(), "{set:?}");
        set
    }

    async fn server(&self, name: &str, class: &str) -> Server {
        let server = object(name, &json!({"machine": {"className": class}}));
        let server = self.servers().create(&PostParams::default(), &server).await.unwrap();
        until("the cache shows the Server", || async {
            check(self.server_cache.get(Some("default"), name).is_some(), "no")
        })
        .await;
        server
    }

    /// Waits until the task may be claimed.
    async fn may_begin(&self, server: &Server, kind: TaskKind) {
        until("the class is usable", || async {
            acquire(&self.classes, server, kind).await.map(drop).map_err(|wait| format!("{wait:?}"))
        })
        .await;
    }

    async fn reconcile(&self, name: &str) {
        let Some(class) = self.class_api().get_opt(name).await.unwrap() else { return };
        ClassReconciler::new(&self.ctx, &self.server_cache).reconcile(&class).await.unwrap();
    }

    async fn event(&self, about: &str, reason: &str) -> String {
        let api: Api<Event> = Api::all(self.admin.clone());
        let found = || async {
            let all = api.list(&ListParams::default()).await.unwrap().items.into_iter();
            let own = all.filter(|event| event.involved_object.name.as_deref() == Some(about));
            own.filter(|event| event.reason.as_deref() == Some(reason)).find_map(|event| event.message)
        };
        until("an Event", || async { check(found().await.is_some(), format!("{reason} about {about}")) }).await;
        found().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_in_use() {
    let lab = Lab::start().await;
    a_class_in_use_stays_at_its_place(&lab).await;
    a_class_is_marked_before_its_first_machine_and_stays_until_its_last_server_is_gone(&lab).await;
    a_class_that_is_being_deleted_gives_no_machines(&lab).await;
    a_class_of_older_servers_is_marked(&lab).await;
    a_class_says_who_may_use_it_and_for_what(&lab).await;
    a_class_gives_no_more_machines_than_it_allows(&lab).await;
    one_reading_of_a_class_counts_for_all_servers_that_existed_when_it_began(&lab).await;
    lab.control_plane.stop().await.unwrap();
}

async fn a_class_in_use_stays_at_its_place(lab: &Lab) {
    let spec = json!({"provider": "incus", "image": "debian", "parameters": {"endpoint": "https://10.0.0.1:8443"}});
    lab.class("used", &spec, &["berth.dev/in-use"]).await;
    lab.class("unused", &spec, &[]).await;
    let others = json!({"provider": "incus", "parameters": {"endpoint": "https://10.0.0.2:8443"}});
    for (change, field) in [
        (others, "spec.parameters.endpoint"),
        (json!({"parameters": {"project": "shop"}}), "spec.parameters.project"),
        (json!({"parameters": {"endpoint": null}}), "spec.parameters.endpoint"),
        (json!({"parameters": null}), "spec.parameters.endpoint"),
        (json!({"provider": "local", "parameters": null}), "spec.provider"),
    ] {
        let said = lab.refusal("used", &change).await.unwrap_or_else(|| panic!("{change} is accepted"));
        assert!(said.contains(field) && said.contains("create another MachineClass"), "{said}");
        assert_eq!(lab.refusal("unused", &change).await, None, "{change}");
    }
    let same = json!({"parameters": {"project": "default"}});
    let other = json!({"image": "ubuntu", "flavor": "c2-m4", "parameters": {"profiles": ["big"]}, "maxMachines": 3});
    for change in [same, other, json!({"credentials": {"namespace": "berth-credentials", "name": "new"}})] {
        assert_eq!(lab.refusal("used", &change).await, None, "{change}");
    }
    lab.class("simulated", &json!({"provider": "simulated"}), &["berth.dev/in-use"]).await;
    let moved = lab.refusal("simulated", &json!({"parameters": {"account": "there"}})).await.unwrap();
    assert!(moved.contains("spec.parameters.account"), "{moved}");
    assert_eq!(lab.refusal("simulated", &json!({"parameters": {"seed": 7, "account": ""}})).await, None);
    // The controller may mark a class, and change nothing of it.
    let controller: Api<MachineClass> = Api::all(lab.ctx.client.clone());
    let patch = Patch::Merge(json!({"spec": {"image": "mine"}}));
    let said = controller.patch("unused", &PatchParams::default(), &patch).await.unwrap_err().to_string();
    assert!(said.contains("nothing but the finalizer"), "{said}");
}

async fn a_class_is_marked_before_its_first_machine_and_stays_until_its_last_server_is_gone(lab: &Lab) {
    lab.class("first", &json!({"provider": "simulated", "parameters": {"account": "first"}}), &[]).await;
    lab.reconcile("first").await;
    let stored = || async { lab.class_api().get_opt("first").await.unwrap() };
    assert!(!stored().await.unwrap().is_in_use(), "no Server names it");
    let server = lab.server("of-first", "first").await;
    lab.may_begin(&server, TaskKind::CreateMachine).await;
    assert!(stored().await.unwrap().is_in_use(), "CreateMachine may begin only then");

    lab.class_api().delete("first", &DeleteParams::default()).await.unwrap();
    lab.reconcile("first").await;
    assert!(stored().await.is_some_and(|class| class.is_being_deleted()), "it stays");
    let said = lab.event("first", "InUse").await;
    assert!(said.contains("1 do (default/of-first)") && said.contains("className"), "{said}");
    // Its machines can still be destroyed: of this one no place is known.
    lab.may_begin(&server, TaskKind::DestroyMachine).await;
    // What InstallPackages was begun with is not enough for that, though it may hand the lock over to it.
    let of_packages = acquire(&lab.classes, &server, TaskKind::InstallPackages).await.unwrap();
    assert!(of_packages.suffice_for(TaskKind::InstallPackages) && !of_packages.suffice_for(TaskKind::DestroyMachine));

    // A cache that does not show the Server yet does not let the class go.
    let (empty, blind) = (lab.class_api().get("first").await.unwrap(), lab.ctx.clone());
    let other_servers = berth_runtime::CacheOptions::servers().select(berth_runtime::with_state());
    let blind_cache = Cache::start_with(&blind, other_servers);
    blind_cache.ready().await;
    ClassReconciler::new(&blind, &blind_cache).reconcile(&empty).await.unwrap();
    assert!(stored().await.is_some());

    lab.servers().delete("of-first", &DeleteParams::default()).await.unwrap();
    until("the class is gone", || async {
        lab.reconcile("first").await;
        check(stored().await.is_none(), "it exists")
    })
    .await;
}

async fn a_class_that_is_being_deleted_gives_no_machines(lab: &Lab) {
    lab.class("ending", &json!({"provider": "simulated", "parameters": {"account": "ending"}}), &["test/held"]).await;
    let server = lab.server("of-ending", "ending").await;
    lab.may_begin(&server, TaskKind::DestroyMachine).await;
    // The cache shows it as it was: the API server is asked.
    lab.class_api().delete("ending", &DeleteParams::default()).await.unwrap();
    assert!(acquire(&lab.classes, &server, TaskKind::CreateMachine).await.is_err());
    assert!(!lab.class_api().get("ending").await.unwrap().is_in_use(), "nothing was marked");
    lab.seen("ending", MachineClass::is_being_deleted).await;
    let set = berth_testing::replica_set(json!({"spec": {"template": {"spec": {"machine": {"className": "ending"}}}}}));
    let problem = lab.classes.usable_for("default", &set.spec.template.spec.machine).await.unwrap_err();
    assert_eq!(problem.reason, "ClassDeleted");
    assert!(problem.message.contains("Declare another class"), "{}", problem.message);
}

async fn a_class_of_older_servers_is_marked(lab: &Lab) {
    lab.class("older", &json!({"provider": "simulated"}), &["test/other"]).await;
    lab.server("of-older", "older").await;
    lab.reconcile("older").await;
    let finalizers = lab.class_api().get("older").await.unwrap().metadata.finalizers.unwrap();
    assert_eq!(finalizers, ["test/other", "berth.dev/in-use"]);
}

async fn a_class_says_who_may_use_it_and_for_what(lab: &Lab) {
    let spec = json!({"provider": "simulated", "image": "own", "flavor": "small",
        "allowedNamespaces": ["shop"], "allowedImages": ["debian"], "allowedFlavors": []});
    lab.class("bounded", &spec, &[]).await;
    let shop = json!({"metadata": {"name": "shop"}});
    let namespaces: Api<Namespace> = Api::all(lab.admin.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(shop).unwrap()).await.unwrap();
    for (namespace, machine, reason, word) in [
        ("shop", json!({}), None, ""),
        ("shop", json!({"image": "own", "flavor": "small"}), None, ""),
        ("shop", json!({"image": "debian"}), None, ""),
        ("default", json!({}), Some("NamespaceNotAllowed"), "namespace default"),
        ("shop", json!({"image": "other"}), Some("ImageNotAllowed"), "does not allow"),
        ("shop", json!({"flavor": "huge"}), Some("FlavorNotAllowed"), "does not allow"),
    ] {
        let mut machine = machine;
        machine["className"] = "bounded".into();
        // At admission, and again by the controller, because the class may have changed since.
        let said = lab.set_refusal(namespace, &machine).await;
        assert_eq!(said.as_ref().is_some_and(|said| said.contains(word)), reason.is_some(), "{machine}: {said:?}");
        let set = berth_testing::replica_set(json!({"metadata": {"namespace": namespace},
            "spec": {"template": {"spec": {"machine": machine}}}}));
        until("the provider has answered", || async {
            let machine = &set.spec.template.spec.machine;
            let found = lab.classes.usable_for(namespace, machine).await.err().map(|problem| problem.reason);
            check(found == reason, format!("{found:?} instead of {reason:?}"))
        })
        .await;
    }
    assert_eq!(lab.set_refusal("default", &json!({"className": "nobody"})).await, None, "it may be created later");
    let server = lab.server("of-bounded", "bounded").await;
    assert!(acquire(&lab.classes, &server, TaskKind::CreateMachine).await.is_err());
    lab.may_begin(&server, TaskKind::DestroyMachine).await;
}

async fn a_class_gives_no_more_machines_than_it_allows(lab: &Lab) {
    lab.class("few", &json!({"provider": "simulated", "maxMachines": 3}), &[]).await;
    lab.server("of-few-0", "few").await;
    let rooms = ClassRooms::new(&lab.class_cache, &lab.server_cache);
    let set = berth_testing::replica_set(json!({"spec": {"template": {"spec": {"machine": {"className": "few"}}}}}));
    assert_eq!(rooms.lack(&set, 2), None);
    let problem = rooms.lack(&set, 3).unwrap();
    assert_eq!((problem.reason, problem.room), ("TooManyMachines", 2));
    for part in ["spec.maxMachines is 3", "there are 1 Servers", "default 1"] {
        assert!(problem.message.contains(part), "{}", problem.message);
    }
}

/// Reads of single MachineClasses that the API server has counted.
async fn reads_of_classes(lab: &Lab) -> u64 {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let metrics = lab.admin.request_text(request).await.unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
    let reads = lines.filter(|line| line.contains(r#"resource="machineclasses""#) && line.contains(r#"verb="GET""#));
    reads.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

async fn one_reading_of_a_class_counts_for_all_servers_that_existed_when_it_began(lab: &Lab) {
    lab.class("shared", &json!({"provider": "simulated", "parameters": {"account": "shared"}}), &[]).await;
    let mut servers = Vec::new();
    for n in 0..10 {
        servers.push(lab.server(&format!("of-shared-{n}"), "shared").await);
    }
    lab.may_begin(&servers[0], TaskKind::CreateMachine).await;
    let before = reads_of_classes(lab).await;
    for server in &servers {
        lab.may_begin(server, TaskKind::CreateMachine).await;
    }
    let reads = reads_of_classes(lab).await - before;
    assert!(reads <= 5, "{reads} reads for 10 Servers: at most one each second");

    // A Server that came later needs a reading of its own: the class may have been let go between.
    let later = object("of-shared-later", &json!({"machine": {"className": "shared"}}));
    let later = lab.servers().create(&PostParams::default(), &later).await.unwrap();
    lab.class_api().delete("shared", &DeleteParams::default()).await.unwrap();
    assert!(acquire(&lab.classes, &later, TaskKind::CreateMachine).await.is_err(), "the class is being deleted");
}
