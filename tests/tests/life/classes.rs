//! Unusable MachineClasses, and orphans.

use std::collections::BTreeMap;

use berth_core::{api::MachineClass, lifecycle::ABANDON_ANNOTATION};
use berth_tests::{Options, Part, eventually};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::world::{LONG, World, check};

fn classes(world: &World) -> Api<MachineClass> {
    Api::all(world.berth.client())
}

async fn change_class(world: &World, name: &str, spec: Value) {
    classes(world).patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
}

/// Waits for an Event about an object of this kind.
async fn wait_for_event(world: &World, kind: &str, reason: &str) -> Event {
    eventually(format!("an Event {reason} about a {kind}"), LONG, async || {
        let events = world.events(reason).await;
        let found = events.iter().find(|event| event.involved_object.kind.as_deref() == Some(kind)).cloned();
        found.ok_or_else(|| format!("{} Events {reason}", events.len()))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_machines_are_created_while_their_class_is_unusable() {
    let world = World::start().await;
    world.deploy(2, |v| v["spec"]["template"]["spec"]["machine"]["className"] = json!("mine")).await;
    let message = world.set_condition("Stalled", "ClassNotFound").await;
    assert!(message.contains("\"mine\""), "{message}");
    wait_for_event(&world, "VMReplicaSet", "ClassNotFound").await;

    let access = json!({"user": "berth", "port": 2222, "root": "opt/berth"});
    let class = berth_testing::machine_class(
        json!({"metadata": {"name": "mine"}, "spec": {"provider": "moon", "access": access}}),
    );
    classes(&world).create(&PostParams::default(), &class).await.unwrap();
    let message = world.set_condition("Stalled", "UnknownProvider").await;
    assert!(message.contains("moon") && message.contains("local"), "the providers are named: {message}");
    wait_for_event(&world, "VMReplicaSet", "UnknownProvider").await;

    // Admission knows the names of parameters, and the driver their values.
    change_class(&world, "mine", json!({"provider": "incus", "parameters": {"endpoint": "unix://relative"}})).await;
    let message = world.set_condition("Stalled", "InvalidParameters").await;
    assert!(message.contains("spec.parameters.endpoint"), "{message}");
    wait_for_event(&world, "VMReplicaSet", "InvalidParameters").await;
    assert!(world.list().await.is_empty() && world.berth.machines().all().unwrap().is_empty(), "nothing was created");

    change_class(&world, "mine", json!({"provider": "local", "parameters": null})).await;
    world.ready(2).await;
    world.set_condition("Stalled", "Progressing").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_is_reported_or_destroyed_as_its_class_declares() {
    let arguments = BTreeMap::from([(Part::ReplicasetController, vec!["--orphan-period".to_owned(), "1".to_owned()])]);
    let world = World::start_with(Options { arguments, ..Options::default() }).await;
    world.deploy(2, |_| ()).await;
    change_class(&world, "local", json!({"orphanPolicy": "Report", "orphanGraceSeconds": 0})).await;
    let before = world.ready(2).await;
    let (abandoned, uid) = (before[0].name_any(), before[0].uid().to_owned());

    // The finalizer is removed while no controller runs that would destroy the machine first.
    world.berth.kill9(Part::ReplicasetController).unwrap();
    let patch = json!({"metadata": {"annotations": {ABANDON_ANNOTATION: "its host burned down"}, "finalizers": null}});
    world.servers().delete(&abandoned, &DeleteParams::default()).await.unwrap();
    world.patch_server(&abandoned, patch).await;
    world.berth.restart(Part::ReplicasetController).await.unwrap();

    let event = wait_for_event(&world, "MachineClass", "Orphan").await;
    assert!(event.message.is_some_and(|m| m.contains(&uid) && m.contains("orphanPolicy")));
    let after = world.ready_when(2, |server| server.uid() != uid).await;
    assert!(world.has_machine(&uid), "it is only reported");

    change_class(&world, "local", json!({"orphanPolicy": "Delete"})).await;
    let gone =
        eventually("the orphan is destroyed", LONG, async || check(!world.has_machine(&uid), || "it exists".into()));
    gone.await.unwrap();
    wait_for_event(&world, "MachineClass", "OrphanDestroyed").await;
    for server in &after {
        assert!(world.has_machine(server.uid()), "{} keeps its machine", server.name_any());
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_stays_at_its_place_until_its_last_machine_is_gone() {
    let world = World::start().await;
    world.deploy(2, |_| ()).await;
    world.ready(2).await;
    let spec = json!({"provider": "simulated"});
    let moved = Patch::Merge(json!({"spec": spec}));
    let refused = classes(&world).patch("local", &PatchParams::default(), &moved).await.unwrap_err().to_string();
    assert!(refused.contains("spec.provider: the class is in use"), "{refused}");

    // Deleted, it gives no more machines, and those that exist stay.
    classes(&world).delete("local", &DeleteParams::default()).await.unwrap();
    let event = wait_for_event(&world, "MachineClass", "InUse").await;
    assert!(event.message.is_some_and(|m| m.contains("2 do (default/web-0, default/web-1)")));
    world.patch(json!({"spec": {"replicas": 3}})).await;
    let message = world.set_condition("Stalled", "ClassDeleted").await;
    assert!(message.contains("MachineClass local is being deleted"), "{message}");
    world.ready(2).await;

    // Their machines are destroyed through it, and then it goes.
    world.deployments().delete("web", &DeleteParams::default()).await.unwrap();
    world.nothing_left().await;
    let gone = eventually("the class is gone", LONG, async || {
        let class = classes(&world).get_opt("local").await.map_err(|error| error.to_string())?;
        check(class.is_none(), || format!("{:?}", class.map(|class| class.metadata)))
    });
    gone.await.unwrap();
    world.end().await;
}
