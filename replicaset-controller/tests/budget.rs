//! The disruption budget that both controllers share.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use berth_core::{
    api::{Server, UpdateStrategy},
    budget::{Axis, Budget, Entry, is_active, max_unavailable, next_to_disturb, unavailable},
};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

const NOW: i64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// A Server that has been in this state for so many seconds.
fn server(name: &str, state: &str, seconds: i64, offline: bool, observed: bool) -> Server {
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
        "metadata": {"name": name, "generation": 2},
        "spec": {"machine": {"className": "local"}, "offline": offline},
        "status": {
            "state": state, "observedGeneration": if observed { 2 } else { 1 },
            "stateSince": Timestamp::from_second(NOW - seconds).unwrap().to_string(),
        },
    }))
    .unwrap()
}

fn budget(replicas: usize, max_unavailable: usize) -> Budget {
    Budget { replicas, max_unavailable, min_ready_seconds: 10, partition: 0 }
}

fn name(server: &Server) -> &str {
    server.metadata.name.as_deref().unwrap()
}

fn names<'a>(servers: &[&'a Server]) -> Vec<&'a str> {
    servers.iter().map(|s| name(s)).collect()
}

#[test]
fn percentages_are_rounded_down_but_not_to_nothing() {
    let declared = |value: serde_json::Value| UpdateStrategy {
        max_unavailable: serde_json::from_value(value).unwrap(),
        ..UpdateStrategy::default()
    };
    for (value, replicas, expected) in [
        (json!(null), 3, 1),
        (json!(null), 9, 2),
        (json!("50%"), 5, 2),
        (json!("100%"), 5, 5),
        (json!("1%"), 5, 1),
        (json!("0%"), 5, 0),
        (json!(0), 5, 0),
        (json!(3), 2, 3),
    ] {
        assert_eq!(max_unavailable(&declared(value.clone()), replicas), expected, "{value} of {replicas}");
    }
}

#[test]
fn every_cause_counts_and_none_twice() {
    let all = [
        server("a", "Ready", 60, false, true),
        server("b", "Ready", 5, false, true),
        server("c", "Ready", 60, false, false),
        server("d", "Unknown", 60, false, true),
        server("e", "Ready", 60, true, true),
    ];
    let servers: Vec<&Server> = all.iter().collect();
    // b is too young, c not decided, d unreachable, and one of five is offline.
    assert_eq!(unavailable(&servers, &[], budget(5, 1), now()), 4);
    let ledger = ["d/app".to_owned(), "a/environment".to_owned(), "a/app".to_owned(), "gone/app".to_owned()];
    assert_eq!(unavailable(&servers, &ledger, budget(5, 1), now()), 5);
}

#[test]
fn the_unready_go_first_and_cost_nothing() {
    let all = [
        server("a", "Ready", 60, false, true),
        server("b", "Deploying", 60, false, true),
        server("c", "Ready", 60, false, true),
    ];
    let servers: Vec<&Server> = all.iter().collect();
    assert_eq!(names(&next_to_disturb(&servers, &[], budget(3, 1), now(), |_| true)), ["b"]);
    assert_eq!(names(&next_to_disturb(&servers, &[], budget(3, 2), now(), |_| true)), ["b", "a"]);
    assert_eq!(names(&next_to_disturb(&servers, &["a/app".into()], budget(3, 2), now(), |s| name(s) != "a")), ["b"]);
    let held = Budget { partition: 2, ..budget(3, 3) };
    assert_eq!(names(&next_to_disturb(&servers, &[], held, now(), |_| true)), ["b"]);
    assert!(next_to_disturb(&servers, &[], held, now(), |s| name(s) != "b").is_empty());
}

#[test]
fn a_line_of_the_ledger_is_read_as_it_was_written() {
    for axis in [Axis::Environment, Axis::App] {
        let entry = Entry::new("web-0", axis);
        assert_eq!(entry.to_string().parse(), Ok(entry));
    }
    for bad in ["web-0", "web-0/", "web-0/code", ""] {
        assert!(bad.parse::<Entry>().is_err(), "{bad:?}");
    }
}

prop_compose! {
    fn fleet()(parts in prop::collection::vec((0..4usize, 0..20i64, prop::bool::weighted(0.1), prop::bool::weighted(0.8)), 0..12))
        -> Vec<Server> {
        parts.into_iter().enumerate().map(|(n, (state, age, offline, observed))| {
            let state = ["Ready", "Ready", "Deploying", "Unknown"][state];
            server(&format!("s-{n}"), state, age, offline, observed)
        }).collect()
    }
}

proptest! {
    /// Taking what is offered never brings more Servers out than the budget, or than were out already.
    #[test]
    fn what_is_disturbed_stays_within_the_budget(
        all in fleet(), replicas in 0..12usize, max in 0..6usize, partition in 0..12usize,
        outdated in prop::collection::vec(any::<bool>(), 12), entered in prop::collection::vec(any::<bool>(), 12),
    ) {
        let servers: Vec<&Server> = all.iter().collect();
        let budget = Budget { partition, ..budget(replicas, max) };
        let mut ledger: Vec<String> =
            servers.iter().zip(&entered).filter(|(_, e)| **e).map(|(s, _)| format!("{}/app", name(s))).collect();
        let before = unavailable(&servers, &ledger, budget, now());
        let index = |s: &Server| name(s)[2..].parse::<usize>().unwrap();
        let next = next_to_disturb(&servers, &ledger, budget, now(), |s| outdated[index(s)]);
        prop_assert!(next.iter().all(|s| outdated[index(s)] && is_active(s)));
        let old = servers.iter().filter(|s| is_active(s) && outdated[index(s)]).count();
        prop_assert!(old - next.len() >= partition.min(old), "{} of {old} are taken", next.len());
        ledger.extend(next.iter().map(|s| format!("{}/environment", name(s))));
        prop_assert!(unavailable(&servers, &ledger, budget, now()) <= before.max(max));
    }
}
