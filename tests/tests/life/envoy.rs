//! Real traffic through real Envoys in front of real machines.

use std::{net::SocketAddr, time::Duration};

use berth_core::api::{BalancerClass, Server};
use berth_testing::manifest;
use berth_tests::{Answers, Client, Envoy, Options, Part, eventually, free_address};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::world::{LONG, World};

fn classes(world: &World) -> Api<BalancerClass> {
    Api::all(world.berth.client())
}

/// A Berth whose lb-controller serves load balancers, and the address of that.
async fn start() -> (World, SocketAddr) {
    let servers = free_address().unwrap();
    let arguments = [(Part::LbController, vec![format!("--servers-address={servers}")])].into();
    (World::start_with(Options { arguments, ..Options::default() }).await, servers)
}

/// Creates the class `edge`.
async fn class(world: &World, envoy: Value) {
    let class =
        serde_json::from_value(manifest("BalancerClass", "edge", json!({"driver": "Envoy", "envoy": envoy}))).unwrap();
    classes(world).create(&PostParams::default(), &class).await.unwrap();
}

/// Waits until the class is ready, or not, with a message that has these words.
async fn class_is(world: &World, ready: &str, words: &str) {
    let found = eventually(format!("the class is ready: {ready}, {words}"), LONG, async || {
        let class = classes(world).get("edge").await.map_err(|error| error.to_string())?;
        let condition = class.status.and_then(|status| status.conditions.into_iter().next());
        let condition = condition.ok_or("it has no status")?;
        if condition.status == ready && condition.message.contains(words) { Ok(()) } else { Err(condition.message) }
    });
    found.await.unwrap();
}

/// Whether a task of the Server says this.
fn says(server: &Server, words: &str) -> bool {
    let tasks = server.status.iter().flat_map(|status| &status.tasks);
    tasks.into_iter().any(|task| !task.phase.is_finished() && task.message.contains(words))
}

/// Servers behind the backend `web` of the class alone.
fn behind_envoy(deployment: &mut Value) {
    let traffic = json!({"backends": [{"class": "edge", "name": "web", "port": 8080}], "drain": {"seconds": 20, "minSeconds": 1}});
    deployment["spec"]["template"]["spec"]["traffic"] = traffic;
}

/// Waits until the client gets only this text.
async fn answered(client: &Client, text: &str) {
    let answered = eventually(format!("{text} is answered"), LONG, async || {
        let before = client.answers();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let after = client.answers();
        let new = |text: &str| {
            let count = |answers: &Answers| answers.texts.get(text).copied().unwrap_or_default();
            count(&after) - count(&before)
        };
        let others: u64 = after.texts.keys().filter(|other| *other != text).map(|other| new(other)).sum();
        if others == 0 && new(text) > 0 { Ok(()) } else { Err(format!("{after:?}")) }
    });
    answered.await.unwrap();
}

/// Waits until this proxy has endpoints: the fact that a Server serves comes before.
async fn has_endpoints(envoy: &Envoy, text: &str) {
    let client = Client::start(envoy.frontend());
    answered(&client, text).await;
    client.stop().await;
}

fn none_failed(answers: &Answers) {
    let (failed, count) = (answers.failures.len(), answers.count());
    assert!(answers.failures.is_empty(), "{failed} of {count} failed: {:#?}", answers.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_through_envoy_is_lost_while_code_number_and_lb_controller_change() {
    let (world, servers) = start().await;
    let envoy = Envoy::start("edge-1", servers).await.unwrap();
    class(&world, json!({"admins": [envoy.admin().to_string()], "proxies": 1})).await;
    world.deploy(4, behind_envoy).await;
    world.ready(4).await;
    let client = Client::start(envoy.frontend());
    answered(&client, "v1").await;

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
    let seen = client.answers().count();
    let goes_on = eventually("requests go on", LONG, async || {
        let count = client.answers().count();
        if count > seen + 300 { Ok(()) } else { Err(format!("{count}")) }
    });
    goes_on.await.unwrap();
    world.berth.restart(Part::LbController).await.unwrap();
    answered(&client, "v3").await;
    world.ready(4).await;
    let answers = client.stop().await;
    none_failed(&answers);
    assert!(answers.count() > 500, "{answers:?}");
    println!("{} requests: {:?}", answers.count(), answers.texts);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_does_not_ask_is_named_and_holds_up_what_needs_it() {
    let (world, servers) = start().await;
    for (driver, section) in [("Envoy", "spec.envoy"), ("HAProxy", "spec.haproxy")] {
        let incomplete = serde_json::from_value(manifest("BalancerClass", "edge", json!({"driver": driver}))).unwrap();
        let refused = classes(&world).create(&PostParams::default(), &incomplete).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("{section}: the driver {driver} needs")), "{refused}");
    }
    class(&world, json!({"proxies": 2})).await;
    world.deploy(2, behind_envoy).await;
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
