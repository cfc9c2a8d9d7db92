//! The disruption budget that both controllers share.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use berth_core::{
    api::{Server, UpdateStrategy},
    budget::{Axis, Budget, Entry, is_active, max_unavailable, next_to_disturb, roll, unavailable},
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

/// The world of a roll-out: what each Server has, whether it works, and the ledger.
#[derive(Clone)]
struct World {
    version: u64,
    ledger: Vec<String>,
    /// Per Server: whether it has the new environment, the new code, and whether it is Ready.
    servers: Vec<(bool, bool, bool)>,
}

impl World {
    fn list(&self) -> Vec<Server> {
        let state = |ready: bool| if ready { "Ready" } else { "Deploying" };
        let make = |(n, s): (usize, &(bool, bool, bool))| server(&format!("s-{n}"), state(s.2), 100, false, true);
        self.servers.iter().enumerate().map(make).collect()
    }

    fn out(&self) -> usize {
        self.servers.iter().filter(|s| !s.2).count()
    }

    fn has(&mut self, name: &str, axis: Axis) -> &mut bool {
        let index: usize = name[2..].parse().unwrap();
        let server = &mut self.servers[index];
        if axis == Axis::App { &mut server.1 } else { &mut server.0 }
    }
}

/// Where a controller is: it has read, or it is touching Servers.
#[derive(Clone, Default)]
enum Roller {
    #[default]
    Idle,
    Read(u64, Vec<String>),
    Listed(u64, Vec<String>, World),
    Touching(Vec<String>),
}

fn step(roller: &mut Roller, axis: Axis, world: &mut World, max: usize) {
    *roller = match std::mem::take(roller) {
        Roller::Idle => Roller::Read(world.version, world.ledger.clone()),
        Roller::Read(version, ledger) => Roller::Listed(version, ledger, world.clone()),
        Roller::Listed(version, ledger, mut seen) => {
            let all = seen.list();
            let servers: Vec<&Server> = all.iter().collect();
            let outdated: Vec<bool> = all.iter().map(|s| !*seen.has(name(s), axis)).collect();
            let is_outdated = |s: &Server| outdated[name(s)[2..].parse::<usize>().unwrap()];
            let next = roll(&servers, &ledger, budget(all.len(), max), now(), axis, false, is_outdated);
            let touch = next.touch.iter().map(|s| name(s).to_owned()).collect();
            if next.ledger == ledger && version == world.version {
                Roller::Touching(touch)
            } else if version == world.version {
                (world.version, world.ledger) = (version + 1, next.ledger);
                Roller::Touching(touch)
            } else {
                Roller::Idle
            }
        }
        Roller::Touching(mut names) => match names.pop() {
            Some(name) => {
                if !std::mem::replace(world.has(&name, axis), true) {
                    let index: usize = name[2..].parse().unwrap();
                    world.servers[index].2 = false;
                }
                Roller::Touching(names)
            }
            None => Roller::Idle,
        },
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Environment and code are rolled out at once, by two instances each, that crash at any moment.
    #[test]
    fn four_roll_outs_at_once_keep_one_budget_and_arrive(
        size in 1..7usize, max in 1..4usize,
        events in prop::collection::vec((0..10usize, 0..4usize), 0..300),
    ) {
        let mut world = World { version: 1, ledger: Vec::new(), servers: vec![(false, false, true); size] };
        let mut rollers: [Roller; 4] = Default::default();
        let axis = |n: usize| if n < 2 { Axis::Environment } else { Axis::App };
        for (what, n) in events {
            match what {
                0 => rollers[n] = Roller::Idle,
                1 => if let Some(server) = world.servers.iter_mut().find(|s| !s.2) { server.2 = true },
                _ => step(&mut rollers[n], axis(n), &mut world, max),
            }
            prop_assert!(world.out() <= max, "{} of {size} are out, {max} may be", world.out());
        }
        for round in 0..2000 {
            step(&mut rollers[round % 4], axis(round % 4), &mut world, max);
            prop_assert!(world.out() <= max, "{} of {size} are out, {max} may be", world.out());
            if round % 8 == 0 && let Some(server) = world.servers.iter_mut().find(|s| !s.2) {
                server.2 = true;
            }
        }
        prop_assert!(world.servers.iter().all(|s| *s == (true, true, true)), "{:?}", world.servers);
        prop_assert!(world.ledger.is_empty(), "{:?}", world.ledger);
    }
}

/// Ready for long, with a Service declared.
fn behind_a_service(name: &str, traffic: &str) -> Server {
    let mut server = server(name, "Ready", 100, false, true);
    server.spec.traffic = serde_json::from_value(json!({"services": [{"name": "web", "port": 80}]})).unwrap();
    server.status.as_mut().unwrap().traffic = serde_json::from_value(json!({"phase": traffic})).unwrap();
    server
}

#[test]
fn a_ready_server_that_gets_no_traffic_yet_is_not_available_and_costs_nothing() {
    let servers = [behind_a_service("a", "Serving"), behind_a_service("b", "Held"), behind_a_service("c", "Serving")];
    let servers: Vec<&Server> = servers.iter().collect();
    let budget = budget(3, 1);
    assert_eq!(unavailable(&servers, &[], budget, now()), 1);
    // Behind its gate it is out of service anyhow; the others have to stay.
    assert_eq!(names(&next_to_disturb(&servers, &[], budget, now(), |_| true)), ["b"]);
    assert!(next_to_disturb(&servers, &[], budget, now(), |s| name(s) != "b").is_empty());
}
