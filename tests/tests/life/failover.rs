//! Failover of Servers whose machines stay unreachable.

use berth_core::{
    api::{MachineClass, Server, State, VMReplicaSet},
    conditions,
};
use berth_testing::manifest;
use berth_tests::{BERTH_NAMESPACE, Part, eventually};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::world::{LONG, World, describe, is_in, is_settled, machine_id};

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

/// monitor-controller's report, made in its name, that it has not reached the machine for a minute.
async fn report_unreachable(world: &World, server: &str) {
    let client =
        world.berth.control_plane().service_account_client(BERTH_NAMESPACE, "monitor-controller").await.unwrap();
    let now = Timestamp::now();
    let since = now.checked_sub(SignedDuration::from_mins(1)).unwrap();
    let fact =
        json!({"reachable": false, "since": since.to_string(), "observedAt": now.to_string(), "message": "no route"});
    let servers: Api<Server> = Api::default_namespaced(client);
    let patch = Patch::Merge(json!({"status": {"reachability": fact}}));
    servers.patch_status(server, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_only_monitor_controller_cannot_reach_is_left_alone_until_it_is_dead() {
    let failover = json!({"waitSeconds": 1, "action": "Replace", "reboot": {"cooldownSeconds": 600}});
    let (world, before) = three(failover).await;
    world.berth.kill9(Part::MonitorController).unwrap();
    report_unreachable(&world, "web-1").await;
    world.server("web-1", "Unknown", is_in(State::Unknown)).await;
    let message = world.set_condition("Stalled", "MachineAnswers").await;
    assert!(message.starts_with("web-1: monitor-controller cannot reach the machine, but"), "{message}");
    let held = world.servers().get("web-1").await.unwrap();
    assert_eq!((held.uid(), machine_id(&held)), (before[1].uid(), machine_id(&before[1])));
    assert!(held.spec.reboot.is_none() && held.metadata.deletion_timestamp.is_none(), "{held:?}");
    let running = world.berth.machines().running().unwrap().len();
    assert_eq!(running, 3, "the machine runs on");
    let pod = world.berth.instances().into_iter().find(|i| i.part == Part::ReplicasetController).unwrap();
    let metrics = world.berth.metrics(&pod).await.unwrap();
    assert!(metrics.contains(r#"berth_failover_held_servers{reason="MachineAnswers"} 1"#), "{metrics}");

    // It is asked again, and found dead: first rebooted, as declared, and so it comes back.
    world.berth.machines().kill(before[1].uid()).unwrap();
    world.berth.restart(Part::MonitorController).await.unwrap();
    let back = world.server("web-1", "rebooted and Ready", |s| is_settled(s) && s.spec.reboot.is_some()).await;
    assert_eq!((back.uid(), machine_id(&back)), (before[1].uid(), machine_id(&before[1])));
    world.set_condition("Stalled", "Progressing").await;
    world.end().await;
}

/// Six sets of one Server each, of one class.
async fn six_sets_of_one(world: &World) -> Vec<Server> {
    let access = json!({"user": "berth", "port": 2222, "root": "opt/berth"});
    let labels = json!({"topology.kubernetes.io/zone": "z1"});
    let class = berth_testing::machine_class(json!({"metadata": {"labels": labels}, "spec": {"access": access}}));
    let classes: Api<MachineClass> = Api::all(world.berth.client());
    classes.create(&PostParams::default(), &class).await.unwrap();
    let sets: Api<VMReplicaSet> = Api::default_namespaced(world.berth.client());
    for n in 0..6 {
        let labels = json!({"set": format!("s{n}")});
        let spec = json!({
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "machine": {"className": "local"},
                "reachability": {"periodSeconds": 1, "timeoutSeconds": 1, "unreachableAfterSeconds": 2},
            }},
            "failover": {"waitSeconds": 15, "action": "Replace"},
        });
        let set = serde_json::from_value(manifest("VMReplicaSet", &format!("s{n}"), spec)).unwrap();
        sets.create(&PostParams::default(), &set).await.unwrap();
    }
    world.ready(6).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_of_one_whose_machines_all_vanish_at_once_keep_them() {
    let world = World::start().await;
    let before = six_sets_of_one(&world).await;
    for server in &before {
        world.berth.machines().kill(server.uid()).unwrap();
    }
    let sets: Api<VMReplicaSet> = Api::default_namespaced(world.berth.client());
    let all_held = eventually("all sets are held and due", LONG, async || {
        for n in 0..6 {
            let status = sets.get(&format!("s{n}")).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
            let is_held = |kind| {
                conditions::get_true(&status.conditions, kind).is_some_and(|c| c.reason == "TooManyUnknownInZone")
            };
            if !(is_held(conditions::FAILOVER_HELD) && is_held(conditions::STALLED)) {
                return Err(format!("s{n}: {:?}\n{}", status.conditions, describe(&world.list().await)));
            }
        }
        Ok(())
    });
    all_held.await.unwrap();
    let ids = |servers: &[Server]| servers.iter().map(|s| (s.uid().to_owned(), machine_id(s))).collect::<Vec<_>>();
    assert_eq!(ids(&world.list().await), ids(&before), "nothing is destroyed");
    assert_eq!(world.berth.machines().all().unwrap().len(), 6);
    // All but one come back. That one waits again, and is replaced.
    for server in &before[1..] {
        world.berth.machines().reboot(server.uid()).await.unwrap();
    }
    let after = world.ready_when(6, |server| server.uid() != before[0].uid()).await;
    assert_eq!(ids(&after)[1..], ids(&before)[1..]);
    world.end().await;
}
