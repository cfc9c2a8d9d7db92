//! What people do to single Servers while the set is changed: requests in bulk, and forces.

use std::collections::HashSet;

use berth_core::api::{Server, VMReplicaSet};
use proptest::prelude::*;
use serde_json::json;

use super::fleets::{World, fleet, names, set, world};
use crate::set::{drift_repair::DriftView, plan::Plan};

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

/// A person forces the Server; `is_known` says whether the webhook has seen it.
fn force(server: &mut Server, state: &str, is_known: bool) {
    let force = json!({"state": state, "reason": "looking into it", "by": "ann"});
    server.spec.force = serde_json::from_value(force).unwrap();
    if is_known {
        let id = berth_core::digest::short(server.spec.force.as_ref().unwrap());
        server.status.as_mut().unwrap().force = serde_json::from_value(json!({"id": id, "active": true})).unwrap();
    }
}

fn with_drift(servers: &[Server], drift: DriftView) -> World<'_> {
    let mut world = world(servers);
    world.drift = drift;
    world
}

fn blocker<'p>(plan: &'p Plan<'_>, reason: &str) -> &'p str {
    &plan
        .blockers
        .iter()
        .find(|blocker| blocker.reason == reason)
        .unwrap_or_else(|| panic!("{:?}", plan.blockers))
        .message
}

#[test]
fn a_roll_out_spares_forced_servers_and_says_so() {
    let old = set("1", "c", json!({}));
    let new = set("2", "c", json!({"updateStrategy": {"maxUnavailable": 2}}));
    for is_known in [true, false] {
        let mut servers = fleet(&old, &["Unknown", "Ready", "Ready", "Ready"]);
        force(&mut servers[0], "Unknown", is_known);
        assert_eq!(
            names(&world(&servers).plan(&new).update),
            ["web-1"],
            "the forced one takes its share of the budget"
        );
        let mut servers = fleet(&new, &["Unknown", "Ready", "Ready", "Ready"]);
        servers[0].spec = old.spec.template.spec.clone();
        force(&mut servers[0], "Unknown", is_known);
        let plan = world(&servers).plan(&new);
        assert!(plan.update.is_empty());
        let message = blocker(&plan, "Forced");
        assert!(message.starts_with("web-0 is forced to Unknown by ann (looking into it)"), "{message}");
    }
}

#[test]
fn scale_in_replacement_and_repair_spare_forced_servers_and_say_so() {
    let declared = set("1", "c", json!({"replicas": 0}));
    let mut servers = fleet(&declared, &["Deploying", "Ready"]);
    force(&mut servers[0], "Deploying", true);
    let plan = world(&servers).plan(&declared);
    assert_eq!(names(&plan.retire), ["web-1"]);
    assert!(blocker(&plan, "Forced").contains("web-0"));

    let strategy = json!({"type": "Replace", "maxUnavailable": 1, "maxSurge": 1});
    let new = set("1", "d", json!({"replicas": 1, "updateStrategy": strategy}));
    let plan = world(&servers[..1]).plan(&new);
    assert_eq!((names(&plan.replace), plan.create.as_slice(), plan.to_replace), (vec![], &[][..], 0));
    assert!(blocker(&plan, "Forced").contains("web-0"));

    let steady = set("1", "c", json!({"replicas": 2}));
    let mut servers = fleet(&steady, &["Ready", "Ready"]);
    force(&mut servers[0], "Ready", true);
    let drift = DriftView { drifted: HashSet::from(["web-0".to_owned()]), ..DriftView::default() };
    let plan = with_drift(&servers, drift).plan(&steady);
    assert!(plan.repair.is_empty());
    assert!(blocker(&plan, "Forced").contains("web-0"));
}

#[test]
fn a_server_that_was_entered_is_left_alone_once_a_person_forces_it() {
    let lines = ["web-0/Retirement", "web-1/Replacement", "web-2/Environment", "web-3/Drift"];
    let old = set("1", "c", json!({}));
    let mut new = set("2", "c", json!({"updateStrategy": {"maxUnavailable": 4}}));
    new.status.as_mut().unwrap().disturbed = super::fleets::ledger(&lines);
    let mut servers = fleet(&old, &["Ready"; 4]);
    for server in &mut servers {
        force(server, "Ready", true);
    }
    let plan = world(&servers).plan(&new);
    assert!(plan.has_no_action(), "{plan:?}");
}

prop_compose! {
    fn any_fleet()(
        parts in prop::collection::vec((0..4usize, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()), 0..8),
    ) -> Vec<Server> {
        let sets = [set("1", "c", json!({})), set("2", "c", json!({})), set("1", "d", json!({})), set("2", "d", json!({}))];
        parts.into_iter().zip(0..).map(|((state, old, other, forced, known), ordinal)| {
            let state = ["Ready", "Deploying", "Unknown", "Initializing"][state];
            let of = &sets[usize::from(old) + 2 * usize::from(other)];
            let mut server = super::fleets::server(of, ordinal, state);
            if forced {
                force(&mut server, state, known);
            }
            server
        }).collect()
    }
}

proptest! {
    /// Whatever a set declares, and whatever stands in its ledger, nothing is done to a Server that a person has forced.
    #[test]
    fn no_plan_touches_a_forced_server(
        servers in any_fleet(), replicas in 0..9i32, replaces: bool, max in 0..4i32, surge in 0..3i32, wait in 0..600i32,
        entered in prop::collection::vec((0..8usize, 0..6usize), 0..4), drifted in prop::collection::hash_set("web-[0-7]", 0..4),
    ) {
        let type_ = if replaces { "Replace" } else { "InPlace" };
        let strategy = json!({"type": type_, "maxUnavailable": max, "maxSurge": surge.max(i32::from(max == 0))});
        let failover = json!({"action": "Replace", "waitSeconds": wait, "unhealthyLessThanOrEqualTo": "100%"});
        let mut set: VMReplicaSet = set("1", "c", json!({"replicas": replicas, "updateStrategy": strategy, "failover": failover}));
        let axes = ["Environment", "App", "Drift", "Retirement", "Replacement", "Failover"];
        let lines: Vec<String> = entered.iter().map(|(n, axis)| format!("web-{n}/{}", axes[*axis])).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        set.status.as_mut().unwrap().disturbed = super::fleets::ledger(&lines);
        let drift = DriftView { drifted, ..DriftView::default() };
        let plan = with_drift(&servers, drift).plan(&set);
        let forced: HashSet<&str> = servers.iter().filter(|s| s.spec.force.is_some()).map(Server::name).collect();
        let changed = plan.retire.iter().chain(&plan.replace).chain(&plan.update).chain(&plan.repair);
        let changed = changed.map(|server| server.name()).chain(plan.failover.replace.iter().map(String::as_str));
        let touched: Vec<&str> = changed.filter(|name| forced.contains(name)).collect();
        prop_assert!(touched.is_empty(), "{touched:?}");
    }
}
