//! Complete objects of all kinds: valid, and with a value in every field, so that a mutation can reach every field.

use berth_core::api::{MachinePhase, Server};
use serde_json::{Value, json};

use berth_testing::{Fixture, full_spec, manifest};

/// A kind, and a complete object of it.
pub(crate) fn objects() -> Vec<(&'static str, Value)> {
    vec![
        ("Server", server()),
        ("VMReplicaSet", set()),
        ("VMDeployment", deployment()),
        ("MachineClass", class()),
        ("Approval", approval()),
    ]
}

fn object(kind: &str, spec: &Value, status: &Value) -> Value {
    let metadata = json!({"name": "web", "namespace": "default", "uid": "uid-1", "resourceVersion": "7", "generation": 3,
        "labels": {"app": "web"}, "annotations": {"berth.dev/rollout-priority": "5"}, "finalizers": ["berth.dev/retire"],
        "creationTimestamp": "2027-01-15T08:00:00Z"});
    let mut object = manifest(kind, "web", spec.clone());
    object["metadata"] = metadata;
    if !status.is_null() {
        object["status"] = status.clone();
    }
    object
}

fn app() -> Value {
    json!({"name": "web", "revision": "r1", "command": "./run", "keepReleases": 2,
        "artifact": {"url": "http://a.example/w.tgz", "sha256": "b".repeat(64)}, "env": [{"name": "A", "value": "1"}]})
}

/// What Servers and templates declare in common.
fn environment() -> Value {
    let archive = json!({"url": "http://a.example/r.tgz", "sha256": "a".repeat(64), "destination": "/opt/r",
        "install": "make", "remove": "rm -r ."});
    json!({
        "machine": {"className": "local", "image": "debian", "flavor": "small"},
        "packages": [
            {"name": "jq", "version": "1.7", "apt": {"unheld": true}},
            {"name": "curl", "version": "8.0-1", "dnf": {"unheld": true}},
            {"name": "runtime", "version": "1.0", "archive": archive},
            {"name": "tool", "version": "2", "script": {"check": "tool", "install": "get tool", "remove": "rm tool"}}
        ],
        "prunePackages": true,
        "healthCheck": {"httpGet": {"port": 8080, "path": "/ok"}, "periodSeconds": 5, "timeoutSeconds": 1,
            "successThreshold": 2, "failureThreshold": 4, "deadlineSeconds": 60},
        "reachability": {"periodSeconds": 5, "timeoutSeconds": 1, "unreachableAfterSeconds": 20},
        "traffic": {"backends": [{"service": "web", "port": 8080, "portName": "http"},
            {"class": "edge", "name": "web", "port": 80, "weight": 50, "subset": "Updated"}], "drain": {"seconds": 5, "minSeconds": 2}},
        "monitoring": {"port": 9100, "path": "/m", "labels": {"team": "a"}},
        "gates": [{"before": "DeployApp"}, {"before": "ReleaseTraffic"}],
        "taskAttempts": 3,
        "app": app()
    })
}

fn template() -> Value {
    let mut spec = environment();
    spec.as_object_mut().unwrap().remove("app");
    json!({"metadata": {"labels": {"app": "web"}, "annotations": {"note": "x"}}, "spec": spec})
}

fn update_strategy() -> Value {
    json!({"type": "Replace", "maxUnavailable": "25%", "maxSurge": 1, "intervalSeconds": 5, "partition": 1, "maxFailed": 2})
}

fn failover() -> Value {
    json!({"waitSeconds": 60, "reboot": {"cooldownSeconds": 600}, "action": "Replace", "maxInFlight": 2,
        "unhealthyLessThanOrEqualTo": "40%", "retain": {"max": 1, "expirySeconds": 3600}})
}

fn conditions() -> Value {
    json!([{"type": "Stalled", "status": "True", "reason": "TaskFailed", "message": "no", "observedGeneration": 3,
        "lastTransitionTime": "2027-01-15T08:00:00Z"}])
}

fn set() -> Value {
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template(),
        "updateStrategy": update_strategy(), "minReadySeconds": 5, "paused": true,
        "scaleDown": {"policy": "Oldest", "servers": ["web-1", "web-2"]}, "failover": failover()});
    let status = json!({"observedGeneration": 3, "replicas": 3, "readyReplicas": 2, "availableReplicas": 1,
        "updatedReplicas": 1, "selector": "app=web", "waitingFor": "a person: no", "creating": [{"server": "web-3"}],
        "disturbed": [{"server": "web-1", "axis": "Environment"}, {"server": "web-1", "axis": "App"}],
        "lastDisturbedAt": "2027-01-15T08:00:00Z", "conditions": conditions()});
    object("VMReplicaSet", &spec, &status)
}

