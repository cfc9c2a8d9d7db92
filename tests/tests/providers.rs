//! Faults of an IaaS provider, and which Servers they affect: real webhook and replicaset-controller, simulated machines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail a test by panicking")]

use std::{collections::BTreeMap, time::Duration};

use berth_core::api::{MachineClass, MachinePhase, Server, Task, TaskKind};
use berth_tests::{Berth, Options, Part, eventually};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

const LONG: Duration = Duration::from_mins(2);

struct World {
    berth: Berth,
    classes: Api<MachineClass>,
    servers: Api<Server>,
}

impl World {
    /// With `--concurrency=2`, the bulkhead of a class has eight slots.
    async fn start() -> Self {
        let arguments = ["--simulated", "--concurrency=2"].map(str::to_owned).to_vec();
        let options = Options {
            parts: vec![Part::Webhook, Part::ReplicasetController],
            arguments: BTreeMap::from([(Part::ReplicasetController, arguments)]),
            ..Options::default()
        };
        let berth = Berth::start(options).await.unwrap();
        let (classes, servers) = (Api::all(berth.client()), berth.servers("default"));
        Self { berth, classes, servers }
    }

    async fn class(&self, name: &str, parameters: Value) {
        // Classes with different accounts do not share machines.
        let mut parameters = parameters;
        parameters["account"] = name.into();
        let spec = json!({"provider": "simulated", "parameters": parameters});
        let class = berth_testing::machine_class(json!({"metadata": {"name": name}, "spec": spec}));
        self.classes.create(&PostParams::default(), &class).await.unwrap();
    }

    async fn change_class(&self, name: &str, spec: Value) {
        self.classes.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
    }

    async fn create(&self, class: &str, count: usize) {
        for n in 0..count {
            let spec = json!({"machine": {"className": class}});
            let server = berth_testing::server(json!({"metadata": {"name": format!("{class}-{n}")}, "spec": spec}));
            self.servers.create(&PostParams::default(), &server).await.unwrap();
        }
    }

    async fn of(&self, class: &str) -> Vec<Server> {
        let selected = ListParams::default().fields(&format!("spec.machine.className={class}"));
        self.servers.list(&selected).await.unwrap().items
    }

    async fn until(&self, what: &str, class: &str, holds: impl Fn(&[Server]) -> bool) -> Vec<Server> {
        let found = eventually(what, LONG, async || {
            let servers = self.of(class).await;
            if holds(&servers) { Ok(servers) } else { Err(describe(&servers)) }
        });
        match found.await {
            Ok(servers) => servers,
            Err(error) => {
                let controller = self.berth.instance(Part::ReplicasetController, 1).unwrap();
                panic!("{error}\n{}", controller.process.log_tail());
            }
        }
    }
}

fn is_running(server: &Server) -> bool {
    let machine = server.status.as_ref().and_then(|s| s.machine.as_ref());
    machine.is_some_and(|machine| machine.phase == MachinePhase::Running)
}

fn running(servers: &[Server]) -> usize {
    servers.iter().filter(|server| is_running(server)).count()
}

fn create_task(server: &Server) -> Option<&Task> {
    server.status.as_ref()?.tasks.iter().rfind(|task| task.kind == TaskKind::CreateMachine)
}

fn stalled(server: &Server) -> Option<&str> {
    let conditions = &server.status.as_ref()?.conditions;
    conditions.iter().find(|c| c.type_ == "Stalled" && c.status == "True").map(|c| c.message.as_str())
}

