//! Sick applications get no traffic, and say why.

use berth_core::{
    api::{State, TrafficPhase},
    conditions::{self, STALLED},
};
use berth_tests::Archive;
use serde_json::json;

use crate::world::{World, is_in, traffic, uid};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_gets_healthy_stays_out_of_traffic_and_says_why() {
    let world = World::start().await;
    let run = "#!/bin/sh\nexec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port 8080 --root ./www\n";
    let sick = Archive::new().executable("run", run).file("www/index.html", "sick").build().unwrap();
    let sick = world.berth.artifacts().put("sick.tar", sick);
    world
        .deploy(1, |v| {
            v["spec"]["app"]["artifact"] = json!({"url": sick.url, "sha256": sick.sha256});
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
    let said = &conditions::get(&status.conditions, STALLED).unwrap().message;
    assert!(said.contains("CheckHealth") && said.contains("404"), "it says why: {said}");
    assert!(status.waiting_for.unwrap().starts_with("a person: "));
    assert_ne!(traffic(&stalled), Some(TrafficPhase::Serving));
    assert_eq!(world.endpoints().await["web-0"], (false, false, false));

    // The person deploys code that works: it goes on from there.
    world.patch(json!({"spec": {"app": world.app("v2")}})).await;
    let well = world.ready(1).await.remove(0);
    assert!(conditions::get_true(&well.status.as_ref().unwrap().conditions, STALLED).is_none());
    world.assert_answers(&well, "v2").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_turns_sick_loses_traffic_and_gets_it_back() {
    let world = World::start().await;
    world.deploy(1, |_| ()).await;
    let server = world.ready(1).await.remove(0);
    let release = world.berth.machines().of(&uid(&server)).root().join("opt/berth/apps/web/current/www/healthz");
    std::fs::remove_file(&release).unwrap();
    let sick = world
        .server("web-0", "held in Deploying", |s| is_in(State::Deploying)(s) && traffic(s) == Some(TrafficPhase::Held))
        .await;
    assert!(sick.status.unwrap().transitions.last().unwrap().reason.contains("health is not proven"));
    assert_eq!(world.endpoints().await["web-0"], (false, false, false));
    std::fs::write(&release, "ok").unwrap();
    world.ready(1).await;
    world.gets_traffic("web-0").await;
    world.end().await;
}
