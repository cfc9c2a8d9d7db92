//! What a set does with its machines while the application goes on.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use berth_core::api::{Server, State, TaskKind, VMReplicaSet};
use berth_machine::{
    Machine,
    ssh::{ClientKey, PoolConfig, SshPool, SshTarget},
};
use berth_tests::{Options, Part};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde_json::json;

use crate::world::{LONG, World, is_in, machine_id, uid};

/// What was seen of the Servers from the beginning of the watch.
#[derive(Default)]
struct Seen {
    ready: BTreeMap<String, bool>,
    fewest_ready: Option<usize>,
    most: usize,
}

impl Seen {
    fn look(&mut self) {
        let ready = self.ready.values().filter(|ready| **ready).count();
        self.fewest_ready = Some(self.fewest_ready.map_or(ready, |fewest| fewest.min(ready)));
        self.most = self.most.max(self.ready.len());
    }
}

/// Watches to how many Servers traffic is sent, at every change; gives the fewest.
fn watch_traffic(world: &World) -> Arc<Mutex<Option<usize>>> {
    let api: Api<EndpointSlice> = Api::namespaced(world.berth.client(), "default");
    let fewest: Arc<Mutex<Option<usize>>> = Arc::default();
    let shared = fewest.clone();
    tokio::spawn(async move {
        let events = watcher::watcher(api, watcher::Config::default().labels("kubernetes.io/service-name=web"));
        pin_mut!(events);
        let mut ready: BTreeMap<String, usize> = BTreeMap::new();
        let mut begun = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) if !begun => {}
                // Something may have been missed.
                Ok(Event::Init) | Err(_) => {
                    *shared.lock().unwrap() = Some(0);
                    return;
                }
                Ok(Event::InitDone) => begun = true,
                Ok(Event::InitApply(slice) | Event::Apply(slice)) => {
                    let endpoints = slice.endpoints.iter().flatten();
                    let count = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count();
                    ready.insert(slice.name_any(), count);
                }
                Ok(Event::Delete(slice)) => {
                    ready.remove(&slice.name_any());
                }
            }
            if !begun {
                continue;
            }
            let now = ready.values().sum();
            let mut fewest = shared.lock().unwrap();
            *fewest = Some(fewest.map_or(now, |before| before.min(now)));
        }
    });
    fewest
}

/// Watches how many Servers there are, and how many of them are Ready, at every change.
fn watch(world: &World) -> Arc<Mutex<Seen>> {
    let (api, seen) = (world.servers(), Arc::new(Mutex::new(Seen::default())));
    let shared = seen.clone();
    tokio::spawn(async move {
        let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            let mut seen = shared.lock().unwrap();
            match event {
                Ok(Event::InitApply(server)) => {
                    seen.ready.insert(server.name_any(), is_in(State::Ready)(&server));
                    continue;
                }
                // What is going does not count any more.
                Ok(Event::Apply(server)) if server.metadata.deletion_timestamp.is_some() => {
                    seen.ready.remove(&server.name_any());
                }
                Ok(Event::Apply(server)) => {
                    seen.ready.insert(server.name_any(), is_in(State::Ready)(&server));
                }
                Ok(Event::Delete(server)) => {
                    seen.ready.remove(&server.name_any());
                }
                Ok(Event::InitDone) => {}
                _ => continue,
            }
            seen.look();
        }
    });
    seen
}

async fn watched(world: &World) -> Arc<Mutex<Seen>> {
    let seen = watch(world);
    let begun = berth_tests::eventually("the watch has begun", LONG, async || {
        crate::world::seen(seen.lock().unwrap().fewest_ready.is_some(), || "not yet".to_owned())
    });
    begun.await.unwrap();
    seen
}

