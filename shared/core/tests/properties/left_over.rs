//! Servers that are still in the ledger, serve again, and have to be changed once more.

use berth_core::{
    api::{Axis, LedgerEntry, Server},
    budget::Budget,
    fleet::{Fleet, Pace},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

fn server(name: &str, state: &str) -> Server {
    let status = json!({"state": state, "observedGeneration": 1, "stateSince": "2026-01-01T00:00:00Z"});
    berth_testing::server(json!({"metadata": {"name": name, "generation": 1}, "status": status}))
}

/// The Servers that a roll-out of code changes now, when all are outdated and these are in the ledger.
fn changed(servers: &[Server], entries: &[LedgerEntry], max_unavailable: usize) -> Vec<String> {
    let servers: Vec<&Server> = servers.iter().collect();
    let budget = Budget { replicas: servers.len(), max_unavailable, min_ready_seconds: 0, partition: 0 };
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let mut fleet = Fleet { servers: servers.clone(), ledger: entries.iter().cloned().collect(), budget, now };
    fleet.roll(Axis::App, &servers, Pace::Unlimited, |_| true).iter().map(|server| server.name().to_owned()).collect()
}

fn app(server: &str) -> LedgerEntry {
    LedgerEntry::new(server, Axis::App)
}

/// They were entered while they served nothing, which costs nothing. A newer declaration finds them in service.
#[test]
fn servers_that_serve_again_before_a_newer_declaration_are_changed_within_the_budget() {
    let all = ["a", "b", "c", "d"].map(|name| server(name, "Ready"));
    assert_eq!(changed(&all, &[app("d"), app("b"), app("a")], 1), ["d"]);
    assert_eq!(changed(&all, &[app("d"), app("b"), app("a")], 2), ["d", "b"]);
    assert!(changed(&all, &[app("d"), app("b")], 0).is_empty());
    // What serves nothing costs nothing, also now.
    let [a, b, c, _] = all;
    let one_is_down = [a, b, c, server("d", "Deploying")];
    assert_eq!(changed(&one_is_down, &[app("d"), app("b"), app("a")], 1), ["d"]);
    assert_eq!(changed(&one_is_down, &[app("b"), app("d"), app("a")], 2), ["b", "d"]);
    // The other controller's Server comes first if it was entered first, so that the two never wait for each other.
    let other = LedgerEntry::new("c", Axis::Environment);
    assert!(changed(&one_is_down[..3], &[other.clone(), app("b")], 1).is_empty());
    assert_eq!(changed(&one_is_down[..3], &[app("b"), other], 1), ["b"]);
}

/// Their `minReadySeconds` are not over, or the clock of the controller is behind.
#[test]
fn servers_that_serve_and_are_not_available_yet_stay_in_service() {
    let all = ["a", "b", "c", "d"].map(|name| server(name, "Ready"));
    let servers: Vec<&Server> = all.iter().collect();
    let budget = Budget { replicas: 4, max_unavailable: 1, min_ready_seconds: 60, partition: 0 };
    let roll = |seconds| {
        let now = all[0].status.as_ref().unwrap().state_since.as_ref().unwrap().0 + SignedDuration::from_secs(seconds);
        let ledger = [app("d"), app("b"), app("a")].into_iter().collect();
        let mut fleet = Fleet { servers: servers.clone(), ledger, budget, now };
        fleet.roll(Axis::App, &servers, Pace::Unlimited, |_| true).iter().map(|s| s.name()).collect::<Vec<_>>()
    };
    assert!(roll(-30).is_empty(), "{:?}", roll(-30));
    assert!(roll(30).is_empty(), "{:?}", roll(30));
    assert_eq!(roll(90), ["d"]);
}

proptest! {
    /// Whatever is in the ledger, no more Servers in service are changed than may be unavailable.
    #[test]
    fn what_is_changed_at_once_stays_within_the_budget(
        ready in prop::collection::vec(any::<bool>(), 1..8), entered in prop::collection::vec(0..8usize, 0..8), max in 0..4usize,
    ) {
        let all: Vec<Server> = ready
            .iter()
            .enumerate()
            .map(|(n, ready)| server(&format!("s-{n}"), if *ready { "Ready" } else { "Deploying" }))
            .collect();
        let entries: Vec<LedgerEntry> = entered.iter().map(|n| app(&format!("s-{n}"))).collect();
        let down = ready.iter().filter(|ready| !**ready).count();
        let changed = changed(&all, &entries, max);
        let taken = changed.iter().filter(|name| ready[name[2..].parse::<usize>().unwrap()]).count();
        prop_assert!(taken <= max.saturating_sub(down), "{changed:?} of {ready:?}");
    }
}
