//! Objects for tests.

use berth_core::api::{Server, VMDeployment};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

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
