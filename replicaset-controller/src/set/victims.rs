//! Which Servers go first when a set has too many.

use std::cmp::Reverse;

use berth_core::{
    api::{ScaleDown, ScaleDownPolicy, Server},
    budget, digest,
};

/// Annotation with a whole number: of Servers, the one with the lower cost goes first. Without it the cost is 0.
pub const DELETION_COST: &str = "berth.dev/deletion-cost";

/// The Servers in the order in which they go: those that are named first, then by cost, then those that are not Ready,
/// then as the policy says, and by name where all else is equal.
#[must_use]
pub fn ranked<'a>(scale_down: &ScaleDown, servers: &[&'a Server]) -> Vec<&'a Server> {
    let mut ranked = servers.to_vec();
    ranked.sort_by_cached_key(|server| {
        (
            !scale_down.servers.iter().any(|named| named == name(server)),
            cost(server),
            budget::is_ready(server),
            by_policy(scale_down.policy, server),
            name(server).to_owned(),
        )
    });
    ranked
}

fn name(server: &Server) -> &str {
    server.metadata.name.as_deref().unwrap_or_default()
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

    fn order(scale_down: &ScaleDown, servers: &[Server]) -> Vec<String> {
        ranked(scale_down, &servers.iter().collect::<Vec<_>>()).into_iter().map(|s| name(s).to_owned()).collect()
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
    fn named_then_cost_then_readiness_then_age() {
        let named = ScaleDown { servers: vec!["w-4".into(), "w-0".into()], policy: ScaleDownPolicy::Newest };
        assert_eq!(order(&named, &fleet()), ["w-0", "w-4", "w-1", "w-2", "w-10", "w-3"]);
        let oldest = ScaleDown { servers: Vec::new(), policy: ScaleDownPolicy::Oldest };
        assert_eq!(order(&oldest, &fleet()), ["w-1", "w-2", "w-0", "w-3", "w-10", "w-4"]);
    }

    #[test]
    fn every_policy_gives_one_order_whatever_the_order_of_the_list() {
        for policy in [ScaleDownPolicy::Newest, ScaleDownPolicy::Oldest, ScaleDownPolicy::Random] {
            let scale_down = ScaleDown { servers: Vec::new(), policy };
            let mut fleet = fleet();
            let first = order(&scale_down, &fleet);
            fleet.reverse();
            assert_eq!(order(&scale_down, &fleet), first, "{policy:?}");
        }
    }
}
