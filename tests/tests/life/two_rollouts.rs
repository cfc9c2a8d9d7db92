//! New code and a new environment go out at once, while every program is killed: the budget and the locks hold all the same.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use berth_core::api::{Lock, Server, TaskKind, TaskPhase};
use berth_tests::{Part, eventually};
use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    deployment_status::runs,
    world::{LONG, World, address, check, describe, is_settled},
};

/// The machine of a task that was cut off is locked for a minute and a half, and that happens twice.
const ALL_LIMIT: Duration = Duration::from_mins(6);

/// How many of the applications at these addresses did not answer at the same time: the most, until it is told to stop.
fn count_silent(addresses: Vec<String>, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let mut most = 0;
        while !stop.load(Ordering::Relaxed) {
            let asked = addresses.iter().map(|address| client.get(format!("http://{address}:8080/")).send());
            let silent = futures::future::join_all(asked).await.iter().filter(|answer| answer.is_err()).count();
            most = most.max(silent);
            sleep(Duration::from_millis(50)).await;
        }
        most
    })
}

/// What is wrong with the change of a Server's lock from one to another.
fn problem(before: &Server, after: &Server) -> Option<String> {
    let (old, new) = (before.lock()?, after.lock()?);
    let is_same = |a: &Lock, b: &Lock| (&a.holder, a.task_id) == (&b.holder, b.task_id);
    // By the webhook's clock, which is this one's.
    let is_over = old.is_expired(Timestamp::now());
    let is_reported = after.task(old.task_id).is_none_or(|task| task.phase.is_finished() || task.not_before.is_some());
    (!is_same(old, new) && !is_over && !is_reported).then(|| format!("{}: {old:?}, then {new:?}", after.name_any()))
}

/// The locks that were taken although another holder had them, until it is told to stop.
fn watch_locks(world: &World, stop: Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
    let servers = world.servers();
    tokio::spawn(async move {
        let (mut known, mut problems) = (BTreeMap::<String, Server>::new(), Vec::new());
        let mut changes = Box::pin(watcher(servers, watcher::Config::default()).default_backoff().applied_objects());
        while !stop.load(Ordering::Relaxed) {
            let next = tokio::time::timeout(Duration::from_millis(200), changes.next()).await;
            let Ok(Some(Ok(server))) = next else { continue };
            if let Some(before) = known.insert(server.name_any(), server.clone()) {
                problems.extend(problem(&before, &server));
            }
        }
        problems
    })
}

/// Kills a program while a Server does a task of this kind, unless none is left that does; it comes back at once.
async fn kill_in(world: &World, kind: TaskKind, part: Part) {
    let is_running = |server: &Server| {
        let mut tasks = server.status.iter().flat_map(|status| &status.tasks);
        tasks.any(|task| task.kind == kind && task.phase == TaskPhase::Running)
    };
    let found = eventually(format!("a Server does {kind}"), LONG, async || {
        let servers = world.list().await;
        let is_over = servers.iter().all(|server| is_new(server) && is_settled(server));
        check(is_over || servers.iter().any(is_running), || describe(&servers))
    });
    found.await.unwrap();
    world.berth.kill9(part).unwrap();
    world.berth.restart(part).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn code_and_environment_at_once_keep_budget_and_locks_while_programs_are_killed() {
    let world = World::start().await;
    world.deploy(4, |v| v["spec"]["updateStrategy"]["maxUnavailable"] = json!(2)).await;
    let servers = world.ready(4).await;
    let stop = Arc::<AtomicBool>::default();
    let silent = count_silent(servers.iter().map(address).collect(), stop.clone());
    let locks = watch_locks(&world, stop.clone());

    let packages = json!([world.package("tool", "2"), world.package("theme", "1")]);
    let template = json!({"spec": {"packages": packages}});
    world.patch(json!({"spec": {"app": world.app("v2"), "template": template}})).await;
    kill_in(&world, TaskKind::InstallPackages, Part::LbController).await;
    kill_in(&world, TaskKind::DeployApp, Part::DeploymentController).await;
    kill_in(&world, TaskKind::InstallPackages, Part::Webhook).await;
    kill_in(&world, TaskKind::CheckHealth, Part::MonitorController).await;
    kill_in(&world, TaskKind::InstallPackages, Part::ReplicasetController).await;
    let all = eventually("all are new and Ready", ALL_LIMIT, async || {
        let servers = world.list().await;
        let is_done = servers.len() == 4 && servers.iter().all(|server| is_new(server) && is_settled(server));
        check(is_done, || describe(&servers)).map(|()| servers)
    });
    for server in all.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs())) {
        world.assert_answers(&server, "v2").await;
    }
    stop.store(true, Ordering::Relaxed);
    let silent = silent.await.unwrap();
    assert!((1..=2).contains(&silent), "{silent} applications were away at once; the budget is 2");
    assert_eq!(locks.await.unwrap(), Vec::<String>::new());
    world.end().await;
}

fn is_new(server: &Server) -> bool {
    let facts = server.status.iter().filter_map(|status| status.environment.as_ref());
    runs(server, "v2") && facts.flat_map(|fact| &fact.packages).any(|p| p.name == "tool" && p.version == "2")
}