/// Does something on a Server's machine behind Berth's back.
async fn on_machine(world: &World, server: &Server, command: &str) -> String {
    let pool = SshPool::new(ClientKey::from_file(world.berth.ssh_key()).unwrap(), PoolConfig::default());
    let machine = server.status.as_ref().unwrap().machine.clone().unwrap();
    let ssh = machine.ssh.unwrap();
    let target = SshTarget {
        address: machine.address.unwrap(),
        port: u16::try_from(ssh.port).unwrap(),
        user: ssh.user,
        host_key: ssh.host_key,
    };
    let done = pool.machine(target).exec(command, None, Duration::from_secs(20)).await.unwrap();
    assert_eq!(done.status, 0, "{command}: {done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

async fn set(world: &World) -> Option<VMReplicaSet> {
    Api::namespaced(world.berth.client(), "default").get_opt("web").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_of_a_whole_fleet_is_repaired_within_the_budget() {
    let arguments = BTreeMap::from([(Part::ReplicasetController, vec!["--drift-interval".to_owned(), "2".to_owned()])]);
    let world = World::start_with(Options { arguments, ..Options::default() }).await;
    world.deploy(3, |_| ()).await;
    let servers = world.ready(3).await;
    let seen = watched(&world).await;
    // All at once, and found by one round of checks: whoever looks is away meanwhile.
    world.berth.kill9(Part::ReplicasetController).unwrap();
    for server in &servers {
        on_machine(&world, server, "rm -rf opt/berth/packages/tool").await;
    }
    world.berth.restart(Part::ReplicasetController).await.unwrap();
    for server in &servers {
        let repaired = berth_tests::eventually(format!("{} is repaired", server.name_any()), LONG, async || {
            let there = on_machine(&world, server, "cat opt/berth/packages/tool/current/version || true").await;
            crate::world::seen(there.trim() == "1", || format!("{there:?}"))
        });
        repaired.await.unwrap();
    }
    let after = world.ready(3).await;
    assert_eq!(servers.iter().map(uid).collect::<Vec<_>>(), after.iter().map(uid).collect::<Vec<_>>());
    assert_eq!(seen.lock().unwrap().fewest_ready, Some(2), "one after the other");
    assert!(!world.events("Drifted").await.is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_machines_are_replaced_with_a_surge_and_without_a_gap() {
    let world = World::start().await;
    let strategy = json!({"type": "Replace", "maxSurge": 1, "maxUnavailable": 0});
    world.deploy(3, |v| v["spec"]["updateStrategy"] = strategy).await;
    let before = world.ready(3).await;
    for server in &before {
        world.gets_traffic(&server.name_any()).await;
    }
    let (seen, traffic) = (watched(&world).await, watch_traffic(&world));
    world.patch(json!({"spec": {"template": {"spec": {"machine": {"flavor": "large"}}}}})).await;
    let new = |server: &Server| server.spec.machine.flavor.as_deref() == Some("large");
    let after = world.ready_when(3, new).await;
    for old in &before {
        assert!(after.iter().all(|s| s.uid() != old.uid() && machine_id(s) != machine_id(old)), "{}", old.name_any());
    }
    let gone = berth_tests::eventually("the old machines are gone", LONG, async || {
        let there = world.berth.machines().all().map_err(|e| e.to_string())?.len();
        crate::world::seen(there == 3, || format!("{there}"))
    });
    gone.await.unwrap();
    let (fewest, most) = {
        let seen = seen.lock().unwrap();
        (seen.fewest_ready, seen.most)
    };
    assert!(fewest >= Some(3), "never fewer than three: {fewest:?}");
    assert_eq!(most, 4, "one more at once");
    assert!(*traffic.lock().unwrap() >= Some(3), "traffic goes to three at any time: {traffic:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_approval_covers_a_scale_out_and_no_later_one() {
    let world = World::start().await;
    world.deploy(2, |v| v["spec"]["template"]["spec"]["gates"] = json!([{"before": "CreateMachine"}])).await;
    let first = waits_for_approval(&world, 0).await;
    assert!(world.berth.machines().all().unwrap().is_empty(), "nothing is made before the yes");
    approve(&world).await;
    world.ready(2).await;
    world
        .deployments()
        .patch_scale("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await
        .unwrap();
    world.server("web-2", "waits", |s| s.status.as_ref().is_some_and(|s| s.waiting_for.is_some())).await;
    let second = waits_for_approval(&world, first).await;
    assert_eq!(world.berth.machines().all().unwrap().len(), 2, "the first yes was not about this one");
    approve(&world).await;
    let servers = world.ready(3).await;
    let said = |server: &Server| {
        let tasks = server.status.iter().flat_map(|s| &s.tasks);
        tasks.filter(|t| t.kind == TaskKind::Gate).map(|t| t.message.clone()).collect::<String>()
    };
    assert!(said(&servers[2]).contains(&format!("generation {second}")), "{}", said(&servers[2]));
    world.end().await;
}

/// Waits until the set says that its newest generation, a later one than this, needs an Approval; gives the generation.
async fn waits_for_approval(world: &World, after: i64) -> i64 {
    berth_tests::eventually(format!("the set waits for an Approval of a generation after {after}"), LONG, async || {
        let set = set(world).await.ok_or("no set yet")?;
        let said = set.status.and_then(|s| s.waiting_for).unwrap_or_default();
        let generation = set.metadata.generation.unwrap();
        let names_it = said.contains("CreateMachine") && said.contains(&format!("generation: {generation}"));
        if generation > after && names_it { Ok(generation) } else { Err(format!("{generation}: {said}")) }
    })
    .await
    .unwrap()
}

/// Says yes to the set's machines, as it is now.
async fn approve(world: &World) {
    let generation = set(world).await.unwrap().metadata.generation;
    let target = json!({"kind": "VMReplicaSet", "name": "web", "generation": generation});
    let approval = berth_testing::approval(json!({
        "metadata": {"name": null, "generateName": "web-"},
        "spec": {"target": target, "gate": "CreateMachine", "reason": "more load"}
    }));
    let api: Api<berth_core::api::Approval> = Api::namespaced(world.berth.client(), "default");
    api.create(&PostParams::default(), &approval).await.unwrap();
}
