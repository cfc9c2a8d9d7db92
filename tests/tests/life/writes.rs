//! How much Berth writes: few writes until Ready and none at rest. What the webhook is called for, and what it refuses.

use std::{collections::BTreeMap, fs, time::Duration};

use berth_core::api::{Executor, Server};
use berth_testing::manifest;
use berth_tests::{BERTH_NAMESPACE, Options, Part};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::world::World;

/// The writes of Berth's ServiceAccounts in the audit log, by resource and verb, without those to the Leases of the copies.
pub(crate) fn writes(world: &World) -> BTreeMap<String, u32> {
    all_writes(world).into_iter().filter(|(name, _)| !is_lease(name)).collect()
}

/// The writes to the Leases of the copies.
fn lease_writes(world: &World) -> u32 {
    all_writes(world).into_iter().filter(|(name, _)| is_lease(name)).map(|(_, count)| count).sum()
}

fn is_lease(name: &str) -> bool {
    name.ends_with(" leases")
}

fn all_writes(world: &World) -> BTreeMap<String, u32> {
    let log = fs::read_to_string(world.berth.control_plane().audit_log().unwrap()).unwrap();
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let user = event["user"]["username"].as_str().unwrap_or_default();
        let verb = event["verb"].as_str().unwrap_or_default();
        let is_write = matches!(verb, "create" | "update" | "patch" | "delete");
        if is_write && user.starts_with(&format!("system:serviceaccount:{BERTH_NAMESPACE}:")) {
            let object = &event["objectRef"];
            let sub = object["subresource"].as_str().map(|s| format!("/{s}")).unwrap_or_default();
            let name = format!("{verb} {}{sub}", object["resource"].as_str().unwrap_or_default());
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_few_writes_until_ready_and_none_at_rest() {
    let control_plane = berth_control_plane::ControlPlaneOptions { audit: true, ..Default::default() };
    let world = World::start_with(Options { control_plane, ..Options::default() }).await;
    let servers = 4;
    world.deploy(servers, |_| ()).await;
    world.ready(4).await;
    // The statuses of sets follow a moment later.
    let complete =
        |s: &berth_core::api::VMDeploymentStatus| s.ready_replicas == servers && s.updated_replicas == servers;
    berth_tests::eventually("the VMDeployment's status", crate::world::LONG, async || {
        let status = world.deployments().get("web").await.unwrap().status.unwrap_or_default();
        crate::world::check(complete(&status), || format!("{status:?}"))
    })
    .await
    .unwrap();

    let counts = writes(&world);
    let total: u32 = counts.values().sum();
    println!("writes for {servers} Servers: {total} {counts:?}");
    let about_servers: u32 = counts
        .iter()
        .filter(|(name, _)| !name.contains("vmdeployments") && !name.contains("vmreplicasets"))
        .map(|(_, count)| count)
        .sum();
    assert!(
        about_servers <= 10 * u32::try_from(servers).unwrap(),
        "{about_servers} writes for {servers} Servers: {counts:?}"
    );

    // This measures a minute at rest; it does not wait for a condition.
    let rest = berth_tests::eventually("the last write", crate::world::LONG, async || {
        let before = writes(&world);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = writes(&world);
        if before == after { Ok(after) } else { Err(format!("{after:?}")) }
    });
    let (at_rest, leases) = (rest.await.unwrap(), lease_writes(&world));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(writes(&world), at_rest, "Berth writes at rest");
    // Four copies renew their Leases every ten seconds.
    let renewals = lease_writes(&world) - leases;
    assert!((20..=28).contains(&renewals), "{renewals} renewals of Leases in a minute");

    creations(&world).await;
    refusals(&world).await;
    tracking(&world).await;
    world.end().await;
}

/// A Server has no `managedFields` while only controllers write it, and has them once a person applies it.
async fn tracking(world: &World) {
    for server in world.list().await {
        assert_eq!(server.metadata.managed_fields, None, "{}", server.name_any());
    }
    let apply = async |labels: Value| {
        let mut applied = manifest("Server", "web-0", Value::Null);
        applied["metadata"]["labels"] = labels;
        applied.as_object_mut().unwrap().remove("spec");
        world.servers().patch("web-0", &PatchParams::apply("ann"), &Patch::Apply(applied)).await
    };
    let server = apply(json!({"looked-at": "yes"})).await.unwrap();
    let managers = |server: &Server| -> Vec<String> {
        server.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.manager.clone()).collect()
    };
    assert!(managers(&server).contains(&"ann".to_owned()), "{:?}", managers(&server));
    assert_eq!(server.labels().get("looked-at").map(String::as_str), Some("yes"));
    let conflict = apply(json!({"app": "other"})).await.unwrap_err().to_string();
    assert!(conflict.contains("conflict"), "what others wrote before is theirs: {conflict}");
}

/// On creation, the API server calls the webhook only for a Server that needs a decision.
async fn creations(world: &World) {
    let client = world.berth.client();
    let servers: Api<DynamicObject> = Api::namespaced_with(client, "default", &ApiResource::erase::<Server>(&()));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let create = async |finalizers: &[&str], wish: Option<(&str, Value)>| {
        let mut server = manifest("Server", "new", json!({"machine": {"className": "local"}}));
        server["metadata"]["finalizers"] = json!(finalizers);
        if let Some((field, value)) = wish {
            server["spec"][field] = value;
        }
        servers.create(&dry, &serde_json::from_value(server).unwrap()).await.unwrap()
    };
    let asked = async || {
        let webhook = world.berth.instances().into_iter().find(|instance| instance.part == Part::Webhook).unwrap();
        let metrics = world.berth.metrics(&webhook).await.unwrap();
        let line = metrics.lines().find(|line| line.contains("request_duration_seconds_count{resource=\"servers\"}"));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    let before = asked().await;
    for finalizers in [&["berth.dev/retire"][..], &["other.dev/x", "berth.dev/retire"]] {
        assert_eq!(create(finalizers, None).await.finalizers(), finalizers);
    }
    assert_eq!(asked().await, before, "there was nothing to decide");

    for finalizers in [&[][..], &["other.dev/x"]] {
        let created = create(finalizers, None).await;
        assert_eq!(created.finalizers(), [finalizers, &["berth.dev/retire"]].concat());
    }
    let force = json!({"state": "Offline", "reason": "a test", "by": "somebody else"});
    for (field, wish) in [("force", force), ("retry", json!({"id": "1"})), ("reboot", json!({"id": "1"}))] {
        let created = create(&["berth.dev/retire"], Some((field, wish))).await;
        let by = created.data["spec"][field]["by"].as_str().unwrap();
        assert!(by != "somebody else" && !by.is_empty(), "{field} is stamped with who wrote it: {by}");
    }
    assert_eq!(asked().await, before + 5);
}

/// Forbidden writes are refused with field and reason, whatever the author's rights are.
async fn refusals(world: &World) {
    let as_executor = async |executor: Executor| -> Api<Server> {
        let client =
            world.berth.control_plane().service_account_client(BERTH_NAMESPACE, executor.name()).await.unwrap();
        Api::namespaced(client, "default")
    };
    let lb = as_executor(Executor::LbController).await;
    let refused = async |api: &Api<Server>, status: Value, words: &[&str]| {
        let patch = Patch::Merge(json!({"status": status}));
        let error = api.patch_status("web-0", &PatchParams::default(), &patch).await.unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "the refusal does not say {word:?}: {error}");
        }
    };
    let task = world.servers().get("web-0").await.unwrap().status.unwrap().tasks.last().unwrap().id;
    refused(&lb, json!({"state": "Offline"}), &["status.state", "only the webhook"]).await;
    refused(&lb, json!({"machine": {"phase": "Gone"}}), &["status.machine", "only replicaset-controller"]).await;
    let claim = json!({"claim": {"taskID": task + 1, "holder": "lb-controller/x", "durationSeconds": 30}});
    refused(&lb, claim, &["status.claim.taskID", "no task"]).await;
    let deployment = as_executor(Executor::DeploymentController).await;
    let report = json!({"report": {"taskID": task, "holder": "deployment-controller/x", "outcome": "Succeeded"}});
    refused(&deployment, report, &["status.report.taskID", "reported on by"]).await;
    let admin = world.servers();
    refused(
        &admin,
        json!({"health": {"state": "Healthy", "epoch": 1, "since": "2026-01-01T00:00:00Z"}}),
        &["status.health", "only monitor-controller"],
    )
    .await;
}
