//! From nothing to Ready, and up and down.

use std::collections::BTreeSet;

use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::world::{World, machine_id};

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_ready_and_scales_up_and_down() {
    let world = World::start().await;
    world.deploy(3, |_| ()).await;
    let three = world.ready(3).await;
    for server in &three {
        world.assert_answers(server, "v1").await;
    }
    for server in &three {
        world.gets_traffic(&server.name_any()).await;
    }
    let machines: BTreeSet<_> = three.iter().filter_map(machine_id).collect();
    assert_eq!(machines.len(), 3);

    world.patch(json!({"spec": {"replicas": 5}})).await;
    let five = world.ready(5).await;
    assert!(three.iter().all(|old| five.iter().any(|s| machine_id(s) == machine_id(old))), "the first three stay");

    let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
    world.deployments().patch_scale("web", &PatchParams::default(), &scale).await.unwrap();
    let two = world.ready(2).await;
    assert!(two.iter().all(|s| five.iter().any(|old| old.uid() == s.uid())), "two of the five stay");
    berth_tests::eventually("two machines and endpoints", crate::world::LONG, async || {
        let (machines, endpoints) = (world.berth.machines().all().unwrap().len(), world.endpoints().await.len());
        crate::world::check(machines == 2 && endpoints == 2, || format!("{machines} machines, {endpoints} endpoints"))
    })
    .await
    .unwrap();
    world.end().await;
}
