//! The panic floor of a Service.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Server, TrafficPhase},
    lifecycle::HoldCause,
};
use futures::{StreamExt, future::join_all};
use k8s_openapi::api::core::v1::{Event, Service};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use lb_controller::{
    balancer::{BalancerError, LoadBalancer},
    kept::Kept,
    member::Member,
};
use serde_json::{Value, json};

use crate::lab::{Lab, LbCopy, NAMESPACE, apply_all, later};
use TrafficPhase::{Draining, Held, Serving};

const WAIT: Duration = Duration::from_secs(30);

/// Servers that all serve.
async fn serving(lab: &Lab, lb: &LbCopy, servers: usize) -> Vec<Server> {
    let created =
        join_all((0..servers).map(|n| async move { lab.server(n, &format!("10.0.0.{}", n + 1)).await })).await;
    let released: Vec<Member> = created.iter().map(|server| later(server, 0, Some(Serving))).collect();
    for result in apply_all(&[&lb.slices], &with_held(&released)).await {
        result.unwrap();
    }
    for result in apply_all(&[&lb.slices], &released).await {
        result.unwrap();
    }
    assert_eq!(lab.ready().await, servers);
    created
}

/// The same without traffic: an endpoint is added only as its Server says.
fn with_held(members: &[Member]) -> Vec<Member> {
    let held = |member: &Member| {
        let mut held = member.clone();
        held.desired.as_mut().unwrap().phase = Held;
        held
    };
    members.iter().map(held).collect()
}

fn hold(server: &Server, phase: TrafficPhase, held_for: Option<HoldCause>) -> Member {
    Member { must_record_version: true, held_for, ..later(server, 1, Some(phase)) }
}

/// What the floor keeps. Other failures fail the test.
fn kept(results: &[Result<(), BalancerError>]) -> Vec<&Kept> {
    let kept = |result: &'_ Result<(), BalancerError>| matches!(result, Err(BalancerError::Kept(_)));
    assert!(results.iter().all(|result| result.is_ok() || kept(result)), "{results:?}");
    results
        .iter()
        .filter_map(|result| match result {
            Err(BalancerError::Kept(kept)) => Some(kept),
            _ => None,
        })
        .collect()
}

