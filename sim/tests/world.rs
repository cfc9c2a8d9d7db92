//! The shipped programs in one world.
#![cfg(test)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use berth_core::api::{MachineClass, Server, State, VMDeployment};
use berth_sim::{Faults, Outcome, Program, Schedule, World, play};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const SERVERS: usize = 8;
/// How long a few Servers may take, in the time of the world.
const LIMIT: Duration = Duration::from_mins(10);

fn object<K: DeserializeOwned>(document: Value) -> K {
    serde_json::from_value(document).unwrap()
}

/// What a person applies to have servers behind a Service.
async fn declare(client: &Client, replicas: usize) {
    let class = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "MachineClass", "metadata": {"name": "small"},
                       "spec": {"provider": "simulated", "access": {"user": "berth", "port": 22, "root": "opt/berth"}}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                         "spec": {"ports": [{"name": "http", "port": 80}]}});
    let deployment = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "VMDeployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"machine": {"className": "small"},
                         "packages": [{"name": "jq", "version": "1.7", "apt": {}}],
                         "traffic": {"backends": [{"service": "web", "port": 80, "portName": "http"}], "drain": {"seconds": 2}}}
            },
            "app": {"name": "web", "revision": "v1", "command": "./run",
                    "artifact": {"url": "http://a/web.tar", "sha256": "ab".repeat(32)}}
        }
    });
    let params = PostParams::default();
    Api::<MachineClass>::all(client.clone()).create(&params, &object(class)).await.unwrap();
    Api::<Service>::default_namespaced(client.clone()).create(&params, &object(service)).await.unwrap();
    Api::<VMDeployment>::default_namespaced(client.clone()).create(&params, &object(deployment)).await.unwrap();
}

async fn ready_endpoints(client: &Client) -> usize {
    let slices = Api::<EndpointSlice>::default_namespaced(client.clone()).list(&ListParams::default()).await.unwrap();
    let endpoints = slices.items.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
}

/// Starts the programs and has so many Servers declared. Returns when all of them serve.
async fn serving(world: &World, replicas: usize) -> Client {
    let client = world.person("ann");
    for program in Program::ALL {
        world.start(program, "copy-1").unwrap();
    }
    declare(&client, replicas).await;
    let all_serve = || async {
        let servers = Api::<Server>::default_namespaced(client.clone()).list(&ListParams::default()).await.unwrap();
        let ready = servers.items.iter().filter(|server| server.state() == Some(State::Ready)).count();
        ready == replicas && ready_endpoints(&client).await == replicas
    };
    assert!(world.wait(LIMIT, all_serve).await, "the Servers are not Ready: {:#?}", world.api().log());
    client
}

/// Servers from nothing to Ready and away again. Returns what the API server was asked.
async fn life(world: World) -> Vec<String> {
    let client = serving(&world, SERVERS).await;
    let servers: Api<Server> = Api::default_namespaced(client.clone());
    Api::<VMDeployment>::default_namespaced(client.clone()).delete("web", &DeleteParams::default()).await.unwrap();
    let all_gone = || async {
        servers.list(&ListParams::default()).await.unwrap().items.is_empty() && ready_endpoints(&client).await == 0
    };
    assert!(world.wait(LIMIT, all_gone).await, "the Servers are not gone: {:#?}", world.api().log());
    world.api().log()
}

#[test]
fn servers_live_and_go() {
    let log = World::run(1, Faults::default(), life);
    assert!(log.iter().any(|line| line.contains("lb-controller: POST")), "{log:#?}");
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let (first, second) = (World::run(7, Faults::default(), life), World::run(7, Faults::default(), life));
    for (number, (one, other)) in first.iter().zip(&second).enumerate() {
        assert_eq!(one, other, "line {number}; before it:\n{}", first[number.saturating_sub(10)..number].join("\n"));
    }
    assert_eq!(first.len(), second.len());
    assert_ne!(World::run(8, Faults::default(), life), first);
}

/// Runs with faults, people and crashes. `cargo run -p berth-sim -- run` plays more of them.
#[test]
fn runs_end_well() {
    for seed in 1..=6 {
        let Outcome { finding, log, .. } = play(&Schedule::draw(seed));
        assert_eq!(
            finding,
            None,
            "seed {seed}: the end of the log is\n{}",
            log[log.len().saturating_sub(20)..].join("\n")
        );
    }
}

#[test]
fn two_processes_play_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let replay = |name: &str| {
        let log = folder.path().join(name);
        let replayed =
            Command::new(env!("CARGO_BIN_EXE_berth-sim")).args(["replay", "3", "--log"]).arg(&log).output().unwrap();
        assert!(replayed.status.success(), "{replayed:?}");
        std::fs::read_to_string(log).unwrap()
    };
    let (one, other) = (replay("one"), replay("other"));
    assert!(one.lines().count() > 100, "{one}");
    let difference = one.lines().zip(other.lines()).find(|(one, other)| one != other);
    assert!(difference.is_none() && one.len() == other.len(), "{difference:#?}");
}

/// A load balancer that is said to hold a Server and does not.
#[test]
fn a_judge_sees_a_machine_that_is_changed_while_clients_are_sent_to_it() {
    let found = World::run(1, Faults::default(), |world| async move {
        let client = serving(&world, SERVERS).await;
        world.lie_about_holds();
        let newer = Patch::Merge(json!({"spec": {"app": {"revision": "v2"}}}));
        let deployments: Api<VMDeployment> = Api::default_namespaced(client);
        deployments.patch("web", &PatchParams::default(), &newer).await.unwrap();
        world.wait(LIMIT, async || world.finding().is_some()).await;
        world.finding()
    });
    assert!(found.as_ref().is_some_and(|finding| finding.text.contains("while clients were sent to it")), "{found:?}");
}

/// Two copies of monitor-controller, one of which has lost its way to too few machines for a doubt.
#[test]
fn copies_that_see_differently_do_not_write_in_a_hot_loop() {
    let (finding, log) = World::run(1, Faults::default(), |world| async move {
        serving(&world, 2).await;
        let blind = world.start(Program::MonitorController, "copy-2").unwrap();
        blind.set_blind(true);
        world.wait(2 * LIMIT, async || world.finding().is_some()).await;
        (world.finding(), world.api().log())
    });
    assert_eq!(finding, None);
    let losses = log.iter().filter(|line| line.contains(r#""reachable":false"#) && line.contains("PATCH")).count();
    assert!((2..=14).contains(&losses), "{losses} losses of two machines in 20 minutes");
}

/// The choice of a `select!` that is not biased is random, and no seed reaches it.
#[test]
fn every_select_is_biased() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = 0;
    for program in
        ["shared", "webhook", "replicaset-controller", "deployment-controller", "lb-controller", "monitor-controller"]
    {
        for file in sources(&workspace.join(program)) {
            let text = std::fs::read_to_string(&file).unwrap();
            let selects = text.split("tokio::select! {").skip(1);
            for (number, select) in selects.enumerate() {
                found += 1;
                assert!(select.trim_start().starts_with("biased;"), "{} select {}", file.display(), number + 1);
            }
        }
    }
    assert!(found > 10, "only {found} found");
}

/// The sources of programs and libraries in this folder, without tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "tests" && name != "benches" {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
