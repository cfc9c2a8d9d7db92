use berth_core::{api::TrafficPhase, digest};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn app(revision: &str) -> Value {
    json!({"name": "web", "revision": revision, "command": "./run", "artifact": {"url": "http://a/b", "sha256": "a".repeat(64)}})
}

/// A Server that declares one version and runs another one, with traffic in this phase.
pub(crate) fn server(n: usize, declares: &str, runs: Option<&str>, phase: TrafficPhase) -> Arc<Server> {
    let backends = json!([{"service": "web-canary", "port": 80, "subset": "Updated"}]);
    let runs = runs.map(|revision| {
        let spec = json!({"app": app(revision), "traffic": {"backends": backends}});
        let ran = berth_testing::server(json!({"spec": spec}));
        json!({"revision": revision, "digest": ran.spec.app_digest(), "verified": true})
    });
    let owner = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "web", "uid": "s", "controller": true});
    Arc::new(berth_testing::server(json!({
        "metadata": {"name": format!("web-{n}"), "uid": format!("uid-{n}"), "ownerReferences": [owner]},
        "spec": {"app": app(declares), "traffic": {"backends": backends}},
        "status": {"state": "Ready", "app": runs, "traffic": {"phase": phase, "backends": backends, "address": "10.0.0.1"}},
    })))
}

/// A VMDeployment that rolls out v2.
pub(crate) fn deployment(weight: Option<i32>) -> VMDeployment {
    let declared = berth_testing::server(json!({"spec": {"app": app("v2")}})).spec.app.unwrap();
    let rollout = json!({"digest": digest::short(&declared), "healthyReplicas": 0, "weight": weight});
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "VMDeployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"machine": {"className": "c"}}}, "app": declared},
        "status": {"rollout": rollout},
    }))
    .unwrap()
}

/// So many Servers in traffic with the version that is rolled out, and so many with the one before.
fn fleet(updated: usize, stable: usize) -> Vec<Arc<Server>> {
    let version = |n: usize| if n < updated { "v2" } else { "v1" };
    (0..updated + stable).map(|n| server(n, version(n), Some(version(n)), TrafficPhase::Serving)).collect()
}

/// For each Server, whether it is in `Updated` and in `Stable`.
fn subsets(servers: &[Arc<Server>], weight: Option<i32>) -> Vec<(bool, bool)> {
    let deployment = deployment(weight);
    let sides = sides(servers.iter(), &deployment, |_, _| true);
    let of = |server: &Arc<Server>| belongs(server, &deployment, sides);
    servers.iter().map(of).map(|Belongs { updated, stable }| (updated, stable)).collect()
}

const BOTH: (bool, bool) = (true, true);
const UPDATED: (bool, bool) = (true, false);
const STABLE: (bool, bool) = (false, true);

#[test]
fn each_server_is_in_the_subset_of_what_it_runs() {
    assert_eq!(subsets(&fleet(1, 3), None), [UPDATED, STABLE, STABLE, STABLE]);
    assert!(Belongs { updated: true, stable: false }.to(None));
    assert!(!Belongs { updated: true, stable: false }.to(Some(Subset::Stable)));
}

#[test]
fn at_rest_and_where_a_subset_has_nobody_all_servers_are_in_both() {
    assert_eq!(subsets(&fleet(0, 2), None), [BOTH; 2], "a roll-out that has not begun");
    assert_eq!(subsets(&fleet(2, 0), None), [BOTH; 2], "one that is done");
    let canary_is_held = [server(0, "v2", Some("v2"), TrafficPhase::Held), fleet(0, 2)[1].clone()];
    assert_eq!(subsets(&canary_is_held, None), [UPDATED, BOTH], "the canary receives no traffic yet");
}

#[test]
fn few_stable_servers_are_not_left_alone_with_all_traffic_unless_a_weight_shares_it() {
    assert_eq!(subsets(&fleet(1, 2), None), [UPDATED, STABLE, STABLE], "1.5 times the even share");
    assert_eq!(subsets(&fleet(2, 2), None), [BOTH, BOTH, STABLE, STABLE], "twice the even share");
    assert_eq!(subsets(&fleet(2, 2), Some(10)), [UPDATED, UPDATED, STABLE, STABLE]);
}

#[test]
fn a_server_that_is_about_to_change_counts_for_nobody_and_stays_where_it_is() {
    let serving = TrafficPhase::Serving;
    let goes = server(0, "v2", Some("v1"), serving);
    let mut servers = fleet(0, 4);
    servers[0] = goes;
    assert_eq!(subsets(&servers, None), [BOTH; 4], "no canary is there yet");
    servers[1] = server(1, "v2", Some("v2"), serving);
    assert_eq!(subsets(&servers, None), [STABLE, UPDATED, STABLE, STABLE]);
    servers[1] = server(1, "v1", Some("v2"), serving);
    assert_eq!(subsets(&servers, None)[1], UPDATED, "it goes back, and still runs the new version");
    let last = [server(0, "v2", Some("v1"), serving), server(1, "v2", Some("v2"), serving)];
    assert_eq!(subsets(&last, Some(50)), [STABLE, BOTH], "the others are there before the last one goes");
    assert_eq!(
        subsets(&[server(0, "v2", None, TrafficPhase::Held), fleet(0, 2)[1].clone()], None)[0],
        UPDATED,
        "a new one"
    );
}

proptest! {
    #[test]
    fn no_subset_is_empty_while_a_server_receives_traffic(
        servers in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 1..12),
        weight in proptest::option::of(0..=100),
    ) {
        let version = |is_new| if is_new { "v2" } else { "v1" };
        let phase = |serves| if serves { TrafficPhase::Serving } else { TrafficPhase::Held };
        let make = |(n, (declares, runs, serves)): (usize, (bool, bool, bool))| {
            server(n, version(declares), Some(version(runs)), phase(serves))
        };
        let servers: Vec<_> = servers.into_iter().enumerate().map(make).collect();
        let found = subsets(&servers, weight);
        let in_traffic = || servers.iter().zip(&found).filter(|(server, _)| stays_in_traffic(server)).map(|(_, found)| found);
        if in_traffic().next().is_some() {
            prop_assert!(in_traffic().any(|(updated, _)| *updated), "{found:?}");
            prop_assert!(in_traffic().any(|(_, stable)| *stable), "{found:?}");
        }
    }
}
