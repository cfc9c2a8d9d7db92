//! Objects for tests.

use berth_core::{
    api::{Server, State, TaskKind, VMDeployment, VMReplicaSet, VMReplicaSetStatus},
    conditions::{self, STALLED, Standing},
    lifecycle,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::replica_set::{self, newest_app};

/// The time of the tests, in seconds since the epoch.
const NOW: i64 = 1_000_000;

/// The time of the tests.
pub(crate) fn now() -> Timestamp {
    seconds_ago(0)
}

fn seconds_ago(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW - seconds).unwrap()
}

/// A VMDeployment of three Servers with this revision of the application, and with a changed spec.
pub(crate) fn deployment(revision: &str, change: impl FnOnce(&mut Value)) -> VMDeployment {
    let mut spec = json!({"replicas": 3, "app": {"revision": revision}});
    change(&mut spec);
    berth_testing::deployment(json!({"metadata": {"generation": 4}, "spec": spec}))
}

/// The set of this VMDeployment, which has nothing left to do.
pub(crate) fn ready_set(deployment: &VMDeployment) -> VMReplicaSet {
    let mut set = replica_set::desired(deployment, newest_app(deployment));
    let mut status = VMReplicaSetStatus { replicas: deployment.spec.replicas, ..VMReplicaSetStatus::default() };
    conditions::set_standing(&mut status.conditions, Standing::Ready, None, now());
    set.status = Some(status);
    set
}

/// A Server that declares this revision, and was created and entered its state `age` seconds ago.
pub(crate) fn server(name: &str, revision: &str, state: &str, age: i64) -> Server {
    let created = seconds_ago(age).to_string();
    let mut server = berth_testing::server(json!({
        "metadata": {"name": name, "creationTimestamp": created},
        "status": {"state": state, "stateSince": created, "observedGeneration": 1},
    }));
    server.spec.app = Some(deployment(revision, |_| {}).spec.app);
    server
}

/// A Server on which the deployment of this revision has failed.
pub(crate) fn failed(name: &str, revision: &str) -> Server {
    let mut server = server(name, revision, "Deploying", 60);
    fail(&mut server);
    server
}

/// The deployment of the declared application fails on this Server.
pub(crate) fn fail(server: &mut Server) {
    let planned = lifecycle::plan(server, State::Deploying);
    let task = planned.iter().find(|task| task.kind == TaskKind::DeployApp).unwrap();
    let status = server.status.as_mut().unwrap();
    status.state = Some(State::Deploying);
    let failed = json!({"id": 1, "kind": "DeployApp", "step": 1, "phase": "Failed",
        "digest": task.digest, "message": "no space left"});
    status.tasks = vec![serde_json::from_value(failed).unwrap()];
    let (conditions, now) = (&mut status.conditions, now());
    conditions::set(conditions, STALLED, true, "TaskFailed", "DeployApp (task 1) failed: no space left", None, now);
}
