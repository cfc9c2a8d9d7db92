//! Retirement: traffic and monitoring end, the machine is destroyed, and only then the object is deleted.

use std::time::Duration;

use berth_core::api::{Server, TrafficPhase};
use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, WatchEvent, WatchParams},
};
use serde_json::json;

use crate::world::{World, traffic, uid};

/// Whether traffic, monitoring and machine still existed, in each version of the object.
type Left = (bool, bool, bool);

fn left(server: &Server) -> Left {
    let status = server.status.clone().unwrap_or_default();
    let machine = status.machine.is_some_and(|m| m.phase != berth_core::api::MachinePhase::Gone);
    (status.traffic.is_some(), status.monitoring.is_some(), machine)
}

/// Watches the Server until its object is gone.
async fn follow(api: Api<Server>, server: Server) -> Vec<Left> {
    let params = WatchParams::default().fields(&format!("metadata.name={}", server.name_any()));
    let version = server.resource_version().unwrap();
    let mut stream = api.watch(&params, &version).await.unwrap().boxed();
    let mut history = vec![left(&server)];
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            WatchEvent::Modified(server) => history.push(left(&server)),
            WatchEvent::Deleted(server) => {
                history.push(left(&server));
                return history;
            }
            _ => {}
        }
    }
    panic!("the watch ended before the Server was gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_or_offline_server_is_retired_in_order() {
    let world = World::start().await;
    world.deploy(2, |v| v["spec"]["template"]["spec"]["traffic"]["drain"]["seconds"] = json!(2)).await;
    let mut servers = world.ready(2).await;
    let (offline, deleted) = (servers.remove(1), servers.remove(0));
    let uids = [uid(&offline), uid(&deleted)];

    let watches = [follow(world.servers(), offline.clone()), follow(world.servers(), deleted.clone())];
    let watching = tokio::spawn(futures::future::join_all(watches));
    world.patch_server(&offline.name_any(), json!({"spec": {"offline": true}})).await;
    world
        .server(&offline.name_any(), "drains before it is removed", |s| traffic(s) == Some(TrafficPhase::Draining))
        .await;
    assert_eq!(world.endpoints().await[&offline.name_any()], (false, true, true), "open connections may finish");
    world.servers().delete(&deleted.name_any(), &DeleteParams::default()).await.unwrap();

    let histories = tokio::time::timeout(Duration::from_secs(90), watching).await.unwrap().unwrap();
    for history in histories {
        assert_eq!(history.first(), Some(&(true, true, true)), "{history:?}");
        assert_eq!(history.last(), Some(&(false, false, false)), "{history:?}");
        for (traffic, monitoring, machine) in &history {
            assert!(
                *machine || !(*traffic || *monitoring),
                "the machine went before traffic and monitoring: {history:?}"
            );
        }
        for (before, after) in history.iter().zip(&history[1..]) {
            let came_back = (!before.0 && after.0) || (!before.1 && after.1) || (!before.2 && after.2);
            assert!(!came_back, "something came back: {history:?}");
        }
    }
    // The set replaces them by Servers with new machines.
    let replaced = world.ready_when(2, |s| !uids.contains(&uid(s))).await;
    assert_eq!(replaced.len(), 2);
    for uid in uids {
        assert!(!world.has_machine(&uid), "the machine of {uid} is left");
    }
    world.deployments().delete("web", &DeleteParams::default()).await.unwrap();
    world.nothing_left().await;
    world.end().await;
}
