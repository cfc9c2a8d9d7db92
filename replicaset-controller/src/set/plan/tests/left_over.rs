//! Servers that were entered in the ledger to be removed, and are still there when others fail.

use serde_json::json;

use super::fleets::{disturbed, fleet, names, server, set, world};

#[test]
fn a_replacement_that_was_not_carried_out_waits_when_others_fail() {
    let before = set("1", "c", json!({}));
    let strategy = json!({"type": "Replace", "maxUnavailable": 1, "maxSurge": 0});
    let mut now = set("1", "d", json!({"replicas": 2, "updateStrategy": strategy}));
    let mut servers = fleet(&before, &["Ready"; 2]);
    servers.push(server(&now, 2, "Ready"));
    now.status = serde_json::from_value(json!({"disturbed": [
        {"server": "web-0", "axis": "Replacement"}, {"server": "web-1", "axis": "Replacement"}]}))
    .unwrap();
    assert_eq!(names(&world(&servers).plan(&now).replace), ["web-0", "web-1"], "one stays");
    servers[2] = server(&now, 2, "Unknown");
    assert_eq!(names(&world(&servers).enter(&mut now).replace), ["web-0"], "the other one has to serve");
    assert_eq!(disturbed(&now), ["web-0/Replacement"]);
}

#[test]
fn a_surplus_server_that_was_not_removed_stays_in_the_place_of_one_that_fails() {
    let mut now = set("1", "c", json!({"replicas": 2, "updateStrategy": {"maxUnavailable": 0}}));
    now.status = serde_json::from_value(json!({"disturbed": [{"server": "web-0", "axis": "Retirement"}]})).unwrap();
    let servers = fleet(&now, &["Ready"; 3]);
    assert_eq!(names(&world(&servers).plan(&now).retire), ["web-0"]);
    let servers = fleet(&now, &["Ready", "Ready", "Unknown"]);
    assert_eq!(names(&world(&servers).enter(&mut now).retire), ["web-2"]);
    assert_eq!(disturbed(&now), ["web-2/Retirement"]);
}
