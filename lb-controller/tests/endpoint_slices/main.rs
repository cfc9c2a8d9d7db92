//! EndpointSlices against a real kube-apiserver, written by two controllers at once.

#![expect(clippy::unwrap_used, reason = "this is a test")]

mod lab;
mod panic_floor;

use std::time::Duration;

use berth_core::api::{Server, TrafficPhase};
use futures::{StreamExt, TryStreamExt, future::join_all};
use k8s_openapi::api::{core::v1::Namespace, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use lab::{Lab, NAMESPACE, apply_all, later, member};
use lb_controller::{
    balancer::{BalancerError, LoadBalancer},
    member::{Member, ServerRef},
};
use serde_json::json;

use TrafficPhase::{Draining, Held, Serving};

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_register_release_hold_and_remove_a_fleet() {
    let lab = Lab::start().await;
    let (one, two) = (lab.load_balancer().await, lab.load_balancer().await);
    let both = [&one, &two];
    let servers: Vec<Server> = futures::stream::iter(0..230)
        .map(|n| {
            let lab = &lab;
            async move { Ok::<_, ()>(lab.server(n, &format!("10.0.{}.{}", n / 200, n % 200 + 1)).await) }
        })
        .buffer_unordered(16)
        .try_collect()
        .await
        .unwrap();

    // Both register all Servers at the same time: one endpoint each, no slice too full, few writes.
    let held: Vec<Member> = servers.iter().map(|server| member(server, Some(Held))).collect();
    for result in apply_all(&both, &held).await {
        result.unwrap();
    }
    assert_eq!(lab.endpoints().await.len(), 230);
    let slices = lab.slices().await;
    assert!(slices.iter().all(|slice| slice.endpoints.as_ref().unwrap().len() <= 100), "a slice is too full");
    let writes: i64 = slices.iter().map(|slice| slice.metadata.generation.unwrap_or(1)).sum();
    println!("230 Servers registered by two controllers: {} slices, {writes} writes", slices.len());
    assert!(writes <= 20, "{writes} writes");
    assert_eq!(lab.ready().await, 0);
    assert!(held.iter().all(|member| one.shows(member)));

    // Both release all of them.
    let serving: Vec<Member> = servers.iter().map(|server| later(server, 1, Some(Serving))).collect();
    for result in apply_all(&both, &serving).await {
        result.unwrap();
    }
    assert_eq!(lab.ready().await, 230);

    // One takes traffic away; the other still wants to release it, and cannot.
    let taken = Member { must_record_version: true, ..later(&servers[0], 2, Some(Held)) };
    one.apply(&taken).await.unwrap();
    assert!(matches!(two.apply(&serving[0]).await, Err(BalancerError::Superseded)));
    assert_eq!(lab.ready().await, 229);

    // A recorded version supersedes older decisions also where nothing else changed.
    let again = Member { must_record_version: true, ..later(&servers[0], 4, Some(Held)) };
    one.apply(&again).await.unwrap();
    assert!(matches!(two.apply(&later(&servers[0], 3, Some(Serving))).await, Err(BalancerError::Superseded)));

    // A draining endpoint looks like that of a Pod that terminates.
    one.apply(&later(&servers[1], 5, Some(Draining))).await.unwrap();
    let conditions = lab.endpoints().await[&servers[1].name_any()].conditions.clone().unwrap();
    assert_eq!((conditions.ready, conditions.serving, conditions.terminating), (Some(false), Some(true), Some(true)));

    // Both remove all of them: only slices that were full once are left, without endpoints.
    let gone: Vec<Member> = servers.iter().map(|server| later(server, 9, None)).collect();
    for result in apply_all(&both, &gone).await {
        result.unwrap();
    }
    assert!(lab.endpoints().await.is_empty());
    assert!(lab.slices().await.iter().all(|slice| slice.annotations().contains_key("berth.dev/closed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_slices_by_others_are_repaired() {
    let lab = Lab::start().await;
    let lb = lab.load_balancer().await;
    let (server, member_held) = {
        let server = lab.server(0, "10.0.0.1").await;
        let held = member(&server, Some(Held));
        (server, held)
    };
    lb.apply(&member_held).await.unwrap();
    let api = Api::<EndpointSlice>::namespaced(lab.client.clone(), NAMESPACE);
    let name = lab.slices().await[0].name_any();
    let noticed = || async {
        tokio::time::timeout(Duration::from_secs(10), async {
            while lb.shows(&member_held) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the change is noticed");
    };

    api.delete(&name, &DeleteParams::default()).await.unwrap();
    noticed().await;
    lb.apply(&member_held).await.unwrap();
    assert_eq!(lab.endpoints().await.len(), 1);

    let unlabelled = json!({"metadata": {"labels": null}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(&unlabelled)).await.unwrap();
    noticed().await;
    lb.apply(&member_held).await.unwrap();
    assert_eq!(lab.endpoints().await.len(), 1);

    let opened = json!([{"op": "replace", "path": "/endpoints/0/conditions/ready", "value": true},
                        {"op": "replace", "path": "/ports/0/port", "value": 22}]);
    let opened: json_patch::Patch = serde_json::from_value(opened).unwrap();
    api.patch(&name, &PatchParams::default(), &Patch::Json::<()>(opened)).await.unwrap();
    noticed().await;
    lb.apply(&member_held).await.unwrap();
    assert_eq!((lab.ready().await, lab.slices().await[0].ports.as_ref().unwrap()[0].port), (0, Some(8080)));

    // A Server that is gone gets no endpoint, whatever was decided on its last version.
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    noticed().await;
    Api::<Server>::namespaced(lab.client.clone(), NAMESPACE).delete("web-0", &DeleteParams::default()).await.unwrap();
    assert!(matches!(lb.apply(&member(&server, Some(Serving))).await, Err(BalancerError::Superseded)));
    assert!(lab.endpoints().await.is_empty());
}

/// Its deletion was seen before the endpoint was added, so nothing else would remove the endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_gone_when_it_was_registered_is_suspected() {
    let lab = Lab::start().await;
    lab.server(0, "10.0.0.1").await;
    let task = json!({"id": 1, "kind": "ReleaseTraffic", "step": 1, "phase": "Pending", "executor": "lb-controller"});
    let status = json!({"state": "Ready", "traffic": null, "firstTaskID": 1, "tasks": [task]});
    let releasing = lab.status("web-0", status).await;
    let mut lb = lab.copy().await;
    Api::<Server>::namespaced(lab.client.clone(), NAMESPACE).delete("web-0", &DeleteParams::default()).await.unwrap();
    lb.reconciler.reconcile(releasing.clone()).await.unwrap_err();
    assert_eq!((lab.endpoints().await.len(), lab.ready().await), (1, 0), "the endpoint gets no traffic");
    assert_eq!(lb.suspects.next().await, Some(ServerRef::of(&releasing)));
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_addresses_are_accepted_and_impossible_ones_hold_up_no_other_server() {
    let lab = Lab::start().await;
    let lb = lab.load_balancer().await;
    let good = member(&lab.server(0, "10.0.0.1").await, Some(Held));
    let loopback = member(&lab.server(1, "127.77.0.5").await, Some(Held));
    let impossible = member(&lab.server(2, "169.254.1.1").await, Some(Held));
    let results = join_all([lb.apply(&good), lb.apply(&loopback), lb.apply(&impossible)]).await;
    assert!(results[0].is_ok() && results[1].is_ok(), "{results:?}");
    let refusal = results[2].as_ref().unwrap_err();
    assert!(
        matches!(refusal, BalancerError::Refused { .. }) && refusal.to_string().contains("link-local"),
        "{refusal}"
    );
    let endpoints = lab.endpoints().await;
    assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["web-0", "web-1"]);
    assert_eq!(endpoints["web-1"].addresses, ["127.77.0.5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_completes_what_a_crashed_one_had_begun() {
    let lab = Lab::start().await;
    lab.server(0, "10.0.0.1").await;

    // The release was reported, and the process crashed before the endpoint became ready.
    let released = lab.status("web-0", json!({"state": "Ready", "traffic": {"phase": "Serving"}})).await;
    lab.reconciler().await.reconcile(released.clone()).await.unwrap();
    assert_eq!(lab.ready().await, 1);

    // A process that still has the older version of the Server changes nothing.
    let late = lab.reconciler().await;
    let left = lab.status("web-0", json!({"state": "Deploying"})).await;
    lab.reconciler().await.reconcile(left).await.unwrap();
    late.reconcile(released).await.unwrap();
    assert_eq!(lab.ready().await, 0, "the Server has left Ready");
}

/// A retirement must end there, although no EndpointSlice can show it any more.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_namespace_that_is_being_deleted_only_traffic_cannot_be_shown() {
    let lab = Lab::start().await;
    let namespaces = Api::<Namespace>::all(lab.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "ending"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let servers = Api::<Server>::namespaced(lab.client.clone(), "ending");
    let server = berth_testing::server(json!({
        // The finalizer keeps the namespace.
        "metadata": {"name": "web-0", "namespace": "ending", "finalizers": ["berth.dev/retire"]},
        // Until a person agrees to its retirement it keeps its traffic.
        "spec": {"traffic": {"backends": [{"service": "web", "port": 8080}]}, "gates": [{"before": "DestroyMachine"}]}
    }));
    servers.create(&PostParams::default(), &server).await.unwrap();
    namespaces.delete("ending", &DeleteParams::default()).await.unwrap();
    let is_deleted = |server: Option<&Server>| server.is_some_and(|s| s.metadata.deletion_timestamp.is_some());
    let deleted = await_condition(servers.clone(), "web-0", is_deleted);
    tokio::time::timeout(Duration::from_mins(1), deleted).await.unwrap().unwrap();
    let balancer = lab.load_balancer().await;
    let with = async |state: &str, phase: &str| {
        let status = json!({"status": {
            "state": state, "machine": {"phase": "Running", "address": "127.0.0.9"},
            "traffic": {"phase": phase, "backends": [{"service": "web", "port": 8080}], "address": "127.0.0.9"}}});
        servers.patch_status("web-0", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap()
    };
    let server = with("Ready", "Serving").await;
    let refused = balancer.apply(&member(&server, Some(Serving))).await.unwrap_err();
    assert!(matches!(refused, BalancerError::NamespaceEnding { .. }), "{refused}");
    let server = with("Offline", "Held").await;
    for phase in [Some(Held), None] {
        balancer.apply(&member(&server, phase)).await.unwrap();
    }
}
