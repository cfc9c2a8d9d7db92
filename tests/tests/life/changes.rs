//! Changed declarations are applied to the existing machines.

use std::collections::BTreeMap;

use berth_core::{
    api::{Server, State, TaskKind},
    conditions::{STALLED, get_true},
};
use berth_tests::Archive;
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

#[tokio::test(flavor = "multi_thread")]
async fn after_failed_canaries_a_roll_back_works_without_the_artifact_store() {
    let world = World::start().await;
    let stable = world.app("v1");
    world.deploy(1, |v| v["spec"]["template"]["spec"]["healthCheck"]["deadlineSeconds"] = json!(2)).await;
    world.ready(1).await;
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port 8080 --root ./www\n";
    for canary in ["v2", "v3", "v4", "v5"] {
        let name = format!("canary-{canary}.tar");
        let archive = Archive::new().executable("run", run).file("www/index.html", canary).build().unwrap();
        let artifact = world.berth.artifacts().put(&name, archive);
        let app = json!({"revision": canary, "artifact": {"url": artifact.url, "sha256": artifact.sha256}});
        world.patch(json!({"spec": {"app": app}})).await;
        let has_failed = |server: &Server| {
            let is_stalled = server.status.as_ref().is_some_and(|s| get_true(&s.conditions, STALLED).is_some());
            revision(server) == Some(canary) && is_stalled
        };
        world.server("web-0", &format!("{canary} has failed"), has_failed).await;
    }
    world.berth.artifacts().remove("web-v1.tar");
    world.patch(json!({"spec": {"app": stable}})).await;
    let after = world.ready_when(1, |s| revision(s) == Some("v1")).await.remove(0);
    world.assert_answers(&after, "v1").await;
    world.end().await;
}
