//! Unhealthy applications receive no traffic, and their Servers say why.

use berth_core::{
    api::{State, TrafficPhase},
    conditions::{self, STALLED},
};
use berth_tests::Archive;
use serde_json::json;

use crate::world::{World, is_in, traffic, uid};

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_never_becomes_healthy_receives_no_traffic_and_its_server_is_stalled() {
    let world = World::start().await;
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port 8080 --root ./www\n";
    let archive = Archive::new().executable("run", run).file("www/index.html", "unhealthy").build().unwrap();
    let artifact = world.berth.artifacts().put("unhealthy.tar", archive);
    world
        .deploy(1, |v| {
            v["spec"]["app"]["artifact"] = json!({"url": artifact.url, "sha256": artifact.sha256});
            v["spec"]["template"]["spec"]["healthCheck"]["deadlineSeconds"] = json!(3);
        })
        .await;
    let stalled = world
        .server("web-0", "stalled in Deploying", |s| {
            is_in(State::Deploying)(s)
                && s.status.as_ref().is_some_and(|s| conditions::get_true(&s.conditions, STALLED).is_some())
        })
        .await;
    let status = stalled.status.clone().unwrap();
    let message = &conditions::get(&status.conditions, STALLED).unwrap().message;
    assert!(message.contains("CheckHealth") && message.contains("404"), "{message}");
    assert!(status.waiting_for.unwrap().starts_with("a person: "));
    assert_eq!(traffic(&stalled), None);
    assert!(!world.endpoints().await.contains_key("web-0"), "no load balancer knows it yet");

    // A person deploys an application that works, and the Server continues from there.
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    let healthy = world.ready(1).await.remove(0);
    assert!(conditions::get_true(&healthy.status.as_ref().unwrap().conditions, STALLED).is_none());
    world.assert_answers(&healthy, "v2").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unhealthy_application_loses_its_traffic_until_it_is_healthy_again() {
    let world = World::start_without_floor().await;
    world.deploy(1, |_| ()).await;
    let server = world.ready(1).await.remove(0);
    let release = world.berth.machines().of(&uid(&server)).root().join("opt/berth/apps/web/current/www/healthz");
    std::fs::remove_file(&release).unwrap();
    let unhealthy = world
        .server("web-0", "held in Deploying", |s| is_in(State::Deploying)(s) && traffic(s) == Some(TrafficPhase::Held))
        .await;
    let history = unhealthy.status.unwrap().history;
    assert!(
        history.iter().rfind(|line| line.contains(" -> ")).unwrap().contains("health is not proven"),
        "{history:?}"
    );
    assert_eq!(world.endpoints().await["web-0"], (false, false, false));
    std::fs::write(&release, "ok").unwrap();
    world.ready(1).await;
    world.gets_traffic("web-0").await;
    world.end().await;
}
