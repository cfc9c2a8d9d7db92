//! Artifacts that are brought to machines ahead of their turn: how long traffic is held with it and without it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_core::api::{Server, TrafficPhase};
use berth_tests::{Options, eventually};
use kube::{Api, ResourceExt, api::ListParams};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    deployment_status::status,
    world::{LONG, World, check, is_settled, traffic},
    writes::writes,
};

/// How long a machine downloads an artifact.
const DOWNLOAD: Duration = Duration::from_secs(6);

/// When traffic was taken from Servers and given back, in the order in which it was taken.
struct Holds {
    holds: Arc<Mutex<Vec<Hold>>>,
    watch: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Hold {
    server: String,
    began: Instant,
    ended: Option<Instant>,
}

impl Holds {
    fn watch(servers: Api<Server>) -> Self {
        let holds = Arc::new(Mutex::new(Vec::<Hold>::new()));
        let seen = holds.clone();
        let watch = tokio::spawn(async move {
            loop {
                let now = Instant::now();
                for server in servers.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
                    let is_held = traffic(&server) != Some(TrafficPhase::Serving);
                    let name = server.name_any();
                    let mut seen = seen.lock();
                    let open = seen.iter_mut().find(|hold| hold.server == name && hold.ended.is_none());
                    match (open, is_held) {
                        (Some(hold), false) => hold.ended = Some(now),
                        (None, true) => seen.push(Hold { server: name, began: now, ended: None }),
                        (Some(_), true) | (None, false) => {}
                    }
                }
                // How exactly it is measured.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { holds, watch }
    }

    /// How long traffic was held, once every Server has it again.
    async fn end(self) -> Vec<Duration> {
        let done = eventually("traffic everywhere", LONG, async || {
            let holds = self.holds.lock().clone();
            check(holds.iter().all(|hold| hold.ended.is_some()), || format!("{holds:?}"))
        });
        done.await.unwrap();
        self.watch.abort();
        let holds = self.holds.lock();
        holds.iter().filter_map(|hold| Some(hold.ended?.duration_since(hold.began))).collect()
    }
}

/// Lets something happen that goes over all Servers. How long it took, how long traffic was held on each, and what was written about them.
async fn go_over(
    world: &World,
    patch: serde_json::Value,
    is_done: impl Fn(&Server) -> bool,
) -> (Duration, Vec<Duration>, BTreeMap<String, u32>) {
    let (before, start, holds) = (writes(world), Instant::now(), Holds::watch(world.servers()));
    world.patch(patch).await;
    let first = eventually("the first Server is done", LONG, async || {
        let servers = world.list().await;
        let has_traffic = |server: &Server| traffic(server) == Some(TrafficPhase::Serving);
        check(servers.iter().any(|server| is_done(server) && is_settled(server) && has_traffic(server)), || {
            crate::world::describe(&servers)
        })
    });
    first.await.unwrap();
    let took = start.elapsed();
    world.ready_when(3, &is_done).await;
    let holds = holds.end().await;
    let about_servers = writes(world).into_iter().filter(|(name, _)| name.contains(" servers"));
    let written = about_servers.map(|(name, count)| (name.clone(), count - before.get(&name).copied().unwrap_or(0)));
    (took, holds, written.filter(|(_, count)| *count > 0).collect())
}

fn runs(revision: &'static str) -> impl Fn(&Server) -> bool {
    move |server| {
        let app = server.status.as_ref().and_then(|status| status.app.as_ref());
        app.is_some_and(|app| app.revision == revision)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_is_not_held_for_a_download_that_is_made_ahead() {
    let control_plane = berth_control_plane::ControlPlaneOptions { audit: true, ..Default::default() };
    let world = World::start_with(Options { control_plane, ..Options::default() }).await;
    world.deploy(3, |_| ()).await;
    world.ready(3).await;
    // A restart is refused as long as the first revision is being rolled out.
    status(&world, "v1 is stable", |status| status.stable_revision.as_deref() == Some("v1")).await;
    let slow_app = |revision: &str| {
        let app = world.app(revision);
        world.berth.artifacts().slow_down(&format!("web-{revision}.tar"), DOWNLOAD);
        app
    };

    // What drain, the application's restart and its health check take.
    let request = json!({"action": "Restart", "id": "1", "reason": "to compare"});
    let restarted = |server: &Server| server.spec.app.as_ref().is_some_and(|app| app.restart.is_some());
    let patch = json!({"spec": {"rollout": {"request": request}}});
    let (_, of_restart, _) = go_over(&world, patch, restarted).await;

    let (early, without, written_without) = go_over(&world, json!({"spec": {"app": slow_app("v2")}}), runs("v2")).await;
    let patch = json!({"spec": {"app": slow_app("v3"), "rollout": {"stageAhead": "100%"}}});
    let (first, with, written_with) = go_over(&world, patch, runs("v3")).await;
    println!("held for a restart {of_restart:?}, without staging {without:?}, with staging {with:?}");
    let fastest = early.min(first);
    println!("until the first Server serves the new revision: {early:?}, {first:?}, with a download of {DOWNLOAD:?}");
    println!("writes without staging {written_without:?}, with staging {written_with:?}");

    assert_eq!((of_restart.len(), without.len(), with.len()), (3, 3, 3));
    assert!(without.iter().all(|held| *held >= DOWNLOAD), "{without:?}");
    let longest_restart = of_restart.into_iter().max().unwrap();
    assert!(
        with.iter().all(|held| *held < longest_restart + Duration::from_secs(1)),
        "{with:?}, and {longest_restart:?} for a restart"
    );
    assert_eq!(written_with, written_without);
    // Beyond the download, the drain, and the time for which DeployApp watches the application.
    let overhead = fastest.saturating_sub(DOWNLOAD + Duration::from_secs(1) + Duration::from_secs(2));
    assert!(overhead < Duration::from_secs(2), "{overhead:?} of {fastest:?}");
    assert_eq!(world.berth.artifacts().requests("web-v3.tar"), 3, "each machine downloads once");
    for server in world.list().await {
        world.assert_answers(&server, "v3").await;
    }
    world.end().await;
}
