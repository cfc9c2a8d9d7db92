//! Code reaches one zone after the other on machines, by what the applications themselves have written down.

use berth_core::api::{Server, VMDeploymentStatus};
use berth_tests::Archive;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{
    deployment_status::{runs, status, waits_for},
    world::{World, uid},
};

/// The label whose value is the zone of a Server.
const RACK: &str = "example.com/rack";

const BAKE_SECONDS: i64 = 4;

/// An application that writes down when it starts, beside its releases; a sick one has no `healthz`.
fn app(world: &World, revision: &str, is_sick: bool) -> Value {
    let run = format!(
        "#!/bin/sh\necho {revision} $(date +%s%N) >>../../starts\n\
         exec berth-httpd --address \"$BERTH_MACHINE_ADDRESS\" --port 8080 --root ./www\n"
    );
    let archive = Archive::new().executable("run", run.as_str()).file("www/index.html", revision);
    let archive = if is_sick { archive } else { archive.file("www/healthz", "ok") };
    let artifact = world.berth.artifacts().put(&format!("zones-{revision}.tar"), archive.build().unwrap());
    json!({"name": "web", "revision": revision, "command": "sh ./run",
        "artifact": {"url": artifact.url, "sha256": artifact.sha256}})
}

/// When the revision has started on the Server's machine, in nanoseconds: the first time.
fn start(world: &World, server: &Server, revision: &str) -> Option<i64> {
    let file = world.berth.machines().of(&uid(server)).root().join("opt/berth/apps/web/starts");
    let text = std::fs::read_to_string(file).unwrap();
    let mut starts = text.lines().filter_map(|line| line.split_once(' ')).filter(|(of, _)| *of == revision);
    starts.next().map(|(_, at)| at.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn code_reaches_the_second_zone_when_the_first_one_has_been_well_for_its_time() {
    let world = World::start().await;
    let spread = json!({"topologyKey": RACK, "mode": "OneAtATime", "bakeSeconds": BAKE_SECONDS});
    let change = |v: &mut Value| {
        v["spec"]["app"] = app(&world, "v1", false);
        v["spec"]["rollout"] = json!({"spread": spread});
        v["spec"]["template"]["spec"]["healthCheck"]["deadlineSeconds"] = json!(3);
        v["spec"]["template"]["spec"]["taskAttempts"] = json!(1);
    };
    world.deploy(3, change).await;
    world.ready(3).await;
    for (name, rack) in [("web-0", "a"), ("web-1", "a"), ("web-2", "b")] {
        world.patch_server(name, json!({"metadata": {"labels": {RACK: rack}}})).await;
    }
    let is_stable = |revision: &'static str| {
        move |status: &VMDeploymentStatus| {
            status.stable_revision.as_deref() == Some(revision) && status.waiting_for.is_none()
        }
    };
    status(&world, "v1 is stable", is_stable("v1")).await;

    world.patch(json!({"spec": {"app": app(&world, "v2", false)}})).await;
    status(&world, "the first zone bakes", waits_for("zone a")).await;
    let servers = world.ready_when(3, |server| runs(server, "v2")).await;
    let starts: Vec<i64> = servers.iter().map(|server| start(&world, server, "v2").unwrap()).collect();
    let baked = starts[2] - starts[0].max(starts[1]);
    assert!(baked >= BAKE_SECONDS * 1_000_000_000, "{baked} ns after the last start in the first zone: {starts:?}");
    status(&world, "v2 is stable", is_stable("v2")).await;

    // What is bad in the first zone never runs in the second one.
    world.patch(json!({"spec": {"app": app(&world, "v3", true)}})).await;
    let is_stopped = |status: &VMDeploymentStatus| {
        status.conditions.iter().any(|condition| condition.type_ == "Stalled" && condition.status == "True")
    };
    status(&world, "the roll-out stops", is_stopped).await;
    let servers = world.list().await;
    let touched: Vec<String> =
        servers.iter().filter(|server| start(&world, server, "v3").is_some()).map(ResourceExt::name_any).collect();
    assert!(!touched.is_empty() && !touched.contains(&"web-2".to_owned()), "{touched:?}");
    world.end().await;
}
