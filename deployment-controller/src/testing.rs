//! Objects for tests.

use berth_core::api::{Server, VMDeployment};
use serde_json::{Value, json};

fn app(revision: &str) -> Value {
    let artifact = json!({"url": "http://127.0.0.1/app.tar.gz", "sha256": "a".repeat(64)});
    json!({"name": "web", "revision": revision, "artifact": artifact, "command": "./run"})
}

pub(crate) fn deployment(revision: &str, change: impl FnOnce(&mut Value)) -> VMDeployment {
    let labels = json!({"app": "web"});
    let mut spec = json!({
        "replicas": 3, "selector": {"matchLabels": labels}, "app": app(revision),
        "template": {"metadata": {"labels": labels}, "spec": {"machine": {"className": "local"}}},
    });
    change(&mut spec);
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "VMDeployment",
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 4}, "spec": spec,
    }))
    .unwrap()
}

/// A Server that is in this state with this revision declared, `age` seconds old.
pub(crate) fn server(name: &str, revision: &str, state: &str, age: i64) -> Server {
    let at = |seconds: i64| k8s_openapi::jiff::Timestamp::from_second(NOW - seconds).unwrap().to_string();
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
        "metadata": {"name": name, "namespace": "n", "uid": name, "generation": 1, "creationTimestamp": at(age)},
        "spec": {"machine": {"className": "local"}, "app": app(revision)},
        "status": {"state": state, "stateSince": at(age), "observedGeneration": 1},
    }))
    .unwrap()
}

pub(crate) const NOW: i64 = 1_000_000;

pub(crate) fn now() -> k8s_openapi::jiff::Timestamp {
    k8s_openapi::jiff::Timestamp::from_second(NOW).unwrap()
}
