//! Real traffic through real Envoys in front of real machines.

use berth_testing::manifest;
use berth_tests::{Client, Envoy, Part};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{
    balanced::{answered, behind_class, class_is, classes, create_class, gets, none_failed, says, start_serving},
    held::HeldWindows,
    world::World,
};

/// Taking a Server out takes a proxy two changes, so it may last longer than with HAProxy.
const DRAIN_SECONDS: i32 = 20;

async fn class(world: &World, envoy: Value) {
    create_class(world, json!({"driver": "Envoy", "envoy": envoy})).await;
}

/// Waits until this proxy has endpoints: the fact that a Server serves comes before.
async fn has_endpoints(envoy: &Envoy, text: &str) {
    let client = Client::start(envoy.frontend());
    answered(&client, text).await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_through_envoy_is_lost_while_code_number_and_lb_controller_change() {
    let (world, servers) = start_serving().await;
    let envoy = Envoy::start("edge-1", servers).await.unwrap();
    class(&world, json!({"admins": [envoy.admin().to_string()], "proxies": 1})).await;
    world.deploy(4, behind_class(DRAIN_SECONDS)).await;
    world.ready(4).await;
    has_endpoints(&envoy, "v1").await;
    let client = Client::start(envoy.frontend());
    answered(&client, "v1").await;

    let held = HeldWindows::watch(&world);
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    answered(&client, "v2").await;
    world.ready(4).await;
    world.patch(json!({"spec": {"replicas": 2}})).await;
    world.ready(2).await;
    world.patch(json!({"spec": {"replicas": 4}})).await;
    world.ready(4).await;

    // Killed, it is away for a while: the proxy goes on with what it has, and nothing is taken from it afterwards.
    world.berth.kill9(Part::LbController).unwrap();
    world.patch(json!({"spec": {"app": world.app("v3")}})).await;
    gets(&client, 300).await;
    world.berth.restart(Part::LbController).await.unwrap();
    answered(&client, "v3").await;
    world.ready(4).await;
    let answers = client.stop().await;
    none_failed(&answers);
    assert!(answers.count() > 500, "{answers:?}");
    println!("{} requests: {:?}", answers.count(), answers.texts);
    let proven = held.assert_no_request(&world);
    assert!(proven >= 4, "traffic was held for {proven} s in all");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_does_not_ask_is_named_and_holds_up_what_needs_it() {
    let (world, servers) = start_serving().await;
    for (driver, section) in [("Envoy", "spec.envoy"), ("HAProxy", "spec.haproxy")] {
        let incomplete = serde_json::from_value(manifest("BalancerClass", "edge", json!({"driver": driver}))).unwrap();
        let refused = classes(&world).create(&PostParams::default(), &incomplete).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("{section}: the driver {driver} needs")), "{refused}");
    }
    class(&world, json!({"proxies": 2})).await;
    world.deploy(2, behind_class(DRAIN_SECONDS)).await;
    let waits = async |words: &str| world.server("web-0", words, |server| says(server, words)).await;
    waits("no proxy has asked for endpoints of edge/BACKEND").await;
    let first = Envoy::start("edge-1", servers).await.unwrap();
    class_is(&world, "False", "1 of 2 proxies (spec.envoy.proxies) have asked").await;
    let second = Envoy::start("edge-2", servers).await.unwrap();
    class_is(&world, "True", "all 2 processes answer").await;
    world.ready(2).await;
    has_endpoints(&second, "v1").await;
    let client = Client::start(second.frontend());
    answered(&client, "v1").await;

    first.kill().unwrap();
    class_is(&world, "False", "edge-1: it has stopped to ask").await;
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    waits("edge-1 does not answer since").await;
    let proceed = Patch::Merge(json!({"spec": {"unreachable": {"afterSeconds": 2, "then": "Proceed"}}}));
    classes(&world).patch("edge", &PatchParams::default(), &proceed).await.unwrap();
    answered(&client, "v2").await;
    none_failed(&client.stop().await);

    first.restart().await.unwrap();
    class_is(&world, "True", "all 2 processes answer").await;
    has_endpoints(&first, "v2").await;
    let client = Client::start(first.frontend());
    answered(&client, "v2").await;
    none_failed(&client.stop().await);
    world.end().await;
}
