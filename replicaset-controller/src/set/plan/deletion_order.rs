//! The deletion order: which Servers are removed first when a set has too many.

use std::{cmp::Reverse, collections::HashSet};

use berth_core::{
    api::{Axis, ScaleDownPolicy, Server, VMReplicaSet},
    digest,
    ledger::Ledger,
};

/// Annotation with a whole number: Servers with a lower cost are removed first. Without it the cost is 0. Like
/// `controller.kubernetes.io/pod-deletion-cost` of Pods.
const DELETION_COST: &str = "berth.dev/deletion-cost";

/// The Servers in the order in which they are removed: those that failover gives up first, then those that `scaleDown.servers`
/// names, then by deletion cost, then those that serve nothing or are being changed (they cost none of the budget), then those
/// that are not Ready, then those whose machine would be replaced anyway, then by `scaleDown.policy`, and by name where all else
/// is equal.
pub(super) fn deletion_order<'a>(set: &VMReplicaSet, servers: &[&'a Server], ledger: &Ledger) -> Vec<&'a Server> {
    let unreachable: HashSet<&str> = ledger.on(Axis::Failover).collect();
    let disturbed = ledger.servers();
    let scale_down = &set.spec.scale_down;
    let named: HashSet<&str> = scale_down.servers.iter().map(String::as_str).collect();
    let mut ordered = servers.to_vec();
    ordered.sort_by_cached_key(|server| {
        (
            !unreachable.contains(server.name()),
            !named.contains(server.name()),
            cost(server),
            server.is_in_service() && !disturbed.contains(server.name()),
            server.is_ready(),
            !set.must_replace(server),
            by_policy(scale_down.policy, server),
            server.name().to_owned(),
        )
    });
    ordered
}

fn cost(server: &Server) -> i64 {
    server.annotation(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// A key that sorts ascending. Servers created within one second differ in their ordinals, which rise.
fn by_policy(policy: ScaleDownPolicy, server: &Server) -> (Reverse<(i64, usize)>, (i64, usize), String) {
    let created = server.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let ordinal = server.name().rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (age, none) = ((created, ordinal), (0, 0));
    match policy {
        ScaleDownPolicy::Newest => (Reverse(age), none, String::new()),
        ScaleDownPolicy::Oldest => (Reverse(none), age, String::new()),
        ScaleDownPolicy::Random => (Reverse(none), none, digest::short(server.uid())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(name: &str, created: i64, ready: bool, cost: Option<&str>) -> Server {
        let created = k8s_openapi::jiff::Timestamp::from_second(1_000_000 + created).unwrap().to_string();
        let annotations = cost.map(|cost| json!({DELETION_COST: cost}));
        berth_testing::server(json!({
            "metadata": {"name": name, "creationTimestamp": created, "annotations": annotations},
            "status": {"state": if ready { "Ready" } else { "Deploying" }, "observedGeneration": 1},
        }))
    }

    fn set(named: &[&str], policy: ScaleDownPolicy, type_: &str) -> VMReplicaSet {
        let scale_down = json!({"servers": named, "policy": policy});
        berth_testing::replica_set(json!({"spec": {"updateStrategy": {"type": type_}, "scaleDown": scale_down}}))
    }

    fn order(set: &VMReplicaSet, servers: &[Server], unreachable: &[&str]) -> Vec<String> {
        order_with(set, servers, Axis::Failover, unreachable)
    }

    fn order_with(set: &VMReplicaSet, servers: &[Server], axis: Axis, entered: &[&str]) -> Vec<String> {
        let mut ledger = Ledger::default();
        for server in entered {
            ledger.enter(*server, axis);
        }
        let order = deletion_order(set, &servers.iter().collect::<Vec<_>>(), &ledger);
        order.into_iter().map(|server| server.name().to_owned()).collect()
    }

    fn fleet() -> Vec<Server> {
        vec![
            server("w-0", 0, true, None),
            server("w-1", 5, true, Some("-3")),
            server("w-2", 5, false, None),
            server("w-3", 9, true, None),
            server("w-10", 9, true, Some("not a number")),
            server("w-4", 1, true, Some("7")),
        ]
    }

    #[test]
    fn scale_down_prefers_unreachable_then_named_then_cheap_then_unready_servers() {
        let named = set(&["w-4", "w-0"], ScaleDownPolicy::Newest, "InPlace");
        assert_eq!(order(&named, &fleet(), &[]), ["w-0", "w-4", "w-1", "w-2", "w-10", "w-3"]);
        assert_eq!(order(&named, &fleet(), &["w-3"]), ["w-3", "w-0", "w-4", "w-1", "w-2", "w-10"]);
        let oldest = set(&[], ScaleDownPolicy::Oldest, "InPlace");
        assert_eq!(order(&oldest, &fleet(), &[]), ["w-1", "w-2", "w-0", "w-3", "w-10", "w-4"]);
    }

    #[test]
    fn a_server_that_would_be_replaced_is_removed_before_its_equals() {
        let mut fleet = fleet();
        fleet[0].spec.machine.class_name = "small".into();
        let newest = |type_| order(&set(&[], ScaleDownPolicy::Newest, type_), &fleet, &[]);
        assert_eq!(newest("Replace"), ["w-1", "w-2", "w-0", "w-10", "w-3", "w-4"]);
        assert_eq!(newest("InPlace"), ["w-1", "w-2", "w-10", "w-3", "w-0", "w-4"]);
    }

    /// Such a Server counts as unavailable already. To remove another one instead would take one more out of service than the
    /// budget allows: found by the properties of whole fleets, when code was rolled out and `replicas` was lowered at once.
    #[test]
    fn scale_down_prefers_servers_that_are_being_changed() {
        let fleet: Vec<Server> = (0..4).map(|n| server(&format!("w-{n}"), n, true, None)).collect();
        let newest = set(&[], ScaleDownPolicy::Newest, "InPlace");
        assert_eq!(order_with(&newest, &fleet, Axis::App, &[]), ["w-3", "w-2", "w-1", "w-0"]);
        assert_eq!(order_with(&newest, &fleet, Axis::App, &["w-0", "w-1"]), ["w-1", "w-0", "w-3", "w-2"]);
    }

    #[test]
    fn the_order_does_not_depend_on_the_order_of_the_list() {
        for policy in [ScaleDownPolicy::Newest, ScaleDownPolicy::Oldest, ScaleDownPolicy::Random] {
            let set = set(&[], policy, "InPlace");
            let mut fleet = fleet();
            let first = order(&set, &fleet, &[]);
            fleet.reverse();
            assert_eq!(order(&set, &fleet, &[]), first, "{policy:?}");
        }
    }
}
