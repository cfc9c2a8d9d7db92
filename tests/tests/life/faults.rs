//! Crashes in the middle of tasks, and two copies of every controller: Servers become Ready all the same.

use std::collections::BTreeSet;

use berth_core::api::{Server, State, TaskKind, TaskPhase, TrafficPhase};
use berth_testing::manifest;
use berth_tests::Part;
use k8s_openapi::{
    api::admissionregistration::v1::MutatingWebhookConfiguration,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject},
};
use serde_json::json;

use crate::world::{World, uid};

/// Every machine has a Server, and no Server has two.
async fn assert_machines_match(world: &World) {
    let servers: BTreeSet<String> = world.list().await.iter().map(uid).collect();
    let machines = world.berth.machines().all().unwrap();
    let owners: BTreeSet<String> = machines.iter().map(|(uid, _)| uid.clone()).collect();
    assert_eq!(machines.len(), owners.len(), "a Server with two machines");
    assert!(owners.is_subset(&servers), "machines without a Server: {:?}", owners.difference(&servers));
    let running = world.berth.machines().running().unwrap();
    let addresses: BTreeSet<_> = running.iter().map(|m| &m.address).collect();
    assert_eq!(addresses.len(), running.len(), "two machines with one address");
}

fn begun(server: &Server, kind: TaskKind) -> bool {
    server.status.iter().flat_map(|s| &s.tasks).any(|t| t.kind == kind && t.phase == TaskPhase::Running)
}

/// Waits until a Server runs a task of this kind, or has finished it, because a quick task can end between two checks.
async fn in_the_middle_of(world: &World, kind: TaskKind) -> bool {
    let found = berth_tests::eventually(format!("a Server does {kind}"), crate::world::LONG, async || {
        let servers = world.list().await;
        if servers.iter().any(|s| begun(s, kind)) {
            return Ok(true);
        }
        let past = servers.iter().any(|s| crate::world::succeeded(s, kind) > 0);
        if past { Ok(false) } else { Err(crate::world::describe(&servers)) }
    });
    found.await.unwrap()
}

