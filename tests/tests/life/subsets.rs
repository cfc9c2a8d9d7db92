//! Requests with a header go to the Servers with the newest version, and the load balancer's configuration stays as it is.

use berth_tests::{Client, HaProxy};
use serde_json::json;

use crate::{
    balanced::{answered, create_class, gets, none_failed},
    deployment_status::{runs, status, waits_for},
    world::World,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_header_reaches_the_newest_version_before_and_during_and_after_a_roll_out() {
    let haproxy = HaProxy::start().await.unwrap();
    let world = World::start().await;
    create_class(&world, json!({"driver": "HAProxy", "haproxy": {"addresses": [haproxy.address()]}})).await;
    let steps = json!([{"servers": 1}, {"pause": {}}]);
    world
        .deploy(4, |deployment| {
            let backends = json!([
                {"class": "edge", "name": "web", "port": 8080, "subset": "Stable"},
                {"class": "edge", "name": "canary", "port": 8080, "subset": "Updated"},
            ]);
            let drain = json!({"seconds": 10, "minSeconds": 1});
            deployment["spec"]["template"]["spec"]["traffic"] = json!({"backends": backends, "drain": drain});
            deployment["spec"]["rollout"] = json!({"steps": steps, "onFailure": "Rollback"});
        })
        .await;
    world.ready(4).await;
    let (all, testers) = (Client::start(haproxy.frontend()), Client::start_for_canary(haproxy.frontend()));
    answered(&all, "v1").await;
    answered(&testers, "v1").await;
    status(&world, "v1 is stable", |status| status.stable_revision.as_deref() == Some("v1")).await;

    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    status(&world, "v2 has a Server", waits_for("step 2 of 2 is a pause")).await;
    answered(&testers, "v2").await;
    gets(&all, 300).await;
    assert_eq!(all.answers().texts.get("v2"), None, "only testers get the new version");

    // It goes back, and out again to all.
    world.patch(json!({"spec": {"rollout": {"request": {"action": "Abort", "id": "1"}}}})).await;
    answered(&testers, "v1").await;
    assert_eq!(all.answers().texts.get("v2"), None, "only testers got the new version");
    world.patch(json!({"spec": {"rollout": {"request": {"action": "Retry", "id": "2"}}}})).await;
    status(&world, "v2 has a Server again", waits_for("step 2 of 2 is a pause")).await;
    answered(&testers, "v2").await;
    world.patch(json!({"spec": {"rollout": {"request": {"action": "Promote", "id": "3"}}}})).await;
    world.ready_when(4, |server| runs(server, "v2")).await;
    answered(&all, "v2").await;
    answered(&testers, "v2").await;
    none_failed(&all.stop().await);
    none_failed(&testers.stop().await);
    world.end().await;
}