fn deployment() -> Value {
    let steps = json!([{"servers": 1}, {"servers": "25%"}, {"pause": {}}, {"weight": 10},
        {"analysis": {"checks": ["slo", "errors"], "intervalSeconds": 30, "count": 3, "maxFailures": 1, "maxInconclusive": 2,
            "noData": "Fail", "maxSeconds": 600}}]);
    let checks = json!([{"name": "slo", "source": "main", "query": "up", "condition": "< 1"},
        {"name": "errors", "source": "main", "proportion": {"bad": "b", "total": "t", "maxIncrease": "0.1", "alpha": "0.05"}}]);
    let analysis = json!({"step": 5, "attempt": 1, "digest": "d", "since": "2027-01-15T08:00:00Z", "looks": 6,
        "lookedAt": "2027-01-15T08:00:00Z", "checks": [{"name": "slo", "passes": 1, "failures": 2, "inconclusive": 3,
        "verdict": "Pass", "message": "1"}]});
    let rollout = json!({"checks": checks, "order": "Priority", "partition": 1, "maxFailed": "5%", "progressDeadlineSeconds": 60, "steps": steps,
        "httpRoutes": [{"name": "web", "stableService": "web", "canaryService": "web-canary"}]});
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template(), "app": app(),
        "rollout": rollout, "updateStrategy": update_strategy(), "minReadySeconds": 5, "paused": true,
        "scaleDown": {"policy": "Random", "servers": ["web-1"]}, "failover": failover()});
    let status = json!({"observedGeneration": 3, "replicas": 3, "readyReplicas": 2, "availableReplicas": 1,
        "updatedReplicas": 1, "revision": "r2", "stableRevision": "r1", "stableApp": app(), "selector": "app=web",
        "httpRoutes": [{"name": "web", "weight": 10}, {"name": "api", "problem": "HTTPRoute api does not exist"}],
        "rollout": {"digest": "d", "healthyReplicas": 1, "progressedAt": "2027-01-15T08:00:00Z",
            "analysis": analysis},
        "waitingFor": "a person: no", "conditions": conditions()});
    object("VMDeployment", &spec, &status)
}

fn class() -> Value {
    let spec = json!({"provider": "incus", "image": "debian", "flavor": "small", "parameters": {"pool": "a"},
        "credentials": {"namespace": "berth-system", "name": "incus"},
        "access": {"user": "berth", "port": 2222, "root": "/srv/berth"}, "orphanPolicy": "Delete", "orphanLimit": 7,
        "orphanGraceSeconds": 60});
    object("MachineClass", &spec, &Value::Null)
}

fn approval() -> Value {
    let spec = json!({"target": {"kind": "VMReplicaSet", "name": "web", "uid": "uid-1", "generation": 3}, "taskID": 4,
        "gate": "CreateMachine", "decision": "Approve", "reason": "it is time",
        "approver": {"username": "ann", "at": "2027-01-15T08:00:00Z"}});
    object("Approval", &spec, &Value::Null)
}

/// A Server in the middle of its life, with all fields that people and failover write, a lock, a claim and a report.
fn server() -> Value {
    let mut fixture = Fixture::ready();
    fixture.declare(|spec| spec.packages[0].version = "1.1".into());
    fixture.perform(berth_core::api::TaskKind::HoldTraffic);
    fixture.claim(berth_core::api::TaskKind::InstallPackages, "a").unwrap();
    let Server { status, .. } = fixture.server;
    let mut status = serde_json::to_value(status.unwrap()).unwrap();
    let time = "2027-01-15T08:00:00Z";
    let task = status["lock"]["taskID"].clone();
    let facts = json!({
        "machine": {"phase": format!("{:?}", MachinePhase::Running), "id": "m1", "address": "127.1.0.1", "bootID": "b1",
            "ssh": {"port": 22, "user": "root", "hostKey": "ssh-ed25519 AAAA", "root": "/opt/berth"}, "createdAt": time},
        "environment": {"verified": true, "packages": [{"name": "runtime", "version": "1.0", "sha256": "a".repeat(64)}]},
        "app": {"revision": "r1", "verified": true, "deployedAt": time},
        "traffic": {"phase": "Held", "backends": full_spec().traffic.unwrap().registered_backends(), "address": "127.1.0.1"},
        "reachability": {"reachable": true, "since": time, "observedAt": time, "message": "ok"},
        "health": {"state": "Healthy", "epoch": 1, "since": time, "message": "ok"},
        "monitoring": {"phase": "Bound", "digest": "0123456789"},
        "force": {"id": "0123456789", "active": true, "message": "x"},
        "epoch": 1, "observedRetry": "1", "observedReboot": "1", "waitingFor": "a person: no",
        "claim": {"taskID": task, "holder": "replicaset-controller/a", "durationSeconds": 30},
        "report": {"taskID": task, "holder": "replicaset-controller/a", "outcome": "Retry", "message": "no",
            "retryAfterSeconds": 5}
    });
    status.as_object_mut().unwrap().extend(facts.as_object().unwrap().clone());
    let mut spec = environment();
    let request = json!({"id": "2", "reason": "why", "by": "ann", "at": time});
    let only = json!({"offline": true, "retry": request, "reboot": request, "retain": {"until": time, "reason": "why"},
        "force": {"state": "Ready", "reason": "by hand", "by": "ann", "at": time, "declaration": "0123456789"}});
    spec.as_object_mut().unwrap().extend(only.as_object().unwrap().clone());
    object("Server", &spec, &status)
}