async fn create_service(lab: &Lab, name: &str, threshold: Option<&str>) {
    let annotations = threshold.map(|threshold| json!({"berth.dev/panic-threshold": threshold}));
    let service = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"ports": [{"port": 80}]}});
    let services = Api::<Service>::namespaced(lab.client.clone(), NAMESPACE);
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sickness_leaves_half_of_a_service_in_traffic_whichever_copy_holds() {
    let lab = Lab::start().await;
    let (one, two) = (lab.copy().await, lab.copy().await);
    let servers = serving(&lab, &one, 8).await;

    // Both copies hold all of them at once.
    let sick: Vec<Member> = servers.iter().map(|server| hold(server, Held, Some(HoldCause::Sick))).collect();
    let results = apply_all(&[&one.slices, &two.slices], &sick).await;
    assert_eq!(lab.ready().await, 4);
    let messages: Vec<String> = kept(&results).iter().map(ToString::to_string).collect();
    let expected = "kept in traffic by the panic floor of Service web: 4 of 8 Servers serve, at least 4 must";
    assert!(messages.len() == 8 && messages.iter().all(|message| message == expected), "{messages:?}");

    // Whoever is changed or retired goes, and then no sick one.
    let endpoints = lab.endpoints().await;
    let serving = |server: &&Server| endpoints[&server.name_any()].conditions.as_ref().unwrap().ready == Some(true);
    let still: Vec<&Server> = servers.iter().filter(serving).collect();
    let changed = [hold(still[0], Draining, None), Member { desired: None, ..hold(still[1], Held, None) }];
    assert_eq!(kept(&apply_all(&[&two.slices], &changed).await).len(), 0);
    assert_eq!(lab.ready().await, 2);
    let returning = hold(still[2], Draining, Some(HoldCause::Returning));
    let counts = kept(&[one.slices.apply(&returning).await]).first().map(|kept| kept.counts).unwrap();
    assert_eq!((counts.serving, counts.registered, counts.needed), (2, 7, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_declares_its_own_threshold_and_a_wrong_one_is_reported() {
    let lab = Lab::start().await;
    let lb = lab.copy().await;
    create_service(&lab, "web", Some("20%")).await;
    let servers = serving(&lab, &lb, 5).await;
    let sick: Vec<Member> = servers.iter().map(|server| hold(server, Held, Some(HoldCause::Sick))).collect();
    assert_eq!(kept(&apply_all(&[&lb.slices], &sick).await).len(), 1);
    assert_eq!(lab.ready().await, 1);
    assert!(lb.slices.problems(&sick[0]).await.unwrap().is_empty());

    create_service(&lab, "api", Some("half")).await;
    let mut elsewhere = sick[0].clone();
    elsewhere.desired.as_mut().unwrap().services[0].name = "api".into();
    let problems = lb.slices.problems(&elsewhere).await.unwrap();
    assert_eq!(problems.len(), 1);
    let message = &problems[0].message;
    assert_eq!(problems[0].reason, "PanicThresholdInvalid");
    assert!(message.contains("berth.dev/panic-threshold") && message.contains("\"half\""), "{message}");
    assert!(message.contains("Service \"api\"") && message.contains("50% is used instead"), "{message}");
}

/// The status of a Ready Server whose machine does not answer any more.
fn silent(n: usize) -> Value {
    let task = json!({"id": 1, "kind": "HoldTraffic", "step": 1, "phase": "Pending", "executor": "lb-controller"});
    json!({"state": "Unknown", "firstTaskID": 1, "lastTaskID": 1, "tasks": [task],
           "traffic": {"phase": "Serving", "backends": [{"service": "web", "port": 8080}], "address": format!("10.0.0.{}", n + 1)}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_server_says_so_once_and_goes_when_another_one_serves() {
    let lab = Lab::start().await;
    let mut lb = lab.copy().await;
    create_service(&lab, "web", None).await;
    let servers = serving(&lab, &lb, 2).await;
    let held = |phase, held_for| hold(&servers[0], phase, held_for);
    lb.slices.apply(&held(Held, Some(HoldCause::Sick))).await.unwrap();

    let lost = lab.status("web-1", silent(1)).await;
    lb.servers.catch_up_with(&lost).await;
    lb.reconciler.reconcile(lost.clone()).await.unwrap();
    assert_eq!(lab.ready().await, 1, "the last one stays");
    let servers_api = Api::<Server>::namespaced(lab.client.clone(), NAMESPACE);
    let said = servers_api.get("web-1").await.unwrap();
    let report = serde_json::to_value(said.status.as_ref().unwrap().report.as_ref().unwrap()).unwrap();
    let expected = "kept in traffic by the panic floor of Service web: 1 of 2 Servers serve, at least 1 must";
    assert_eq!((&report["outcome"], &report["message"]), (&json!("Waiting"), &json!(expected)));

    // The webhook carries the report out. From then on nothing is written.
    let mut status = silent(1);
    status["tasks"][0]["message"] = json!(expected);
    status["report"] = Value::Null;
    let said = lab.status("web-1", status).await;
    lb.servers.catch_up_with(&said).await;
    for _ in 0..3 {
        lb.reconciler.reconcile(said.clone()).await.unwrap();
    }
    assert_eq!(servers_api.get("web-1").await.unwrap().resource_version(), said.resource_version());
    let events = Api::<Event>::namespaced(lab.client.clone(), NAMESPACE);
    tokio::time::timeout(WAIT, async {
        let published = async || {
            let found = events.list(&ListParams::default()).await.unwrap().items;
            found.iter().any(|e| e.reason.as_deref() == Some("KeptInTraffic") && e.message.as_deref() == Some(expected))
        };
        while !published().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(lb.kept.of(NAMESPACE, "Service web").len(), 1);

    // The other Server is back: the kept one is looked at again, and goes.
    let server = later(&servers[0], 2, Some(Serving));
    lb.slices.apply(&server).await.unwrap();
    let looked_at = tokio::time::timeout(WAIT, async {
        loop {
            let server = lb.changes.next().await.unwrap();
            if server.name == "web-1" {
                return server;
            }
        }
    });
    assert_eq!(looked_at.await.unwrap().uid, said.uid());
    lb.reconciler.reconcile(Arc::clone(&said)).await.unwrap();
    let endpoints = lab.endpoints().await;
    let ready = |name: &str| endpoints[name].conditions.as_ref().unwrap().ready;
    assert_eq!((ready("web-0"), ready("web-1")), (Some(true), Some(false)));
    assert!(lb.kept.of(NAMESPACE, "Service web").is_empty());
}