fn describe(servers: &[Server]) -> String {
    let line = |server: &Server| {
        let task = create_task(server).map(|t| (t.phase, t.attempts, t.message.clone()));
        format!("{}: running {}, {task:?}\n", server.name_any(), is_running(server))
    };
    servers.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unresponsive_provider_does_not_delay_other_classes() {
    let world = World::start().await;
    world.class("stuck", json!({"hang": ["create"]})).await;
    world.class("dumb", json!({"hang": ["check"]})).await;
    world.class("well", json!({})).await;
    world.create("dumb", 20).await;
    world.create("stuck", 40).await;
    let held = |servers: &[Server]| {
        servers.iter().filter(|server| server.status.as_ref().is_some_and(|s| s.lock.is_some())).count()
    };
    world.until("as many as may be wait for the provider that hangs", "stuck", |servers| held(servers) == 8).await;
    let begun = std::time::Instant::now();
    world.create("well", 20).await;
    world.until("the others have their machines", "well", |servers| running(servers) == 20).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());

    let stuck = world.of("stuck").await;
    assert_eq!((held(&stuck), running(&stuck)), (8, 0), "{}", describe(&stuck));
    let untouched = stuck.iter().filter(|server| server.status.is_none()).count();
    assert_eq!(untouched, 32, "a Server without a slot costs no write and no attempt");
    assert!(world.of("dumb").await.iter().all(|server| server.status.is_none()), "nothing is claimed before the check");

    // Once the provider answers, all Servers are reconciled.
    for class in ["stuck", "dumb"] {
        world.change_class(class, json!({"parameters": {"hang": null}})).await;
    }
    world.until("those whose provider did not answer the check", "dumb", |servers| running(servers) == 20).await;
    world.until("those that had not begun", "stuck", |servers| running(servers) + held(servers) >= 8).await;
    let controller = world.berth.instance(Part::ReplicasetController, 1).unwrap();
    let metrics = world.berth.metrics(&controller).await.unwrap();
    let counted = r#"berth_iaas_calls_total{provider="simulated",call="create",result="ok"}"#;
    assert!(metrics.contains(counted), "{metrics}");
    world.berth.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_configuration_is_retried_once_it_is_corrected() {
    let world = World::start().await;
    world.create("late", 1).await;
    world.class("typo", json!({"capacity": "three"})).await;
    world.create("typo", 2).await;
    world.class("small", json!({})).await;
    world.change_class("small", json!({"image": "missing"})).await;
    world.create("small", 1).await;

    // An error that only the provider can find fails the task at once, with the provider's message.
    let failed = world.until("Stalled", "small", |servers| stalled(&servers[0]).is_some()).await;
    assert!(stalled(&failed[0]).unwrap().contains("there is no image \"missing\""), "{:?}", stalled(&failed[0]));
    assert_eq!(create_task(&failed[0]).unwrap().attempts, 1, "another attempt would not help");
    let versions = |servers: Vec<Server>| servers.iter().map(Server::resource_version).collect::<Vec<_>>();
    let before = versions(world.of("typo").await);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(versions(world.of("typo").await), before, "a class that cannot be used costs no writes");

    world.change_class("small", json!({"image": "good"})).await;
    let repaired = world.until("tried again", "small", |servers| running(servers) == 1).await;
    let retry = repaired[0].spec.retry.as_ref().unwrap();
    assert_eq!(retry.reason, "MachineClass small has changed (generation 3) since CreateMachine failed");
    assert_eq!(retry.by.as_deref(), Some("system:serviceaccount:berth-system:replicaset-controller"));
    world.change_class("typo", json!({"parameters": {"capacity": null}})).await;
    world.until("the class is right by now", "typo", |servers| running(servers) == 2).await;
    world.class("late", json!({})).await;
    world.until("the class is there by now", "late", |servers| running(servers) == 1).await;
    world.berth.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_quota_is_reported_and_creation_continues_when_a_machine_is_destroyed() {
    let world = World::start().await;
    world.class("full", json!({"capacity": 2})).await;
    world.create("full", 4).await;
    let says_so = |server: &Server| {
        create_task(server)
            .is_some_and(|task| task.message.contains("quota is exhausted") && task.message.contains("all 2 machines"))
    };
    let servers = world
        .until("two run, and the others say why not", "full", |servers| {
            running(servers) == 2 && servers.iter().any(|server| !is_running(server) && says_so(server))
        })
        .await;
    let runs = servers.iter().find(|server| is_running(server)).unwrap().name_any();
    world.servers.delete(&runs, &DeleteParams::default()).await.unwrap();
    world
        .until("another has its machine", "full", |servers| {
            servers.iter().all(|server| server.name_any() != runs) && running(servers) == 2
        })
        .await;
    world.berth.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_never_has_more_machines_than_it_allows() {
    let world = World::start().await;
    world.class("few", json!({})).await;
    world.change_class("few", json!({"maxMachines": 2})).await;
    world.create("few", 6).await;
    let ready = world.until("the oldest have their machines", "few", |servers| running(servers) == 2).await;
    // As soon as one is retired, the next one gets a machine; at no time a third one exists.
    let first = ready.iter().find(|server| is_running(server)).unwrap().name_any();
    world.servers.delete(&first, &DeleteParams::default()).await.unwrap();
    world
        .until("another Server has the free machine", "few", |servers| {
            assert!(running(servers) <= 2, "{}", describe(servers));
            running(servers) == 2 && servers.len() == 5
        })
        .await;
    let untouched = |servers: &[Server]| servers.iter().filter(|server| server.status.is_none()).count();
    assert_eq!(untouched(&world.of("few").await), 3, "a Server without a machine costs no write and no attempt");
    // A raised limit is used at once, and a lowered one takes no machine away.
    world.change_class("few", json!({"maxMachines": 4})).await;
    world.until("the limit was raised", "few", |servers| running(servers) == 4).await;
    world.change_class("few", json!({"maxMachines": 1})).await;
    world.until("machines stay", "few", |servers| running(servers) == 4).await;
    world.berth.stop().await.unwrap();
}

/// Admission refuses to move a class in use; here somebody has taken that policy away.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_destroyed_where_it_was_made_though_its_class_means_another_place_by_now() {
    let world = World::start().await;
    world.class("moved", json!({"capacity": 1})).await;
    world.create("moved", 1).await;
    world.until("it has its machine", "moved", |servers| running(servers) == 1).await;
    let moved = Patch::Merge(json!({"spec": {"parameters": {"account": "elsewhere"}}}));
    let refused = world.classes.patch("moved", &PatchParams::default(), &moved).await.unwrap_err().to_string();
    assert!(refused.contains("spec.parameters.account: the class is in use"), "{refused}");
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(world.berth.client());
    bindings.delete("machine-class-use.berth.dev", &DeleteParams::default()).await.unwrap();
    let accepted = eventually("the policy is gone", LONG, async || {
        world.classes.patch("moved", &PatchParams::default(), &moved).await.map(drop).map_err(|e| e.to_string())
    });
    accepted.await.unwrap();

    world.servers.delete("moved-0", &DeleteParams::default()).await.unwrap();
    world.until("it is retired", "moved", <[Server]>::is_empty).await;
    // The account has one machine at most: there is room for another one only if the first is really gone.
    world.class("back", json!({"capacity": 1})).await;
    world.change_class("back", json!({"parameters": {"account": "moved"}})).await;
    world.create("back", 1).await;
    world.until("the account has room", "back", |servers| running(servers) == 1).await;
    world.berth.stop().await.unwrap();
}
