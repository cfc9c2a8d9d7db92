//! Failover of Servers whose machines stay unreachable.

use berth_core::api::{Server, State};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::world::{World, is_in, is_settled, machine_id};

/// Three Servers, with this failover policy.
async fn three(failover: Value) -> (World, Vec<Server>) {
    let world = World::start().await;
    world.deploy(3, |v| v["spec"]["failover"] = failover).await;
    let servers = world.ready(3).await;
    (world, servers)
}

fn names(servers: &[Server]) -> Vec<String> {
    servers.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_unreachable_is_replaced_and_its_machine_destroyed() {
    let (world, before) = three(json!({"waitSeconds": 2, "action": "Replace"})).await;
    world.berth.machines().kill(before[1].uid()).unwrap();
    // The name may be used again, but the Server is another object.
    let after = world.ready_when(3, |s| s.uid() != before[1].uid()).await;
    let stayed = |n: usize| after.iter().any(|s| s.uid() == before[n].uid() && machine_id(s) == machine_id(&before[n]));
    assert!(stayed(0) && stayed(2), "the others are unchanged");
    for server in &after {
        world.gets_traffic(&server.name_any()).await;
    }
    assert!(!world.has_machine(before[1].uid()), "its machine is destroyed");
    assert!(!world.events("Failover").await.is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_machine_is_rebooted_before_it_is_replaced() {
    let failover = json!({"waitSeconds": 2, "action": "Replace", "reboot": {"cooldownSeconds": 600}});
    let (world, before) = three(failover).await;
    world.berth.machines().kill(before[1].uid()).unwrap();
    world.server("web-1", "Unknown", is_in(State::Unknown)).await;
    let back = world.server("web-1", "Ready", is_settled).await;
    assert_eq!((back.uid(), machine_id(&back)), (before[1].uid(), machine_id(&before[1])));
    assert!(back.status.unwrap().observed_reboot.is_some());
    assert_eq!(names(&world.ready(3).await), ["web-0", "web-1", "web-2"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brake_keeps_failover_from_replacing_a_whole_fleet() {
    // Long enough for both to be unreachable before the first is due, and for the second to be back before it is due.
    let (world, before) = three(json!({"waitSeconds": 12, "action": "Replace"})).await;
    for server in &before[..2] {
        world.berth.machines().kill(server.uid()).unwrap();
    }
    let message = world.set_condition("Stalled", "TooManyUnknown").await;
    // The order of the names depends on which Server became unreachable first.
    assert!(message.contains("2 of 3 Servers") && message.contains("web-0") && message.contains("web-1"), "{message}");
    // The brake is released when the first is back. The other waits again, although its wait was over.
    for server in &before[..2] {
        world.berth.machines().reboot(server.uid()).await.unwrap();
        world.server(&server.name_any(), "reachable again", |s| !is_in(State::Unknown)(s)).await;
    }
    let after = world.ready(3).await;
    let ids = |servers: &[Server]| servers.iter().map(machine_id).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&after), "Servers that are back in time keep their machines");
    world.set_condition("Stalled", "Progressing").await;
    world.set_condition("FailoverHeld", "FewEnoughUnknown").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_machine_is_retained_for_diagnosis_and_replaced() {
    let failover = json!({"waitSeconds": 2, "action": "Replace", "retain": {"max": 1, "expirySeconds": 20}});
    let (world, before) = three(failover).await;
    let uid = before[1].uid();
    world.berth.machines().kill(uid).unwrap();
    let kept = world.server("web-1", "kept", |s| s.spec.retain.is_some() && is_in(State::Unknown)(s)).await;
    assert_eq!(kept.uid(), uid);
    world.server("web-3", "Ready in its place", is_settled).await;
    assert!(world.has_machine(uid), "its machine is still there");
    // It is retired when its retention expires.
    let after = world.ready(3).await;
    assert_eq!(names(&after), ["web-0", "web-2", "web-3"]);
    assert!(!world.has_machine(uid));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_by_shrinking_lowers_the_replicas_of_the_deployment() {
    let (world, before) = three(json!({"waitSeconds": 2, "action": "Shrink"})).await;
    world.berth.machines().kill(before[0].uid()).unwrap();
    let after = world.ready(2).await;
    assert_eq!(names(&after), ["web-1", "web-2"]);
    assert_eq!(world.deployments().get("web").await.unwrap().spec.replicas, 2);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_can_ask_a_person_who_then_deletes_the_server() {
    let (world, before) = three(json!({"waitSeconds": 2, "action": "AskHuman"})).await;
    world.berth.machines().kill(before[2].uid()).unwrap();
    let message = world.set_condition("Stalled", "AskHuman").await;
    assert!(message.contains("kubectl delete server web-2"), "{message}");
    world.servers().delete("web-2", &kube::api::DeleteParams::default()).await.unwrap();
    let after = world.ready_when(3, |s| s.uid() != before[2].uid()).await;
    assert_eq!(after.len(), 3);
    world.end().await;
}
