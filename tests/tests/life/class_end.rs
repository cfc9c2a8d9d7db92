//! A BalancerClass that is deleted goes when its HAProxy has nothing of Berth's any more.

use berth_core::api::TrafficPhase;
use berth_tests::{Client, HaProxy, eventually};
use kube::api::DeleteParams;
use serde_json::json;

use crate::{
    balanced::{answered, behind_class, class_is, classes, create_class, gets, none_failed, says},
    world::{LONG, World, check, traffic},
};

/// The servers in the backend `web` that are Berth's.
async fn entries(haproxy: &HaProxy) -> Vec<String> {
    let state = haproxy.ask("show servers state web").await.unwrap();
    state.split_whitespace().filter(|word| word.starts_with("berth:")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_class_stays_while_it_is_used_and_leaves_nothing_in_haproxy() {
    let haproxy = HaProxy::start().await.unwrap();
    let world = World::start().await;
    create_class(&world, json!({"driver": "HAProxy", "haproxy": {"addresses": [haproxy.address()]}})).await;
    world.deploy(2, behind_class(2)).await;
    world.ready(2).await;
    let client = Client::start(haproxy.frontend());
    answered(&client, "v1").await;

    classes(&world).delete("edge", &DeleteParams::default()).await.unwrap();
    let message = class_is(&world, "False", "2 Servers use it, such as default/web-0").await;
    assert!(message.ends_with("retire them, or name another backend in spec.traffic.backends"), "{message}");
    world.patch(json!({"spec": {"replicas": 3}})).await;
    world.server("web-2", "it gets no new Servers", |server| says(server, "BalancerClass edge is being deleted")).await;
    gets(&client, 100).await;
    none_failed(&client.stop().await);
    assert_eq!(entries(&haproxy).await.len(), 2);

    // What nobody owns is removed as well.
    haproxy.ask("add server web/berth:default:gone:uid:0123456789abcdef 127.0.0.1:9").await.unwrap();
    let backends = json!([{"service": "web", "port": 8080, "portName": "http"}]);
    world.patch(json!({"spec": {"template": {"spec": {"traffic": {"backends": backends}}}}})).await;
    let gone = eventually("the class is gone", LONG, async || {
        let class = classes(&world).get_opt("edge").await.map_err(|error| error.to_string())?;
        check(class.is_none(), || format!("{:?}", class.map(|class| class.status)))
    });
    gone.await.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()));
    assert_eq!(entries(&haproxy).await, [""; 0]);
    world.ready_when(3, |server| traffic(server) == Some(TrafficPhase::Serving)).await;
    world.end().await;
}
