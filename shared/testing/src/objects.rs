//! Objects of every kind. A test writes what it is about, and the rest has defaults.
//!
//! Each builder takes a JSON merge patch (RFC 7386) to a small, valid object: members are replaced, lists as a whole, and `null`
//! removes a member.

use berth_core::{
    GROUP, VERSION,
    api::{Approval, MachineClass, Server, ServerSpec, VMDeployment, VMReplicaSet},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The namespace of every object that has one.
const NAMESPACE: Option<&str> = Some("default");

/// The document of an object, as a person writes it.
pub fn manifest(kind: &str, name: &str, spec: impl Into<Value>) -> Value {
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": {"name": name}, "spec": spec.into()})
}

/// A Server, `web-0`, that declares a machine of the class `local` and has no status.
pub fn server(changes: impl Into<Value>) -> Server {
    object("Server", "web-0", NAMESPACE, json!({"machine": {"className": "local"}}), &changes.into())
}

/// A VMReplicaSet, `web`, of one Server.
pub fn replica_set(changes: impl Into<Value>) -> VMReplicaSet {
    object("VMReplicaSet", "web", NAMESPACE, set_spec(), &changes.into())
}

/// A VMDeployment, `web`, of one Server with revision `v1` of an application.
pub fn deployment(changes: impl Into<Value>) -> VMDeployment {
    let mut spec = set_spec();
    let artifact = json!({"url": "http://127.0.0.1/web.tgz", "sha256": "a".repeat(64)});
    spec["app"] = json!({"name": "web", "revision": "v1", "artifact": artifact, "command": "./run"});
    object("VMDeployment", "web", NAMESPACE, spec, &changes.into())
}

/// A MachineClass, `local`, of the provider `local`.
pub fn machine_class(changes: impl Into<Value>) -> MachineClass {
    object("MachineClass", "local", None, json!({"provider": "local"}), &changes.into())
}

/// An Approval, `yes`, that approves of a gate of the Server `web-0`.
pub fn approval(changes: impl Into<Value>) -> Approval {
    let spec = json!({"target": {"kind": "Server", "name": "web-0"}, "decision": "Approve"});
    object("Approval", "yes", NAMESPACE, spec, &changes.into())
}

fn set_spec() -> Value {
    json!({
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "local"}}},
    })
}

/// The object in its first generation, as an API server stores it. Its uid is its name, so that objects of different names are
/// different objects.
fn object<K: DeserializeOwned>(kind: &str, name: &str, namespace: Option<&str>, spec: Value, changes: &Value) -> K {
    let mut document = manifest(kind, name, spec);
    document["metadata"]["namespace"] = namespace.into();
    document["metadata"]["generation"] = 1.into();
    json_patch::merge(&mut document, changes);
    if document["metadata"]["uid"].is_null() {
        document["metadata"]["uid"] = document["metadata"]["name"].clone();
    }
    serde_json::from_value(document).unwrap_or_else(|error| panic!("not a {kind}: {error}"))
}

/// A declaration with everything but gates.
pub fn full_spec() -> ServerSpec {
    serde_json::from_value(json!({
        "machine": {"className": "local"},
        "packages": [{"name": "runtime", "version": "1.0",
            "archive": {"url": "http://a.example/r.tgz", "sha256": "a".repeat(64)}}],
        "app": {"name": "web", "revision": "r1", "command": "./run",
            "artifact": {"url": "http://a.example/w.tgz", "sha256": "b".repeat(64)}},
        "healthCheck": {"httpGet": {"port": 8080}},
        "traffic": {"backends": [{"service": "web", "port": 8080}]},
        "monitoring": {"port": 9100},
        "taskAttempts": 3
    }))
    .unwrap()
}
