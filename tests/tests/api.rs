//! The API on a real kube-apiserver: CRDs cause no warning, and invalid input is refused with field and reason.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail a test by panicking")]

use std::{
    path::Path,
    pin::{Pin, pin},
    time::Duration,
};

use berth_control_plane::{ControlPlane, ControlPlaneOptions};
use berth_core::api::{Approval, MachineClass, MonitoringClass, Server, VMDeployment, VMReplicaSet};
use berth_testing::manifest;
use futures::TryStreamExt;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Time until a watch must show a change.
const SOON: Duration = Duration::from_secs(20);

fn crds() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds")
}

/// Creates the object and returns the refusal of the API server.
async fn refusal<K>(client: &Client, value: Value) -> String
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    K::DynamicType: Default,
{
    // The raw document, because the Rust types cannot express some mistakes.
    let resource = kube::core::ApiResource::erase::<K>(&K::DynamicType::default());
    let api: Api<kube::core::DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let object = serde_json::from_value(value.clone()).unwrap();
    match api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await {
        Ok(_) => panic!("accepted: {value}"),
        Err(error) => error.to_string(),
    }
}

fn server(change: impl FnOnce(&mut Value)) -> Value {
    let spec = json!({
        "machine": {"className": "local"},
        "packages": [{"name": "tool", "version": "1", "archive": {"url": "http://127.0.0.1/a.tgz", "sha256": "a".repeat(64)}}],
        "app": {"name": "web", "artifact": {"url": "http://127.0.0.1/w.tgz", "sha256": "b".repeat(64)}, "command": "./run"},
        "healthCheck": {"httpGet": {"port": 8080}},
        "traffic": {"backends": [{"service": "web", "port": 8080}]},
    });
    let mut value = manifest("Server", "web-0", spec);
    change(&mut value);
    value
}

fn set(kind: &str, change: impl FnOnce(&mut Value)) -> Value {
    let spec = json!({
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "local"}}},
    });
    let mut value = manifest(kind, "web", spec);
    if kind == "VMDeployment" {
        value["spec"]["app"] = json!({"name": "web", "artifact": {"url": "http://127.0.0.1/w.tgz", "sha256": "b".repeat(64)}, "command": "./run"});
    }
    change(&mut value);
    value
}

