//! What a set does with its machines while the application serves: repairs, replacements, and the gate of their creation.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

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
use parking_lot::Mutex;
use serde_json::json;

use crate::world::{LONG, World, is_in, machine_id, uid};

/// What the watch of Servers has shown since it began.
#[derive(Default)]
struct FleetHistory {
    ready: BTreeMap<String, bool>,
    fewest_ready: Option<usize>,
    most: usize,
}

impl FleetHistory {
    fn record(&mut self) {
        let ready = self.ready.values().filter(|ready| **ready).count();
        self.fewest_ready = Some(self.fewest_ready.map_or(ready, |fewest| fewest.min(ready)));
        self.most = self.most.max(self.ready.len());
    }
}

/// Watches how many Servers receive traffic, and returns the fewest so far.
pub(crate) fn watch_traffic(world: &World) -> Arc<Mutex<Option<usize>>> {
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
                // The watch was interrupted, and may have missed changes.
                Ok(Event::Init) | Err(_) => {
                    *shared.lock() = Some(0);
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
            let mut fewest = shared.lock();
            *fewest = Some(fewest.map_or(now, |before| before.min(now)));
        }
    });
    fewest
}

/// Watches how many Servers there are, and how many of them are Ready.
fn start_watch(world: &World) -> Arc<Mutex<FleetHistory>> {
    let (api, history) = (world.servers(), Arc::new(Mutex::new(FleetHistory::default())));
    let shared = history.clone();
    tokio::spawn(async move {
        let events = watcher::watcher(api, watcher::Config::default()).default_backoff();
        pin_mut!(events);
        while let Some(event) = events.next().await {
            let mut history = shared.lock();
            match event {
                Ok(Event::InitApply(server)) => {
                    history.ready.insert(server.name_any(), is_in(State::Ready)(&server));
                    continue;
                }
                // Servers that are being deleted do not count.
                Ok(Event::Apply(server)) if server.metadata.deletion_timestamp.is_some() => {
                    history.ready.remove(&server.name_any());
                }
                Ok(Event::Apply(server)) => {
                    history.ready.insert(server.name_any(), is_in(State::Ready)(&server));
                }
                Ok(Event::Delete(server)) => {
                    history.ready.remove(&server.name_any());
                }
                Ok(Event::InitDone) => {}
                _ => continue,
            }
            history.record();
        }
    });
    history
}

async fn watch_servers(world: &World) -> Arc<Mutex<FleetHistory>> {
    let history = start_watch(world);
    let begun = berth_tests::eventually("the watch shows the Servers", LONG, async || {
        crate::world::check(history.lock().fewest_ready.is_some(), || "not yet".to_owned())
    });
    begun.await.unwrap();
    history
}

/// Runs a command on a Server's machine that Berth knows nothing about.
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
    let history = watch_servers(&world).await;
    // The controller is down meanwhile, so that one round of checks finds all machines drifted.
    world.berth.kill9(Part::ReplicasetController).unwrap();
    for server in &servers {
        on_machine(&world, server, "rm -rf opt/berth/packages/tool").await;
    }
    world.berth.restart(Part::ReplicasetController).await.unwrap();
    for server in &servers {
        let repaired = berth_tests::eventually(format!("{} is repaired", server.name_any()), LONG, async || {
            let there = on_machine(&world, server, "cat opt/berth/packages/tool/current/version || true").await;
            crate::world::check(there.trim() == "1", || format!("{there:?}"))
        });
        repaired.await.unwrap();
    }
    let after = world.ready(3).await;
    assert_eq!(servers.iter().map(uid).collect::<Vec<_>>(), after.iter().map(uid).collect::<Vec<_>>());
    assert_eq!(history.lock().fewest_ready, Some(2), "one at a time");
    assert!(!world.events("Drifted").await.is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_machines_are_replaced_within_surge_and_budget() {
    let world = World::start().await;
    let strategy = json!({"type": "Replace", "maxSurge": 1, "maxUnavailable": 0});
    world.deploy(3, |v| v["spec"]["updateStrategy"] = strategy).await;
    let before = world.ready(3).await;
    for server in &before {
        world.gets_traffic(&server.name_any()).await;
    }
    let (history, traffic) = (watch_servers(&world).await, watch_traffic(&world));
    world.patch(json!({"spec": {"template": {"spec": {"machine": {"flavor": "large"}}}}})).await;
    let new = |server: &Server| server.spec.machine.flavor.as_deref() == Some("large");
    let after = world.ready_when(3, new).await;
    for old in &before {
        assert!(after.iter().all(|s| s.uid() != old.uid() && machine_id(s) != machine_id(old)), "{}", old.name_any());
    }
    let gone = berth_tests::eventually("the old machines are gone", LONG, async || {
        let there = world.berth.machines().all().map_err(|e| e.to_string())?.len();
        crate::world::check(there == 3, || format!("{there}"))
    });
    gone.await.unwrap();
    let (fewest, most) = {
        let history = history.lock();
        (history.fewest_ready, history.most)
    };
    assert!(fewest >= Some(3), "never fewer than three: {fewest:?}");
    assert_eq!(most, 4, "one beyond replicas");
    assert!(*traffic.lock() >= Some(3), "three receive traffic at any time: {traffic:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_approval_covers_a_scale_out_and_no_later_one() {
    let world = World::start().await;
    world.deploy(2, |v| v["spec"]["template"]["spec"]["gates"] = json!([{"before": "CreateMachine"}])).await;
    let first = waits_for_approval(&world, 0).await;
    assert!(world.berth.machines().all().unwrap().is_empty(), "nothing is created before the Approval");
    approve(&world).await;
    world.ready(2).await;
    world
        .deployments()
        .patch_scale("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await
        .unwrap();
    world.server("web-2", "waits", |s| s.status.as_ref().is_some_and(|s| s.waiting_for.is_some())).await;
    let second = waits_for_approval(&world, first).await;
    assert_eq!(world.berth.machines().all().unwrap().len(), 2, "the first Approval was of another generation");
    approve(&world).await;
    let servers = world.ready(3).await;
    let gate_messages = |server: &Server| {
        let tasks = server.status.iter().flat_map(|s| &s.tasks);
        tasks.filter(|t| t.kind == TaskKind::Gate).map(|t| t.message.clone()).collect::<String>()
    };
    assert!(gate_messages(&servers[2]).contains(&format!("generation {second}")), "{}", gate_messages(&servers[2]));
    world.end().await;
}

/// Waits until the set waits for an Approval of its generation, which must be later than `after`; returns the generation.
async fn waits_for_approval(world: &World, after: i64) -> i64 {
    berth_tests::eventually(format!("the set waits for an Approval of a generation after {after}"), LONG, async || {
        let set = set(world).await.ok_or("no set yet")?;
        let waiting_for = set.status.and_then(|s| s.waiting_for).unwrap_or_default();
        let generation = set.metadata.generation.unwrap();
        let names_it =
            waiting_for.contains("CreateMachine") && waiting_for.contains(&format!("generation: {generation}"));
        if generation > after && names_it { Ok(generation) } else { Err(format!("{generation}: {waiting_for}")) }
    })
    .await
    .unwrap()
}

/// Approves the creation of machines for the set's present generation.
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
