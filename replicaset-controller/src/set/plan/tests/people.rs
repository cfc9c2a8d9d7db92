//! What people do to single Servers while the set is changed: requests in bulk, and forces.

use serde_json::json;

use super::phases::{fleet, names, set, world};

#[test]
fn a_bulk_edit_lets_no_serving_server_be_replaced_for_free() {
    let old = set("1", "c", json!({}));
    let strategy = json!({"type": "Replace", "maxUnavailable": 1, "maxSurge": 0});
    let new = set("1", "d", json!({"updateStrategy": strategy}));
    // One is out of service already, which is all that the budget allows; `spec.retry` of the others was just patched.
    let mut servers = fleet(&old, &["Ready", "Ready", "Ready", "Unknown"]);
    for server in &mut servers[..3] {
        server.metadata.generation = Some(2);
    }
    assert_eq!(names(&world(&servers).plan(&new).replace), ["web-3"]);
}

#[test]
fn a_bulk_edit_does_not_change_which_servers_are_surplus() {
    let mut smaller = set("1", "c", json!({"replicas": 3}));
    smaller.spec.scale_down.policy = berth_core::api::ScaleDownPolicy::Newest;
    let mut servers = fleet(&smaller, &["Ready", "Deploying", "Ready", "Ready"]);
    for server in &mut servers {
        server.metadata.generation = Some(2);
    }
    assert_eq!(names(&world(&servers).plan(&smaller).retire), ["web-1"]);
}