fn assert_says(refusal: &str, words: &[&str]) {
    for word in words {
        assert!(refusal.contains(word), "the refusal does not say {word:?}: {refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_on_a_real_apiserver() {
    let control_plane = ControlPlane::start(ControlPlaneOptions::default()).await.unwrap();
    let report = control_plane.install(&crds(), None).await.unwrap();
    assert_eq!(report.applied.len(), 8, "{:?}", report.applied);
    assert!(report.warnings.is_empty(), "the API server warns: {:?}", report.warnings);
    let client = control_plane.admin_client();

    bad_servers(&client).await;
    bad_sets(&client).await;
    bad_analyses(&client).await;
    immutable_fields(&client).await;
    scale_and_selectable_fields(&client).await;
    servers_with_a_state(&client).await;
    servers_are_applied_field_by_field(&client).await;
    approvals_do_not_change(&client).await;
    defaults(&client).await;
    control_plane.stop().await.unwrap();
}

async fn bad_servers(client: &Client) {
    let reference = |key: &str| json!({"secretKeyRef": {"name": "db", "key": key}});
    let file = |file: Value| server(|s| s["spec"]["app"]["files"] = json!([file]));
    let map = json!({"name": "m", "key": "a"});
    let cases: [(&[&str], Value); 15] = [
        (
            &["spec.app.env[0]", "a variable has either value or valueFrom, not both"],
            server(|s| s["spec"]["app"]["env"] = json!([{"name": "A", "value": "1", "valueFrom": reference("k")}])),
        ),
        (
            &["spec.app.env[0].valueFrom.secretKeyRef.key", "should match"],
            server(|s| s["spec"]["app"]["env"] = json!([{"name": "A", "valueFrom": reference("../k")}])),
        ),
        (
            &["spec.app.env[0].valueFrom", "exactly one of configMapKeyRef and secretKeyRef"],
            server(|s| s["spec"]["app"]["env"] = json!([{"name": "A", "valueFrom": {}}])),
        ),
        (
            &["spec.app.files[0]", "exactly one of configMapKeyRef and secretKeyRef"],
            file(json!({"path": "a", "configMapKeyRef": map, "secretKeyRef": map})),
        ),
        (
            &["spec.app.files[0]", "no part of a path is . or .."],
            file(json!({"path": "a/../b", "configMapKeyRef": map})),
        ),
        (&["spec.app.files[0].path", "should match"], file(json!({"path": "/etc/passwd", "configMapKeyRef": map}))),
        (
            &["spec.packages[0]", "exactly one of apt, dnf, archive or script"],
            server(|s| s["spec"]["packages"] = json!([{"name": "x", "version": "1", "snap": {}}])),
        ),
        (&["spec.packages[0]", "exactly one of"], server(|s| s["spec"]["packages"][0]["apt"] = json!({}))),
        (
            &["spec.packages[0].archive.sha256", "Required"],
            server(|s| {
                s["spec"]["packages"][0]["archive"].as_object_mut().unwrap().remove("sha256");
            }),
        ),
        (
            &["spec.app.artifact.sha256", "Required"],
            server(|s| {
                s["spec"]["app"]["artifact"].as_object_mut().unwrap().remove("sha256");
            }),
        ),
        (
            &["spec.app.artifact.sha256", "^[0-9a-f]{64}$"],
            server(|s| s["spec"]["app"]["artifact"]["sha256"] = json!("Z".repeat(64))),
        ),
        (
            &["spec.healthCheck", "exactly one of httpGet or tcpSocket"],
            server(|s| s["spec"]["healthCheck"]["tcpSocket"] = json!({"port": 1})),
        ),
        (
            &["spec.gates[0].before", "Unsupported value", "ReleaseTraffic"],
            server(|s| s["spec"]["gates"] = json!([{"before": "Lunch"}])),
        ),
        (
            &["spec.force.state", "Unsupported value", "Ready"],
            server(|s| s["spec"]["force"] = json!({"state": "Fine", "reason": "x"})),
        ),
        (
            &["spec.traffic.backends[0].port", "less than or equal to 65535"],
            server(|s| s["spec"]["traffic"]["backends"][0]["port"] = json!(70000)),
        ),
    ];
    for (words, value) in cases {
        assert_says(&refusal::<Server>(client, value).await, words);
    }
}

async fn bad_sets(client: &Client) {
    for kind in ["VMReplicaSet", "VMDeployment"] {
        let cases: [(&[&str], Value); 7] = [
            (&["spec.replicas", "greater than or equal to 0"], set(kind, |s| s["spec"]["replicas"] = json!(-1))),
            (&["spec.replicas", "less than or equal to 10000"], set(kind, |s| s["spec"]["replicas"] = json!(10001))),
            (
                &["spec.selector does not match"],
                set(kind, |s| s["spec"]["selector"]["matchLabels"]["app"] = json!("other")),
            ),
            (&["spec.selector needs matchLabels"], set(kind, |s| s["spec"]["selector"] = json!({}))),
            (
                &["maxUnavailable is a number of at least 0 or a percentage from 0% to 100%"],
                set(kind, |s| s["spec"]["updateStrategy"] = json!({"maxUnavailable": "101%"})),
            ),
            (&["maxSurge is a number"], set(kind, |s| s["spec"]["updateStrategy"] = json!({"maxSurge": -1}))),
            (&["metadata.name: at most 52 characters"], set(kind, |s| s["metadata"]["name"] = json!("x".repeat(53)))),
        ];
        for (words, value) in cases {
            let refused = if kind == "VMReplicaSet" {
                refusal::<VMReplicaSet>(client, value).await
            } else {
                refusal::<VMDeployment>(client, value).await
            };
            assert_says(&refused, words);
        }
    }
    let steps = set("VMDeployment", |s| s["spec"]["rollout"] = json!({"steps": [{"weight": 10, "pause": {}}]}));
    assert_says(
        &refusal::<VMDeployment>(client, steps).await,
        &["spec.rollout.steps[0]", "exactly one of servers, pause, weight, analysis, bake, approve or baseline"],
    );
    let steps = json!([{"servers": 1}, {"baseline": {"server": 1}}]);
    let steps = set("VMDeployment", |s| s["spec"]["rollout"] = json!({"steps": steps}));
    assert_says(
        &refusal::<VMDeployment>(client, steps).await,
        &["spec.rollout.steps[1].baseline.servers", "Required value"],
    );
}

async fn bad_analyses(client: &Client) {
    let slo = json!({"name": "slo", "source": "main", "query": "up", "condition": "< 0.01"});
    let proportion = json!({"bad": "b", "total": "t", "maxIncrease": "0.005"});
    let checked = |check: &Value| json!({"checks": [check], "steps": [{"analysis": {"checks": ["slo"]}}]});
    let with = |field: &str, value: Value| {
        let mut check = slo.clone();
        check[field] = value;
        checked(&check)
    };
    let analysis = |analysis: Value| json!({"checks": [slo.clone()], "steps": [{"analysis": analysis}]});
    let part = |field: &str, value: &str| {
        let mut proportion = proportion.clone();
        proportion[field] = json!(value);
        checked(&json!({"name": "slo", "source": "main", "proportion": proportion}))
    };
    let cases: [(Value, &[&str]); 12] = [
        (
            analysis(json!({"checks": ["errors"]})),
            &["rollout", "an analysis names a check that rollout.checks does not have"],
        ),
        (json!({"steps": [{"analysis": {"checks": ["slo"]}}]}), &["a check that rollout.checks does not have"]),
        (analysis(json!({})), &["analysis.checks: name at least one check"]),
        (
            analysis(json!({"checks": ["slo"], "count": 10, "maxSeconds": 599})),
            &["steps[0].analysis", "longer than maxSeconds"],
        ),
        (
            with("proportion", proportion.clone()),
            &["rollout.checks[0]", "one of proportion, shift, or query and condition"],
        ),
        (checked(&json!({"name": "slo", "source": "main"})), &["one of proportion, shift, or query and condition"]),
        (
            checked(&json!({"name": "slo", "source": "main", "query": "up"})),
            &["query and condition of a check belong together"],
        ),
        (with("condition", json!("below 1")), &["rollout.checks[0].condition", "should match"]),
        (part("maxIncrease", "0.5%"), &["proportion.maxIncrease", "should match"]),
        (part("alpha", "0.0"), &["proportion.alpha", "should match"]),
        (part("alpha", "1"), &["proportion.alpha", "should match"]),
        (json!({"checks": [slo.clone(), slo.clone()]}), &["rollout.checks[1]", "Duplicate value"]),
    ];
    for (rollout, words) in cases {
        let object = set("VMDeployment", |s| s["spec"]["rollout"] = rollout);
        assert_says(&refusal::<VMDeployment>(client, object).await, words);
    }
    let good = json!({"checks": [slo, {"name": "errors", "source": "main", "proportion": proportion}],
        "steps": [{"analysis": {"checks": ["slo", "errors"], "count": 60}}]});
    let stored: VMDeployment = create(client, set("VMDeployment", |s| s["spec"]["rollout"] = good)).await;
    let rollout = stored.spec.rollout;
    assert_eq!(rollout.checks[1].proportion.as_ref().unwrap().alpha, "0.01");
    Api::<VMDeployment>::namespaced(client.clone(), "default").delete("web", &DeleteParams::default()).await.unwrap();

    let classes: Api<MonitoringClass> = Api::all(client.clone());
    for (address, is_good) in [
        ("http://prometheus.monitoring:9090", true),
        ("https://metrics.example/prometheus", true),
        ("prometheus:9090", false),
        ("http://user:secret@prometheus:9090", false),
        ("http://prometheus:9090?x=y", false),
        ("file:///etc/passwd", false),
    ] {
        let class: MonitoringClass =
            serde_json::from_value(manifest("MonitoringClass", "main", json!({"address": address}))).unwrap();
        let created = classes.create(&PostParams { dry_run: true, ..PostParams::default() }, &class).await;
        assert_eq!(created.is_ok(), is_good, "{address}: {created:?}");
    }
}

async fn create<K>(client: &Client, value: Value) -> K
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    api.create(&PostParams::default(), &serde_json::from_value(value).unwrap()).await.unwrap()
}

async fn merge<K>(client: &Client, name: &str, patch: Value) -> Result<K, kube::Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    K::DynamicType: Default,
{
    Api::<K>::namespaced(client.clone(), "default").patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

async fn immutable_fields(client: &Client) {
    let _: Server = create(client, server(|_| ())).await;
    let error =
        merge::<Server>(client, "web-0", json!({"spec": {"machine": {"className": "other"}}})).await.unwrap_err();
    assert_says(&error.to_string(), &["spec.machine is immutable"]);
    let _: VMReplicaSet = create(client, set("VMReplicaSet", |_| ())).await;
    let patch = json!({"spec": {"selector": {"matchLabels": {"app": "b"}}, "template": {"metadata": {"labels": {"app": "b"}}}}});
    let error = merge::<VMReplicaSet>(client, "web", patch).await.unwrap_err();
    assert_says(&error.to_string(), &["spec.selector is immutable"]);
}

async fn scale_and_selectable_fields(client: &Client) {
    let api: Api<VMReplicaSet> = Api::namespaced(client.clone(), "default");
    api.patch_scale("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 7}}))).await.unwrap();
    assert_eq!(api.get("web").await.unwrap().spec.replicas, 7);
    let servers: Api<Server> = Api::namespaced(client.clone(), "default");
    let by_state = kube::api::ListParams::default().fields("status.state=Ready");
    assert_eq!(servers.list(&by_state).await.unwrap().items.len(), 0);
    let by_class = kube::api::ListParams::default().fields("spec.machine.className=local");
    assert_eq!(servers.list(&by_class).await.unwrap().items.len(), 1);
}

/// All controllers but replicaset-controller watch Servers only once they have a state.
async fn servers_with_a_state(client: &Client) {
    let api: Api<Server> = Api::namespaced(client.clone(), "default");
    let mut events = pin!(watcher(api.clone(), berth_runtime::with_state()).applied_objects().map_ok(|s| s.name_any()));
    let next = async |events: &mut Pin<_>| timeout(SOON, TryStreamExt::try_next(events)).await.unwrap().unwrap();
    let begin = async |name: &str| {
        let status = Patch::Merge(json!({"status": {"state": "Initializing"}}));
        api.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    };
    for name in ["early", "late"] {
        let _: Server = create(client, server(|s| s["metadata"]["name"] = json!(name))).await;
    }
    begin("early").await;
    assert_eq!(next(&mut events).await.as_deref(), Some("early"), "there were others without a state");
    begin("late").await;
    assert_eq!(next(&mut events).await.as_deref(), Some("late"));
    for name in ["early", "late"] {
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

/// Most fields of a Server's spec are atomic: `managedFields` has one entry for each.
async fn servers_are_applied_field_by_field(client: &Client) {
    let api: Api<Server> = Api::namespaced(client.clone(), "default");
    let web = api.get("web-0").await.unwrap();
    let fields = web.metadata.managed_fields.unwrap().remove(0).fields_v1.unwrap().0;
    for field in ["f:app", "f:healthCheck", "f:machine", "f:reachability", "f:traffic"] {
        assert_eq!(fields["f:spec"][field], json!({}), "{field}: {fields}");
    }
    assert_eq!(fields["f:spec"]["f:packages"]["k:{\"name\":\"tool\"}"], json!({}), "{fields}");
}

async fn approvals_do_not_change(client: &Client) {
    let spec = json!({"target": {"kind": "Server", "name": "web-0"}, "taskID": 3, "decision": "Approve"});
    let approval = manifest("Approval", "yes", spec);
    let mut without_task = approval.clone();
    without_task["spec"].as_object_mut().unwrap().remove("taskID");
    assert_says(&refusal::<Approval>(client, without_task).await, &["spec.taskID is required for a Server"]);
    let _: Approval = create(client, approval).await;
    let error = merge::<Approval>(client, "yes", json!({"spec": {"decision": "Refuse"}})).await.unwrap_err();
    assert_says(&error.to_string(), &["an Approval is immutable"]);
}

async fn defaults(client: &Client) {
    let api: Api<Server> = Api::namespaced(client.clone(), "default");
    let spec = api.get("web-0").await.unwrap().spec;
    assert_eq!((spec.task_attempts, spec.reachability.unreachable_after_seconds), (5, 30));
    let check = spec.health_check.unwrap();
    assert_eq!((check.period_seconds, check.failure_threshold, check.http_get.unwrap().path.as_str()), (10, 3, "/"));
    let class = berth_testing::machine_class(json!({"spec": {"parameters": {"anything": {"goes": [1]}}}}));
    let classes: Api<MachineClass> = Api::all(client.clone());
    let class = classes.create(&PostParams::default(), &class).await.unwrap();
    assert_eq!(class.spec.access.port, 22);
    assert_eq!(class.spec.parameters["anything"]["goes"][0], 1);
}
