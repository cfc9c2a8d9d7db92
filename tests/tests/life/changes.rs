//! Changed declarations are applied to the existing machines.

use std::collections::BTreeMap;

use berth_core::api::{Server, State, TaskKind};
use kube::ResourceExt;
use serde_json::json;

use crate::world::{World, is_in, machine_id, succeeded};

fn ids(servers: &[Server]) -> BTreeMap<String, Option<String>> {
    servers.iter().map(|s| (s.name_any(), machine_id(s))).collect()
}

fn revision(server: &Server) -> Option<&str> {
    server.status.as_ref()?.app.as_ref().map(|app| app.revision.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_and_packages_are_updated_on_the_same_machines() {
    let world = World::start().await;
    world.deploy(3, |_| ()).await;
    let before = world.ready(3).await;

    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    let after = world.ready_when(3, |s| revision(s) == Some("v2")).await;
    assert_eq!(ids(&before), ids(&after), "new code replaces no machine");
    for server in &after {
        world.assert_answers(server, "v2").await;
    }

    let deployed: BTreeMap<_, _> = after.iter().map(|s| (s.name_any(), deployed_at(s))).collect();
    let packages = json!([world.package("tool", "2"), world.package("theme", "1")]);
    world.patch(json!({"spec": {"template": {"spec": {"packages": packages}}}})).await;
    let installed = world.ready_when(3, |s| version(s, "tool").as_deref() == Some("2")).await;
    assert_eq!(ids(&before), ids(&installed), "new packages replace no machine");
    for server in &installed {
        assert_eq!(version(server, "theme").as_deref(), Some("1"));
        assert_eq!(deployed.get(&server.name_any()), Some(&deployed_at(server)), "the code is untouched");
        assert!(succeeded(server, TaskKind::HoldTraffic) >= 1, "traffic was held meanwhile");
        assert!(visited(server, State::Initializing) && visited(server, State::Deploying));
        world.assert_answers(server, "v2").await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_machine_makes_its_server_unknown_and_held_until_it_is_verified_again() {
    let world = World::start_without_floor().await;
    world.deploy(1, |_| ()).await;
    let before = world.ready(1).await.remove(0);
    let uid = before.uid();
    world.berth.machines().kill(uid).unwrap();
    // The fact may be written before HoldTraffic has ended; waiting for the next task, too, means that it has.
    let awaited = |s: &Server| waits_for(s, "AwaitRecovery by monitor-controller");
    world.server("web-0", "Unknown, held and awaited", |s| is_in(State::Unknown)(s) && held(s) && awaited(s)).await;
    assert_eq!(world.endpoints().await["web-0"], (false, false, false));

    world.berth.machines().reboot(uid).await.unwrap();
    let after = world.ready(1).await.remove(0);
    assert_eq!((after.uid(), machine_id(&after)), (before.uid(), machine_id(&before)), "the machine is the same");
    let states: Vec<_> = after.status.as_ref().unwrap().transitions.iter().map(|t| t.to).collect();
    let tail = &states[states.len() - 4..];
    assert_eq!(tail, [State::Unknown, State::Initializing, State::Deploying, State::Ready]);
    world.assert_answers(&after, "v1").await;
    world.gets_traffic("web-0").await;
    world.end().await;
}

fn held(server: &Server) -> bool {
    crate::world::traffic(server) == Some(berth_core::api::TrafficPhase::Held)
}

fn waits_for(server: &Server, what: &str) -> bool {
    server.status.iter().flat_map(|s| &s.waiting_for).any(|w| w.contains(what))
}

fn deployed_at(server: &Server) -> Option<String> {
    let fact = server.status.as_ref()?.app.as_ref()?;
    fact.deployed_at.as_ref().map(|t| t.0.to_string())
}

fn version(server: &Server, package: &str) -> Option<String> {
    let fact = server.status.as_ref()?.environment.as_ref()?;
    fact.packages.iter().find(|p| p.name == package).map(|p| p.version.clone())
}

fn visited(server: &Server, state: State) -> bool {
    server.status.iter().flat_map(|s| &s.transitions).any(|t| t.to == state)
}
