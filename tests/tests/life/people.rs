//! What people decide: gates, failed tasks, and force.

use berth_core::{
    api::{Approval, State, TaskKind, TaskPhase, TrafficPhase, VMReplicaSet},
    conditions::{self, STALLED},
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use crate::world::{LONG, World, check, is_in, is_settled, traffic};

async fn decide(client: &Client, task: i64, decision: &str) -> Approval {
    let api: Api<Approval> = Api::namespaced(client.clone(), "default");
    let approval = berth_testing::approval(json!({
        "metadata": {"name": null, "generateName": "web-0-"},
        "spec": {
            "taskID": task, "decision": decision, "reason": "reviewed",
            "approver": {"username": "somebody-else", "at": "2001-01-01T00:00:00Z"}
        }
    }));
    api.create(&PostParams::default(), &approval).await.unwrap()
}

async fn gate(world: &World) -> i64 {
    let open = |s: &berth_core::api::Server| {
        let tasks = s.status.iter().flat_map(|s| &s.tasks);
        tasks.filter(|t| t.kind == TaskKind::Gate && t.phase == TaskPhase::Pending).map(|t| t.id).next()
    };
    let waiting = world.server("web-0", "waits for an approval", |s| is_in(State::Ready)(s) && open(s).is_some()).await;
    let message = waiting.status.clone().unwrap().waiting_for.unwrap();
    assert!(
        message.contains("approval of task") && message.contains("ReleaseTraffic") && message.contains("by a person"),
        "{message}"
    );
    open(&waiting).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_before_traffic_waits_for_a_person() {
    let world = World::start().await;
    world.deploy(1, |v| v["spec"]["template"]["spec"]["gates"] = json!([{"before": "ReleaseTraffic"}])).await;
    let task = gate(&world).await;
    assert!(!world.endpoints().await.contains_key("web-0"), "no traffic before the Approval");

    let alice = world.berth.control_plane().user_client("alice", &["system:masters"]).await.unwrap();
    let refusal = decide(&alice, task, "Refuse").await;
    assert_eq!(refusal.spec.approver.unwrap().username, "alice", "the webhook overwrites what was written");
    let refused = world
        .server("web-0", "its gate was refused", |s| {
            s.status.as_ref().is_some_and(|s| conditions::get_true(&s.conditions, STALLED).is_some())
        })
        .await;
    let status = refused.status.unwrap();
    let stalled = conditions::get(&status.conditions, STALLED).unwrap();
    assert_eq!(stalled.reason, "GateRefused");
    assert!(stalled.message.contains("alice") && stalled.message.contains("reviewed"), "{}", stalled.message);
    assert!(!world.endpoints().await.contains_key("web-0"));

    // A retry opens the gate again, and this time it is approved.
    world.patch_server("web-0", json!({"spec": {"retry": {"id": "again"}}})).await;
    let again = gate(&world).await;
    assert!(again > task);
    decide(&alice, again, "Approve").await;
    let server = world.ready(1).await.remove(0);
    assert_eq!(traffic(&server), Some(TrafficPhase::Serving));
    let message = server.status.iter().flat_map(|s| &s.tasks).find(|t| t.id == again).unwrap().message.clone();
    assert!(message.contains("alice"), "{message}");
    world.gets_traffic("web-0").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_task_waits_until_a_person_repairs_its_cause() {
    let world = World::start().await;
    world
        .deploy(1, |v| {
            v["spec"]["template"]["spec"]["packages"][0]["archive"]["sha256"] = json!("0".repeat(64));
            v["spec"]["template"]["spec"]["taskAttempts"] = json!(2);
        })
        .await;
    let is_stalled = |s: &berth_core::api::Server| {
        is_in(State::Initializing)(s)
            && s.status.as_ref().is_some_and(|s| conditions::get_true(&s.conditions, STALLED).is_some())
    };
    let stalled = world.server("web-0", "stalled", is_stalled).await;
    let status = stalled.status.clone().unwrap();
    let message = &conditions::get(&status.conditions, STALLED).unwrap().message;
    assert!(
        message.contains("InstallPackages") && message.contains("SHA-256") && message.contains("tool"),
        "{message}"
    );
    berth_tests::eventually("an Event", LONG, async || {
        let events = world.events("TaskFailed").await;
        check(events.iter().any(|e| e.note_contains("SHA-256")), || format!("{} events", events.len()))
    })
    .await
    .unwrap();

    // A person does the step by hand and forces the state; the Server continues from there.
    world
        .patch_server("web-0", json!({"spec": {"force": {"state": "Deploying", "reason": "installed by hand"}}}))
        .await;
    let forced = world.server("web-0", "deployed in the forced state", |s| {
        is_in(State::Deploying)(s) && s.status.as_ref().is_some_and(|s| s.health.is_some() && s.app.is_some())
    });
    let forced = forced.await;
    let force = forced.spec.force.unwrap();
    assert!(force.by.is_some() && force.at.is_some(), "the webhook adds author and time");
    // It may be registered or not, because it left Initializing before that task was certain to end.
    let forced = world.servers().get("web-0").await.unwrap();
    assert!(matches!(traffic(&forced), None | Some(TrafficPhase::Held)), "Deploying gets no traffic: {forced:?}");
    assert!(world.endpoints().await.get("web-0").is_none_or(|shown| *shown == (false, false, false)));

    // Then the cause is repaired. The force stands until the person ends it: the roll-out spares the Server, and the set says so.
    let packages = json!([world.package("tool", "1"), world.package("theme", "1")]);
    world.patch(json!({"spec": {"template": {"spec": {"packages": packages}}}})).await;
    let sets: Api<VMReplicaSet> = Api::namespaced(world.berth.client(), "default");
    berth_tests::eventually("the set waits for the person", LONG, async || {
        let waiting_for =
            sets.get("web").await.unwrap().status.and_then(|status| status.waiting_for).unwrap_or_default();
        check(waiting_for.contains("web-0") && waiting_for.contains("installed by hand"), || waiting_for.clone())
    })
    .await
    .unwrap();
    let forced = world.servers().get("web-0").await.unwrap();
    assert!(forced.is_forced() && is_in(State::Deploying)(&forced), "{forced:?}");
    world.patch_server("web-0", json!({"spec": {"force": null}})).await;
    world.server("web-0", "Ready", is_settled).await;
    world.end().await;
}

trait Note {
    fn note_contains(&self, text: &str) -> bool;
}

impl Note for k8s_openapi::api::core::v1::Event {
    fn note_contains(&self, text: &str) -> bool {
        self.message.as_deref().is_some_and(|m| m.contains(text))
    }
}
