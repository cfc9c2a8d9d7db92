//! What probes say takes no more than half of a Service out of traffic.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use berth_core::api::{Server, State, TaskKind};
use berth_tests::eventually;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

use crate::{
    balanced::lb_metric_is,
    world::{LONG, World, describe, is_in, succeeded, uid},
};

/// Watches how many endpoints of the Service are ready.
struct Watcher {
    least: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    fn start(world: &World) -> Self {
        let slices: Api<EndpointSlice> = Api::namespaced(world.berth.client(), "default");
        let (least, over) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicBool::new(false)));
        let (lowest, is_over) = (Arc::clone(&least), Arc::clone(&over));
        let task = tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(list) = slices.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await {
                    let endpoints = list.items.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default());
                    let ready = endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
                    lowest.fetch_min(ready.count(), Ordering::Relaxed);
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        Self { least, over, task }
    }

    /// The lowest number since the start.
    async fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.least.load(Ordering::Relaxed)
    }
}

/// Waits until all Servers are in this state and two of the four are kept in traffic. Returns the names of those.
async fn two_are_kept(world: &World, state: State) -> Vec<String> {
    let message = "HoldTraffic by lb-controller: kept in traffic by the panic floor of Service web: 2 of 4 Servers serve, at least 2 must";
    let is_kept = |server: &&Server| {
        server.status.iter().flat_map(|s| &s.waiting_for).any(|waiting_for| waiting_for.contains(message))
    };
    let kept = eventually(format!("all {state:?}, two kept in traffic"), LONG, async || {
        let servers = world.list().await;
        let kept: Vec<String> = servers.iter().filter(is_kept).map(ResourceExt::name_any).collect();
        let ready: Vec<String> =
            world.endpoints().await.into_iter().filter(|(_, (ready, ..))| *ready).map(|(name, _)| name).collect();
        let holds = servers.len() == 4 && servers.iter().all(is_in(state)) && kept.len() == 2 && kept == ready;
        if holds { Ok(kept) } else { Err(format!("ready {ready:?}, kept {kept:?}, {}", describe(&servers))) }
    });
    kept.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()))
}

/// The value of the gauge of kept Servers.
async fn says_kept(world: &World, count: usize) {
    lb_metric_is(world, &format!("berth_panic_floor_servers {count}")).await;
}

/// The application on this Server's machine is healthy while the file exists.
fn health_file(world: &World, server: &Server) -> PathBuf {
    world.berth.machines().of(&uid(server)).root().join("opt/berth/apps/web/current/www/healthz")
}

async fn all_get_traffic(world: &World) {
    for server in world.ready(4).await {
        world.gets_traffic(&server.name_any()).await;
    }
    says_kept(world, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_that_fail_for_all_servers_leave_half_of_them_in_traffic() {
    let world = World::start().await;
    // Long enough that no CheckHealth fails for good: then the Server would wait for a person first of all.
    world.deploy(4, |v| v["spec"]["template"]["spec"]["healthCheck"]["deadlineSeconds"] = json!(600)).await;
    let servers = world.ready(4).await;
    all_get_traffic(&world).await;

    // No machine answers any more, as when the network of monitor-controller fails.
    let watcher = Watcher::start(&world);
    for server in &servers {
        world.berth.machines().kill(&uid(server)).unwrap();
    }
    two_are_kept(&world, State::Unknown).await;
    says_kept(&world, 2).await;
    assert!(!world.events("KeptInTraffic").await.is_empty());
    assert_eq!(watcher.end().await, 2, "the floor was broken");

    // They answer again. Each is verified without traffic, at the floor one at a time.
    let watcher = Watcher::start(&world);
    for server in &servers {
        world.berth.machines().reboot(&uid(server)).await.unwrap();
    }
    all_get_traffic(&world).await;
    assert!(watcher.end().await >= 1, "all were verified at once");

    // No application is healthy any more.
    let watcher = Watcher::start(&world);
    for server in &servers {
        std::fs::remove_file(health_file(&world, server)).unwrap();
    }
    two_are_kept(&world, State::Deploying).await;
    for server in &servers {
        std::fs::write(health_file(&world, server), "ok").unwrap();
    }
    all_get_traffic(&world).await;
    assert_eq!(watcher.end().await, 2, "the floor was broken");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_server_of_a_service_stays_in_traffic_while_it_is_sick_and_new_code_repairs_it() {
    let world = World::start().await;
    world.deploy(1, |_| ()).await;
    let server = world.ready(1).await.remove(0);
    world.gets_traffic("web-0").await;
    std::fs::remove_file(health_file(&world, &server)).unwrap();
    let is_kept = |server: &Server| {
        server.status.iter().flat_map(|s| &s.tasks).any(|task| task.message.contains("1 of 1 Servers serve"))
    };
    world.server("web-0", "kept in traffic", |s| is_in(State::Deploying)(s) && is_kept(s)).await;
    assert_eq!(world.endpoints().await["web-0"], (true, true, false));

    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    let repaired =
        world.ready_when(1, |s| s.status.as_ref().unwrap().app.as_ref().unwrap().revision == "v2").await.remove(0);
    assert_eq!(repaired.uid(), server.uid());
    assert!(succeeded(&repaired, TaskKind::HoldTraffic) >= 1, "it was drained before");
    world.gets_traffic("web-0").await;
    world.assert_answers(&repaired, "v2").await;
    world.end().await;
}
