//! Real traffic through a real HAProxy in front of real machines.

use berth_core::api::TrafficPhase;
use berth_tests::{Client, HaProxy, Part, eventually};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    balanced::{
        answered, behind_class, class_is, classes, create_class, gets, lb_metric_is, none_failed, says, start_serving,
    },
    deployment_status::{runs, status, waits_for},
    held::HeldWindows,
    world::{LONG, World, traffic, uid},
};

/// Much more than the 1.5 s of the longest request.
const DRAIN_SECONDS: i32 = 10;

/// A class for the HAProxy.
async fn class(world: &World, haproxy: &HaProxy, changes: Value) {
    let mut spec = json!({"driver": "HAProxy", "haproxy": {"addresses": [haproxy.address()]}});
    json_patch::merge(&mut spec, &changes);
    create_class(world, spec).await;
}

/// So many Servers behind a new HAProxy, all with traffic, and a client that is answered by them.
async fn balanced(servers: usize) -> (HaProxy, World, Client) {
    let haproxy = HaProxy::start().await.unwrap();
    let world = World::start().await;
    class(&world, &haproxy, json!({})).await;
    let client = serve(&world, &haproxy, servers).await;
    (haproxy, world, client)
}

/// Creates so many Servers behind the HAProxy, and returns a client that is answered by them.
async fn serve(world: &World, haproxy: &HaProxy, servers: usize) -> Client {
    world.deploy(i32::try_from(servers).unwrap(), behind_class(DRAIN_SECONDS)).await;
    world.ready(servers).await;
    let client = Client::start(haproxy.frontend());
    answered(&client, "v1").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_while_code_environment_and_number_change() {
    let (_haproxy, world, client) = balanced(4).await;
    let held = HeldWindows::watch(&world);

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
    let proven = held.assert_no_request(&world);
    assert!(proven >= 4, "traffic was held for {proven} s in all");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_and_registration_goes_on_when_it_is_there() {
    let haproxy = HaProxy::start().await.unwrap();
    let world = World::start().await;
    world
        .deploy(1, |deployment| {
            behind_class(DRAIN_SECONDS)(deployment);
            deployment["spec"]["template"]["spec"]["traffic"]["backends"][0]["name"] = json!("nowhere");
        })
        .await;
    let waits = async |words: &str| world.server("web-0", words, |server| says(server, words)).await;
    waits("BalancerClass edge does not exist: create it").await;
    class(&world, &haproxy, json!({"allowedNamespaces": ["shop"]})).await;
    waits("BalancerClass edge does not allow namespace default").await;
    let allow = Patch::Merge(json!({"spec": {"allowedNamespaces": null}}));
    classes(&world).patch("edge", &PatchParams::default(), &allow).await.unwrap();
    waits("has no backend \"nowhere\": add it to its configuration").await;
    let backends = json!([{"class": "edge", "name": "web", "port": 8080}]);
    world.patch(json!({"spec": {"template": {"spec": {"traffic": {"backends": backends}}}}})).await;
    world.ready_when(1, |server| traffic(server) == Some(TrafficPhase::Serving)).await;
    let client = Client::start(haproxy.frontend());
    answered(&client, "v1").await;
    none_failed(&client.stop().await);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_does_not_answer_holds_up_what_needs_it_and_is_caught_up() {
    let haproxy = HaProxy::start().await.unwrap();
    let world = World::start().await;
    class(&world, &haproxy, json!({})).await;
    world.deploy(2, behind_class(DRAIN_SECONDS)).await;
    world.ready(2).await;
    assert_eq!(class_is(&world, "True", "").await, "all 1 processes answer");
    lb_metric_is(&world, "berth_balancer_servers{balancer=\"edge\",serves=\"yes\"} 2").await;

    haproxy.kill().await.unwrap();
    let message = class_is(&world, "False", "").await;
    assert!(message.contains("1 of 1 processes do not answer") && message.contains("master.sock"), "{message}");
    lb_metric_is(&world, "berth_balancer_processes{balancer=\"edge\",answers=\"no\"} 1").await;
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    world.server("web-0", "waits for HAProxy", |server| says(server, "does not answer since")).await;
    haproxy.restart().await.unwrap();
    class_is(&world, "True", "").await;
    world.ready_when(2, |server| runs(server, "v2")).await;
    let client = Client::start(haproxy.frontend());
    answered(&client, "v2").await;
    none_failed(&client.stop().await);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_copy_takes_over_and_a_dead_machine_costs_only_its_own_requests() {
    let (_haproxy, world, client) = balanced(4).await;
    let servers = world.ready(4).await;
    world.berth.start_copy(Part::LbController).await.unwrap();
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    world.server("web-0", "is changed", |server| traffic(server) != Some(TrafficPhase::Serving)).await;
    world.berth.instance(Part::LbController, 1).unwrap().process.kill9().unwrap();
    answered(&client, "v2").await;
    world.ready(4).await;
    none_failed(&client.answers());

    world.berth.machines().kill(&uid(&servers[1])).unwrap();
    gets(&client, 300).await;
    let answers = client.stop().await;
    // A hundred each second, of which every hundredth takes 1.5 s: at most two of those and one or two others are with one of four.
    assert!(answers.failures.len() <= 5, "{} of {}: {:#?}", answers.failures.len(), answers.count(), answers.failures);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_and_a_restart_of_haproxy_lose_no_server() {
    let (world, servers) = start_serving().await;
    let haproxy = HaProxy::start_with_servers_of("edge", servers).await.unwrap();
    class(&world, &haproxy, json!({})).await;
    let client = serve(&world, &haproxy, 3).await;
    for _ in 0..3 {
        haproxy.reload().unwrap();
        answered(&client, "v1").await;
    }
    // Old workers still have requests of 1.5 s when servers drain.
    haproxy.reload().unwrap();
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    answered(&client, "v2").await;
    world.ready(3).await;
    none_failed(&client.stop().await);

    // lb-controller does not answer: the script has the servers of the last time.
    world.berth.kill9(Part::LbController).unwrap();
    haproxy.kill().await.unwrap();
    haproxy.restart().await.unwrap();
    let client = Client::start(haproxy.frontend());
    answered(&client, "v2").await;
    none_failed(&client.stop().await);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gray_weight_is_the_share_of_the_requests_whatever_is_reloaded() {
    let (world, lists) = start_serving().await;
    let haproxy = HaProxy::start_with_servers_of("edge", lists).await.unwrap();
    class(&world, &haproxy, json!({})).await;
    let client = serve(&world, &haproxy, 4).await;
    let steps = json!([{"servers": 1}, {"pause": {}}, {"weight": 10}, {"pause": {}}]);
    world.patch(json!({"spec": {"app": world.app("v2"), "rollout": {"steps": steps}}})).await;
    status(&world, "v2 has a Server", waits_for("step 2 of 4 is a pause")).await;
    assert_eq!(client.answers().texts.get("v2"), None, "no traffic before the first weight");

    world.patch(json!({"spec": {"rollout": {"request": {"action": "Promote", "id": "1"}}}})).await;
    status(&world, "v2 has its weight", waits_for("step 4 of 4 is a pause")).await;
    let first = eventually("v2 is answered", LONG, async || {
        let answers = client.answers();
        if answers.texts.contains_key("v2") { Ok(answers) } else { Err(format!("{answers:?}")) }
    });
    let before = first.await.unwrap();
    let mut reloads = 0;
    let count = eventually("2,000 requests", LONG, async || {
        let answers = client.answers();
        if answers.count() > before.count() + 200 * reloads {
            haproxy.reload().map_err(|error| error.to_string())?;
            reloads += 1;
        }
        if answers.count() >= before.count() + 2000 { Ok(answers) } else { Err(format!("{}", answers.count())) }
    });
    let after = count.await.unwrap();
    #[expect(clippy::cast_precision_loss, reason = "some thousand requests")]
    let share = (after.texts["v2"] - before.texts["v2"]) as f64 / (after.count() - before.count()) as f64;
    assert!((share - 0.1).abs() < 0.02, "{share}");

    world.patch(json!({"spec": {"rollout": {"request": {"action": "Promote", "id": "2"}}}})).await;
    world.ready_when(4, |server| runs(server, "v2")).await;
    answered(&client, "v2").await;
    none_failed(&client.stop().await);
    world.end().await;
}

/// The weights of the servers of the backend `web` in HAProxy, which has an answer to `show stat` in columns.
async fn weights(haproxy: &HaProxy) -> Vec<i64> {
    let answer = haproxy.ask("show stat").await.unwrap();
    let mut lines = answer.lines().skip_while(|line| !line.starts_with("# pxname"));
    let column = lines.next().unwrap().split(',').position(|name| name == "weight").unwrap();
    let servers = lines.filter(|line| line.starts_with("web,berth:"));
    servers.map(|line| line.split(',').nth(column).unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_begins_gets_its_share_in_steps_and_is_not_written_for_it() {
    let haproxy = HaProxy::start().await.unwrap();
    let world = World::start().await;
    class(&world, &haproxy, json!({})).await;
    world
        .deploy(1, |deployment| {
            behind_class(DRAIN_SECONDS)(deployment);
            deployment["spec"]["template"]["spec"]["traffic"]["ramp"] = json!({"seconds": 10});
        })
        .await;
    let mut seen = vec![0];
    let released = world.ready_when(1, |server| traffic(server) == Some(TrafficPhase::Serving)).await.remove(0);
    eventually("the full weight", LONG, async || {
        let weight = weights(&haproxy).await.pop().unwrap_or_default();
        if seen.last() != Some(&weight) {
            seen.push(weight);
        }
        if weight == 100 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
    .unwrap();
    // HAProxy itself shows 1 for a moment when a server is added.
    assert!(
        seen.is_sorted() && seen.len() > 6 && seen.iter().all(|weight| *weight <= 1 || weight % 10 == 0),
        "{seen:?}"
    );
    let now = world.server("web-0", "is as it was", |_| true).await;
    assert_eq!(now.metadata.resource_version, released.metadata.resource_version);
    world.end().await;
}
