use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header::CONNECTION},
};
use berth_testing::manifest;
use serde_json::{Value, json};
use tokio::time::{advance, timeout};
use tower::ServiceExt as _;

use super::*;
use crate::envoy::EnvoyClasses;

fn class(spec: &Value) -> BalancerClass {
    let mut whole = json!({"driver": "Envoy", "envoy": {"proxies": 1}});
    json_patch::merge(&mut whole, spec);
    serde_json::from_value(manifest("BalancerClass", "edge", whole)).unwrap()
}

fn entry(name: &str, address: &str, phase: TrafficPhase) -> (EntryKey, Entry) {
    let key = EntryKey { backend: "web".into(), name: name.into() };
    (key, Entry { address: address.into(), port: 80, weight: 100, phase })
}

fn first_entries() -> BTreeMap<EntryKey, Entry> {
    [entry("a", "10.0.0.1", TrafficPhase::Serving), entry("b", "10.0.0.2", TrafficPhase::Serving)].into()
}

async fn begin(driver: &Arc<dyn Driver>, leads: &Arc<AtomicBool>) {
    let leads = Arc::clone(leads);
    let leads: Leads = Arc::new(move || leads.load(Ordering::Relaxed));
    driver.begin(Box::pin(async { first_entries() }), leads).await;
}

/// A class that has begun.
async fn begun(spec: Value) -> (EnvoyClasses, Arc<dyn Driver>, Arc<AtomicBool>) {
    let (classes, leads) = (EnvoyClasses::new(true), Arc::new(AtomicBool::new(true)));
    let driver = classes.driver(&class(&spec)).unwrap();
    begin(&driver, &leads).await;
    (classes, driver, leads)
}

async fn response(classes: &EnvoyClasses, proxy: &str, resource: &str, runs: &str) -> Response<Body> {
    let body = json!({"version_info": runs, "node": {"id": proxy}, "resource_names": [resource]});
    let request = Request::post("/v3/discovery:endpoints").body(Body::from(body.to_string())).unwrap();
    classes.routes().oneshot(request).await.unwrap()
}

/// A proxy asks twice, so that it has what it should have, and acts on that.
async fn ask(classes: &EnvoyClasses, proxy: &str) -> Value {
    let answer = response(classes, proxy, "edge/web", "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    advance(Duration::from_millis(100)).await;
    let version = answer["version_info"].as_str().unwrap();
    assert_eq!(response(classes, proxy, "edge/web", version).await.status(), StatusCode::NOT_MODIFIED);
    advance(Duration::from_millis(1300)).await;
    answer
}

async fn read(driver: &Arc<dyn Driver>, process: &str) -> Result<BTreeMap<String, Entry>, String> {
    let read = driver.read(process, &BTreeSet::new()).await.map_err(|error| error.to_string())?;
    Ok(read.entries.into_iter().map(|(key, found)| (key.name, found.entry)).collect())
}

#[tokio::test(start_paused = true)]
async fn nothing_counts_as_shown_before_a_proxy_has_acknowledged_it() {
    let (classes, driver, _) = begun(json!({})).await;
    assert_eq!(driver.processes(), [MISSING]);
    let why = read(&driver, MISSING).await.unwrap_err();
    assert!(why.contains("no proxy has asked for endpoints of edge/BACKEND"), "{why}");

    ask(&classes, "edge-1").await;
    assert_eq!(driver.processes(), ["edge-1"]);
    let wanted: BTreeMap<String, Entry> = first_entries().into_iter().map(|(key, entry)| (key.name, entry)).collect();
    assert_eq!(read(&driver, "edge-1").await.unwrap(), wanted);

    let (key, drained) = entry("a", "10.0.0.1", TrafficPhase::Draining);
    let results = driver.apply("edge-1", &Shown::default(), &[(key, Some(drained.clone()))]).await;
    assert_eq!(results, [Ok(())]);
    let shown = read(&driver, "edge-1").await.unwrap();
    assert_eq!((shown["a"].address.as_str(), shown["a"].phase), ("", TrafficPhase::Serving));
    assert_eq!(shown["b"], wanted["b"], "the others are as they were");
    ask(&classes, "edge-1").await;
    assert_eq!(read(&driver, "edge-1").await.unwrap()["a"], drained);
}

#[tokio::test(start_paused = true)]
async fn missing_and_silent_proxies_are_named_until_others_have_replaced_them() {
    let (classes, driver, _) = begun(json!({"envoy": {"proxies": 2}})).await;
    ask(&classes, "edge-1").await;
    assert_eq!(driver.processes(), [MISSING, "edge-1"].map(str::to_owned).into_iter().rev().collect::<Vec<_>>());
    let why = read(&driver, MISSING).await.unwrap_err();
    assert!(why.contains("1 of 2 proxies (spec.envoy.proxies) have asked"), "{why}");
    ask(&classes, "edge-2").await;
    assert_eq!(driver.processes(), ["edge-1", "edge-2"]);

    advance(Duration::from_mins(1)).await;
    ask(&classes, "edge-2").await;
    assert_eq!(driver.processes(), ["edge-1", "edge-2"], "a silent one may still send traffic");
    assert_eq!(read(&driver, "edge-1").await.unwrap_err(), "it has stopped to ask for endpoints");
    ask(&classes, "edge-3").await;
    assert_eq!(driver.processes(), ["edge-2", "edge-3"]);
}

#[tokio::test(start_paused = true)]
async fn only_the_copy_in_charge_answers_and_a_backend_without_servers_is_empty() {
    let (classes, driver, leads) = begun(json!({})).await;
    let empty = response(&classes, "edge-1", "edge/api", "").await;
    assert_eq!(empty.status(), StatusCode::OK);
    let shown = driver.read("edge-1", &BTreeSet::new()).await.unwrap();
    assert!(shown.backends.contains("api") && !shown.backends.contains("web"), "what it asks for: {shown:?}");
    assert_eq!(response(&classes, "edge-1", "web", "").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(response(&classes, "edge-1", "other/web", "").await.status(), StatusCode::NOT_FOUND);

    leads.store(false, Ordering::Relaxed);
    let refused = response(&classes, "edge-1", "edge/web", "").await;
    assert_eq!((refused.status(), refused.headers()[CONNECTION].to_str().unwrap()), (StatusCode::NOT_FOUND, "close"));
    leads.store(true, Ordering::Relaxed);
    drop(driver);
    assert_eq!(response(&classes, "edge-1", "edge/web", "").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn a_driver_begins_when_the_one_before_has_ended() {
    let (classes, before, leads) = begun(json!({})).await;
    let after = classes.driver(&class(&json!({"envoy": {"proxies": 2}}))).unwrap();
    assert!(timeout(Duration::from_mins(1), begin(&after, &leads)).await.is_err());
    drop(before);
    timeout(Duration::from_mins(1), begin(&after, &leads)).await.unwrap();
    assert_eq!(response(&classes, "edge-1", "edge/web", "").await.status(), StatusCode::OK);
}

#[test]
fn what_is_wrong_with_a_class_is_said_in_words() {
    let refused = |classes: EnvoyClasses, spec: Value| classes.driver(&class(&spec)).err().unwrap();
    let why = refused(EnvoyClasses::new(false), json!({}));
    assert!(why.contains("without --servers-address"), "{why}");
    let why = refused(EnvoyClasses::new(true), json!({"envoy": {"admins": ["10.0.0.7:99999"]}}));
    assert!(why.contains("spec.envoy.admins: \"10.0.0.7:99999\""), "{why}");
}
