//! Real traffic through a real HAProxy in front of real machines.

use std::time::Duration;

use berth_core::api::BalancerClass;
use berth_testing::manifest;
use berth_tests::{Answers, Client, HaProxy, eventually};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::world::{LONG, World};

/// Creates a class for the HAProxy.
async fn class(world: &World, haproxy: &HaProxy) {
    let classes: Api<BalancerClass> = Api::all(world.berth.client());
    let spec = json!({"driver": "HAProxy", "haproxy": {"addresses": [haproxy.address()]}});
    let class = serde_json::from_value(manifest("BalancerClass", "edge", spec)).unwrap();
    classes.create(&PostParams::default(), &class).await.unwrap();
}

/// Servers behind the backend `web` of the class alone.
fn behind_haproxy(deployment: &mut Value) {
    let traffic = json!({"backends": [{"class": "edge", "name": "web", "port": 8080}], "drain": {"seconds": 10, "minSeconds": 1}});
    deployment["spec"]["template"]["spec"]["traffic"] = traffic;
}

/// Waits until the client gets only this text.
async fn answered(client: &Client, text: &str) {
    let answered = eventually(format!("{text} is answered"), LONG, async || {
        let before = client.answers();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let after = client.answers();
        let new = |text: &String| after.texts[text] - before.texts.get(text).copied().unwrap_or_default();
        let others: u64 = after.texts.keys().filter(|other| *other != text).map(new).sum();
        if others == 0 && after.texts.get(text).copied().unwrap_or_default() > 0 {
            Ok(())
        } else {
            Err(format!("{after:?}"))
        }
    });
    answered.await.unwrap();
}

fn none_failed(answers: &Answers) {
    assert!(
        answers.failures.is_empty(),
        "{} of {} failed: {:#?}",
        answers.failures.len(),
        answers.count(),
        answers.failures
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_code_environment_and_number_change() {
    let haproxy = HaProxy::start().await.unwrap();
    let world = World::start().await;
    class(&world, &haproxy).await;
    world.deploy(4, behind_haproxy).await;
    world.ready(4).await;
    let client = Client::start(haproxy.frontend());
    answered(&client, "v1").await;

    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    answered(&client, "v2").await;
    world.ready(4).await;
    let theme = world.package("theme", "2");
    let tool = world.package("tool", "1");
    world.patch(json!({"spec": {"template": {"spec": {"packages": [tool, theme]}}}})).await;
    world.ready_when(4, |server| server.spec.packages.iter().any(|package| package.version == "2")).await;
    world.patch(json!({"spec": {"replicas": 2}})).await;
    world.ready(2).await;
    world.patch(json!({"spec": {"replicas": 4}})).await;
    world.ready(4).await;
    let answers = client.stop().await;
    none_failed(&answers);
    assert!(answers.count() > 500, "{answers:?}");
    world.end().await;
}
