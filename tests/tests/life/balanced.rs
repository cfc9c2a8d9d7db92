//! What the tests with real traffic share: a class `edge`, Servers behind it, and a client that is answered.

use std::time::Duration;

use berth_core::api::{BalancerClass, Server};
use berth_testing::manifest;
use berth_tests::{Answers, Client, Options, Part, eventually, free_address};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::world::{LONG, World};

pub(crate) fn classes(world: &World) -> Api<BalancerClass> {
    Api::all(world.berth.client())
}

/// A Berth whose lb-controller serves load balancers, and the address of that.
pub(crate) async fn start_serving() -> (World, std::net::SocketAddr) {
    let servers = free_address().unwrap();
    let arguments = [(Part::LbController, vec![format!("--servers-address={servers}")])].into();
    (World::start_with(Options { arguments, ..Options::default() }).await, servers)
}

/// Creates the class `edge`.
pub(crate) async fn create_class(world: &World, spec: Value) {
    let class = serde_json::from_value(manifest("BalancerClass", "edge", spec)).unwrap();
    classes(world).create(&PostParams::default(), &class).await.unwrap();
}

/// Waits until the class is ready (`True`), or not (`False`), with a message that has these words; returns the message.
pub(crate) async fn class_is(world: &World, ready: &str, words: &str) -> String {
    let found = eventually(format!("the class is ready: {ready}, {words}"), LONG, async || {
        let class = classes(world).get("edge").await.map_err(|error| error.to_string())?;
        let condition = class.status.and_then(|status| status.conditions.into_iter().next());
        let condition = condition.ok_or("it has no status")?;
        let is_it = condition.status == ready && condition.message.contains(words);
        if is_it { Ok(condition.message) } else { Err(condition.message) }
    });
    found.await.unwrap()
}

/// Whether a task of the Server says this.
pub(crate) fn says(server: &Server, words: &str) -> bool {
    let tasks = server.status.iter().flat_map(|status| &status.tasks);
    tasks.into_iter().any(|task| !task.phase.is_finished() && task.message.contains(words))
}

/// Servers behind the backend `web` of the class alone, that drain for so many seconds at most.
pub(crate) fn behind_class(drain_seconds: i32) -> impl Fn(&mut Value) {
    move |deployment| {
        let backends = json!([{"class": "edge", "name": "web", "port": 8080}]);
        let drain = json!({"seconds": drain_seconds, "minSeconds": 1});
        deployment["spec"]["template"]["spec"]["traffic"] = json!({"backends": backends, "drain": drain});
    }
}

/// Waits until the client gets only this text.
pub(crate) async fn answered(client: &Client, text: &str) {
    let answered = eventually(format!("{text} is answered"), LONG, async || {
        let before = client.answers();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let after = client.answers();
        let count = |answers: &Answers, text: &str| answers.texts.get(text).copied().unwrap_or_default();
        let new = |text: &str| count(&after, text) - count(&before, text);
        let others: u64 = after.texts.keys().filter(|other| *other != text).map(|other| new(other)).sum();
        if others == 0 && new(text) > 0 { Ok(()) } else { Err(format!("{after:?}")) }
    });
    answered.await.unwrap();
}

/// Waits until the client has so many more answers.
pub(crate) async fn gets(client: &Client, more: u64) {
    let before = client.answers().count();
    let goes_on = eventually("requests go on", LONG, async || {
        let count = client.answers().count();
        if count > before + more { Ok(()) } else { Err(format!("{count}")) }
    });
    goes_on.await.unwrap();
}

pub(crate) fn none_failed(answers: &Answers) {
    let (failed, count) = (answers.failures.len(), answers.count());
    assert!(answers.failures.is_empty(), "{failed} of {count} failed: {:#?}", answers.failures);
}

/// Waits until lb-controller exposes this line.
pub(crate) async fn lb_metric_is(world: &World, expected: &str) {
    let name = expected.split(['{', ' ']).next().unwrap();
    let shown = eventually(expected, LONG, async || {
        let instance = world.berth.instance(Part::LbController, 1).map_err(|error| error.to_string())?;
        let metrics = world.berth.metrics(&instance).await.map_err(|error| error.to_string())?;
        let found: Vec<&str> = metrics.lines().filter(|line| line.starts_with(name)).collect();
        if found.contains(&expected) { Ok(()) } else { Err(found.join("\n")) }
    });
    shown.await.unwrap();
}