async fn kill_in(world: &World, kind: TaskKind, part: Part) {
    in_the_middle_of(world, kind).await;
    world.berth.kill9(part).unwrap();
    assert_machines_match(world).await;
    world.berth.restart(part).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_become_ready_although_programs_are_killed_in_each_kind_of_task() {
    let world = World::start().await;
    world.deploy(2, |_| ()).await;
    kill_in(&world, TaskKind::CreateMachine, Part::ReplicasetController).await;
    kill_in(&world, TaskKind::InstallPackages, Part::ReplicasetController).await;
    kill_in(&world, TaskKind::DeployApp, Part::DeploymentController).await;
    kill_in(&world, TaskKind::CheckHealth, Part::MonitorController).await;
    kill_in(&world, TaskKind::ReleaseTraffic, Part::LbController).await;
    world.ready(2).await;
    assert_machines_match(&world).await;

    // An application that is declared while the webhook is down is deployed completely once it is up.
    world.berth.kill9(Part::Webhook).unwrap();
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    world.berth.restart(Part::Webhook).await.unwrap();
    kill_in(&world, TaskKind::HoldTraffic, Part::LbController).await;
    kill_in(&world, TaskKind::DeployApp, Part::Webhook).await;
    let servers =
        world.ready_when(2, |s| s.status.as_ref().unwrap().app.as_ref().is_some_and(|a| a.revision == "v2")).await;
    for server in &servers {
        world.assert_answers(server, "v2").await;
    }

    // A machine dies together with monitor-controller.
    let lost = &servers[0];
    world.berth.machines().kill(&uid(lost)).unwrap();
    world.server(&lost.name_any(), "Unknown", crate::world::is_in(State::Unknown)).await;
    world.berth.kill9(Part::MonitorController).unwrap();
    world.berth.machines().reboot(&uid(lost)).await.unwrap();
    world.berth.restart(Part::MonitorController).await.unwrap();
    world.ready(2).await;

    // Only a Server without traffic has a task RemoveBackend; otherwise the end of draining removes the backend.
    world.patch_server("web-0", json!({"spec": {"force": {"state": "Deploying", "reason": "held"}}})).await;
    let held = |s: &Server| crate::world::traffic(s) == Some(TrafficPhase::Held);
    world.server("web-0", "held", held).await;
    world.deployments().delete("web", &DeleteParams::default()).await.unwrap();
    kill_in(&world, TaskKind::HoldTraffic, Part::LbController).await;
    kill_in(&world, TaskKind::RemoveBackend, Part::LbController).await;
    kill_in(&world, TaskKind::UnbindMonitoring, Part::MonitorController).await;
    kill_while_machines_are_destroyed(&world).await;
    world.nothing_left().await;
    world.end().await;
}

/// DestroyMachine is quick, so the controller is killed at an arbitrary point.
async fn kill_while_machines_are_destroyed(world: &World) {
    world.berth.kill9(Part::ReplicasetController).unwrap();
    world.berth.restart(Part::ReplicasetController).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_of_every_controller_do_everything_once() {
    let world = World::start().await;
    for part in Part::CONTROLLERS {
        world.berth.start_copy(part).await.unwrap();
    }
    world.deploy(3, |_| ()).await;
    let servers = world.ready(3).await;
    assert_machines_match(&world).await;
    for server in &servers {
        let created = crate::world::succeeded(server, TaskKind::CreateMachine);
        assert_eq!(created, 1, "{}: counted once", server.name_any());
    }
    world.patch(json!({"spec": {"replicas": 5, "app": world.app("v2")}})).await;
    let five =
        world.ready_when(5, |s| s.status.as_ref().unwrap().app.as_ref().is_some_and(|a| a.revision == "v2")).await;
    assert_machines_match(&world).await;
    for server in &five {
        world.assert_answers(server, "v2").await;
    }
    world.patch(json!({"spec": {"replicas": 1}})).await;
    world.ready(1).await;
    world.deployments().delete("web", &DeleteParams::default()).await.unwrap();
    world.nothing_left().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_object_is_ignored_and_reported() {
    let world = World::start().await;
    plant_undecodable(&world).await;
    world.deploy(1, |_| ()).await;
    world.server("web-0", "Ready beside the undecodable one", crate::world::is_settled).await;
    for part in Part::CONTROLLERS {
        let instance = world.berth.instance(part, 1).unwrap();
        let metrics = world.berth.metrics(&instance).await.unwrap();
        let counted = metrics.lines().any(|l| l.contains("undecodable") && !l.starts_with('#') && !l.ends_with(" 0"));
        assert!(counted, "{part:?} does not count it:\n{metrics}");
    }
    assert!(!world.events("Undecodable").await.is_empty(), "no Event says so");
    give_up(&world, "bad").await;
    world.end().await;
}

/// A person abandons a Server that cannot be decoded: its finalizer can be removed only with a reason.
async fn give_up(world: &World, name: &str) {
    let resource = ApiResource::erase::<Server>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(world.berth.client(), "default", &resource);
    let params = PatchParams::default();
    // It was stored without the webhook, which adds the finalizer.
    let held = Patch::Merge(json!({"metadata": {"finalizers": ["berth.dev/retire"]}}));
    api.patch(name, &params, &held).await.unwrap();
    api.delete(name, &DeleteParams::default()).await.unwrap();
    let without = |annotations: serde_json::Value| {
        Patch::Merge(json!({"metadata": {"finalizers": null, "annotations": annotations}}))
    };
    let refused = api.patch(name, &params, &without(json!({}))).await.unwrap_err().to_string();
    assert!(refused.contains("berth.dev/abandon"), "{refused}");
    api.patch(name, &params, &without(json!({"berth.dev/abandon": "nothing is left of it"}))).await.unwrap();
    assert!(api.get_opt(name).await.unwrap().is_none());
}

/// Stores a Server that this version cannot decode, as an older version of the schema may have left one.
async fn plant_undecodable(world: &World) {
    let client = world.berth.client();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/taskAttempts";
    let lax = json!([{"op": "replace", "path": path, "value": {"x-kubernetes-preserve-unknown-fields": true}}]);
    let lax = Patch::Json::<()>(serde_json::from_value(lax).unwrap());
    crds.patch("servers.berth.dev", &PatchParams::default(), &lax).await.unwrap();
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let mut configuration = configurations.get("berth").await.unwrap();
    configurations.delete("berth", &DeleteParams::default()).await.unwrap();

    let resource = ApiResource::erase::<Server>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &resource);
    let bad = manifest("Server", "bad", json!({"machine": {"className": "local"}, "taskAttempts": "many"}));
    let bad: DynamicObject = serde_json::from_value(bad).unwrap();
    berth_tests::eventually("the undecodable Server is stored", crate::world::LONG, async || {
        api.create(&PostParams::default(), &bad).await.map(|_| ()).map_err(|e| e.to_string())
    })
    .await
    .unwrap();
    // The other controllers watch only Servers that have a state.
    let begun = Patch::Merge(json!({"status": {"state": "Ready"}}));
    api.patch_status("bad", &PatchParams::default(), &begun).await.unwrap();
    configuration.metadata = kube::core::ObjectMeta { name: Some("berth".into()), ..Default::default() };
    configurations.create(&PostParams::default(), &configuration).await.unwrap();
    // The new configuration takes effect after a moment.
    let marked = manifest("Server", "probe", json!({"machine": {"className": "local"}}));
    let marked: DynamicObject = serde_json::from_value(marked).unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    berth_tests::eventually("the webhook is asked", crate::world::LONG, async || {
        let created = api.create(&dry, &marked).await.map_err(|e| e.to_string())?;
        crate::world::check(!created.finalizers().is_empty(), || "not yet".to_owned())
    })
    .await
    .unwrap();
}
