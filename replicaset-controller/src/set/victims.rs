//! Which Servers go first when a set has too many.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
};

use berth_core::{
    api::{ScaleDownPolicy, Server, VMReplicaSet},
    budget::{self, name},
    digest,
};

use super::environment;

/// Annotation with a whole number: of Servers, the one with the lower cost goes first. Without it the cost is 0.
pub const DELETION_COST: &str = "berth.dev/deletion-cost";

/// The Servers in the order in which they go: those that failover gives up (`lost`, by name) first, then those that are
/// named, then by cost, then those that are not Ready, then those whose machine would be replaced anyhow, then as the
/// policy says, and by name where all else is equal.
#[must_use]
pub fn ranked<'a>(set: &VMReplicaSet, servers: &[&'a Server], lost: &BTreeSet<String>) -> Vec<&'a Server> {
    let scale_down = &set.spec.scale_down;
    let named: HashSet<&str> = scale_down.servers.iter().map(String::as_str).collect();
    let mut ranked = servers.to_vec();
    ranked.sort_by_cached_key(|server| {
        (
            !lost.contains(name(server)),
            !named.contains(name(server)),
            cost(server),
            budget::is_ready(server),
            !environment::is_to_replace(set, server),
            by_policy(scale_down.policy, server),
            name(server).to_owned(),
        )
    });
    ranked
}

fn cost(server: &Server) -> i64 {
    let annotations = server.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// Ascending. Servers of one second differ in their ordinals, which are given in order.
fn by_policy(policy: ScaleDownPolicy, server: &Server) -> (Reverse<(i64, usize)>, (i64, usize), String) {
    let created = server.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let ordinal = name(server).rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (age, none) = ((created, ordinal), (0, 0));
    match policy {
        ScaleDownPolicy::Newest => (Reverse(age), none, String::new()),
        ScaleDownPolicy::Oldest => (Reverse(none), age, String::new()),
        ScaleDownPolicy::Random => (Reverse(none), none, digest::short(&server.metadata.uid)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(name: &str, created: i64, ready: bool, cost: Option<&str>) -> Server {
        let created = k8s_openapi::jiff::Timestamp::from_second(1_000_000 + created).unwrap().to_string();
        serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
            "metadata": {
                "name": name, "uid": format!("uid-{name}"), "generation": 1, "creationTimestamp": created,
                "annotations": cost.map(|cost| json!({DELETION_COST: cost})),
            },
            "spec": {"machine": {"className": "local"}},
            "status": {"state": if ready { "Ready" } else { "Deploying" }, "observedGeneration": 1},
        }))
        .unwrap()
    }

    fn set(named: &[&str], policy: ScaleDownPolicy, type_: &str) -> VMReplicaSet {
        let labels = json!({"app": "web"});
        let template = json!({"metadata": {"labels": labels}, "spec": {"machine": {"className": "local"}}});
        serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "metadata": {"name": "w"},
            "spec": {
                "selector": {"matchLabels": labels}, "template": template, "updateStrategy": {"type": type_},
                "scaleDown": {"servers": named, "policy": policy},
            },
        }))
        .unwrap()
    }

    fn order(set: &VMReplicaSet, servers: &[Server], lost: &[&str]) -> Vec<String> {
        let lost = lost.iter().map(|&name| name.to_owned()).collect();
        ranked(set, &servers.iter().collect::<Vec<_>>(), &lost).into_iter().map(|s| name(s).to_owned()).collect()
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
    fn lost_then_named_then_cost_then_readiness_then_age() {
        let named = set(&["w-4", "w-0"], ScaleDownPolicy::Newest, "InPlace");
        assert_eq!(order(&named, &fleet(), &[]), ["w-0", "w-4", "w-1", "w-2", "w-10", "w-3"]);
        assert_eq!(order(&named, &fleet(), &["w-3"]), ["w-3", "w-0", "w-4", "w-1", "w-2", "w-10"]);
        let oldest = set(&[], ScaleDownPolicy::Oldest, "InPlace");
        assert_eq!(order(&oldest, &fleet(), &[]), ["w-1", "w-2", "w-0", "w-3", "w-10", "w-4"]);
    }

    #[test]
    fn of_equals_the_one_that_would_be_replaced_goes_first() {
        let mut fleet = fleet();
        fleet[0].spec.machine.class_name = "small".into();
        let newest = |type_| order(&set(&[], ScaleDownPolicy::Newest, type_), &fleet, &[]);
        assert_eq!(newest("Replace"), ["w-1", "w-2", "w-0", "w-10", "w-3", "w-4"]);
        assert_eq!(newest("InPlace"), ["w-1", "w-2", "w-10", "w-3", "w-0", "w-4"]);
    }

    #[test]
    fn every_policy_gives_one_order_whatever_the_order_of_the_list() {
        for policy in [ScaleDownPolicy::Newest, ScaleDownPolicy::Oldest, ScaleDownPolicy::Random] {
            let set = set(&[], policy, "InPlace");
            let mut fleet = fleet();
            let first = order(&set, &fleet, &[]);
            fleet.reverse();
            assert_eq!(order(&set, &fleet, &[]), first, "{policy:?}");
        }
    }
}
