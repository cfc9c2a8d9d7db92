//! The disruption budget that both controllers share: `Budget`, `Ledger` and `Fleet`.

use berth_core::{
    api::{Axis, LedgerEntry, Server},
    budget::Budget,
    fleet::{Fleet, Pace},
    ledger::Ledger,
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
    berth_testing::server(json!({
        "metadata": {"name": name, "generation": 2},
        "spec": {"offline": offline},
        "status": {
            "state": state, "observedGeneration": if observed { 2 } else { 1 },
            "stateSince": Timestamp::from_second(NOW - seconds).unwrap().to_string(),
        },
    }))
}

fn budget(replicas: usize, max_unavailable: usize) -> Budget {
    Budget { replicas, max_unavailable, min_ready_seconds: 10, partition: 0 }
}

fn names<'a>(servers: &[&'a Server]) -> Vec<&'a str> {
    servers.iter().map(|server| server.name()).collect()
}

fn ledger(entries: &[(&str, Axis)]) -> Ledger {
    entries.iter().map(|(server, axis)| LedgerEntry::new(*server, *axis)).collect()
}

fn fleet_of<'a>(servers: &[&'a Server], ledger: Ledger, budget: Budget) -> Fleet<'a> {
    Fleet { servers: servers.to_vec(), ledger, budget, now: now() }
}

fn unavailable(servers: &[&Server], ledger: &Ledger, budget: Budget) -> usize {
    fleet_of(servers, ledger.clone(), budget).unavailable()
}

/// The Servers that a roll-out of the environment enters now.
fn entered<'a>(
    servers: &[&'a Server],
    ledger: &Ledger,
    budget: Budget,
    outdated: impl Fn(&Server) -> bool,
) -> Vec<&'a Server> {
    let mut fleet = fleet_of(servers, ledger.clone(), budget);
    fleet.roll(Axis::Environment, servers, Pace::Unlimited, outdated)
}

#[test]
fn max_unavailable_percentages_are_rounded_down_but_to_one_at_least() {
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
        let spec = json!({"replicas": replicas, "updateStrategy": {"maxUnavailable": value}});
        let set = berth_testing::replica_set(json!({"spec": spec}));
        assert_eq!(Budget::of_set(&set).max_unavailable, expected, "{value} of {replicas}");
    }
}

#[test]
fn every_cause_of_unavailability_counts_once() {
    let all = [
        server("a", "Ready", 60, false, true),
        server("b", "Ready", 5, false, true),
        server("c", "Ready", 60, false, false),
        server("d", "Unknown", 60, false, true),
        server("e", "Ready", 60, true, true),
    ];
    let servers: Vec<&Server> = all.iter().collect();
    // b has not been Ready for long enough, c is not observed, d is unreachable, and one of five is offline.
    assert_eq!(unavailable(&servers, &Ledger::default(), budget(5, 1)), 4);
    let ledger = ledger(&[("d", Axis::App), ("a", Axis::Environment), ("a", Axis::App), ("gone", Axis::App)]);
    assert_eq!(unavailable(&servers, &ledger, budget(5, 1)), 5);
}

#[test]
fn servers_that_are_not_ready_go_first_and_cost_no_headroom() {
    let all = [
        server("a", "Ready", 60, false, true),
        server("b", "Deploying", 60, false, true),
        server("c", "Ready", 60, false, true),
    ];
    let servers: Vec<&Server> = all.iter().collect();
    let empty = Ledger::default();
    assert_eq!(names(&entered(&servers, &empty, budget(3, 1), |_| true)), ["b"]);
    assert_eq!(names(&entered(&servers, &empty, budget(3, 2), |_| true)), ["b", "a"]);
    let app = ledger(&[("a", Axis::App)]);
    assert_eq!(names(&entered(&servers, &app, budget(3, 2), |server| server.name() != "a")), ["b"]);
    let partitioned = Budget { partition: 2, ..budget(3, 3) };
    assert_eq!(names(&entered(&servers, &empty, partitioned, |_| true)), ["b"]);
    assert!(entered(&servers, &empty, partitioned, |server| server.name() != "b").is_empty());
}

#[test]
fn the_ledger_keeps_its_order_and_each_entry_once() {
    let mut ledger = ledger(&[("web-1", Axis::App), ("web-0", Axis::Drift)]);
    ledger.enter("web-1", Axis::App);
    ledger.enter("web-1", Axis::Failover);
    let json = serde_json::to_value(ledger.to_status()).unwrap();
    let entry = |server: &str, axis: &str| json!({"server": server, "axis": axis});
    assert_eq!(json, json!([entry("web-1", "App"), entry("web-0", "Drift"), entry("web-1", "Failover")]));
    let read: Vec<LedgerEntry> = serde_json::from_value(json).unwrap();
    assert_eq!(read.into_iter().collect::<Ledger>(), ledger);
    assert_eq!(ledger.on(Axis::App).collect::<Vec<_>>(), ["web-1"]);
    assert!(serde_json::from_value::<LedgerEntry>(entry("web-0", "code")).is_err());
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
    /// Updating the Servers that are offered never makes more unavailable than the budget, or than were unavailable already.
    #[test]
    fn entered_servers_stay_within_the_budget(
        all in fleet(), replicas in 0..12usize, max in 0..6usize, partition in 0..12usize,
        outdated in prop::collection::vec(any::<bool>(), 12), in_ledger in prop::collection::vec(any::<bool>(), 12),
    ) {
        let servers: Vec<&Server> = all.iter().collect();
        let budget = Budget { partition, ..budget(replicas, max) };
        let is_entered = servers.iter().zip(&in_ledger).filter(|(_, entered)| **entered);
        let mut ledger: Ledger = is_entered.map(|(server, _)| LedgerEntry::new(server.name(), Axis::App)).collect();
        let before = unavailable(&servers, &ledger, budget);
        let index = |server: &Server| server.name()[2..].parse::<usize>().unwrap();
        let next = entered(&servers, &ledger, budget, |server| outdated[index(server)]);
        prop_assert!(next.iter().all(|server| outdated[index(server)] && server.is_active()));
        let old = servers.iter().filter(|server| server.is_active() && outdated[index(server)]).count();
        prop_assert!(old - next.len() >= partition.min(old), "{} of {old} are taken", next.len());
        for server in &next {
            ledger.enter(server.name(), Axis::Environment);
        }
        prop_assert!(unavailable(&servers, &ledger, budget) <= before.max(max));
    }
}

/// What is taken out of service by entering Servers: those that serve by the facts, whatever the newest generation.
fn in_service(servers: &[&Server], ledger: &Ledger) -> usize {
    let disturbed = ledger.servers();
    servers
        .iter()
        .filter(|server| server.is_active() && server.is_in_service() && !disturbed.contains(server.name()))
        .count()
}

#[test]
fn a_bulk_retry_during_a_roll_out_does_not_bypass_the_budget() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for traffic in [None, Some("Serving")] {
        let make = |observed: bool| {
            names.map(|name| match traffic {
                None => server(name, "Ready", 100, false, observed),
                Some(phase) => {
                    let mut server = behind_a_service(name, phase);
                    server.metadata.generation = Some(if observed { 2 } else { 3 });
                    server
                }
            })
        };
        let budget = budget(names.len(), 1);
        let mut ledger = Ledger::default();
        // Four rounds: each time `spec.retry` of all Servers is patched, and the webhook has decided on it before the next.
        for round in 0..4 {
            for observed in [false, true] {
                let all = make(observed);
                let servers: Vec<&Server> = all.iter().collect();
                let mut fleet = fleet_of(&servers, ledger, budget);
                fleet.roll(Axis::App, &servers, Pace::Unlimited, |_| true);
                ledger = fleet.ledger;
                let left = in_service(&servers, &ledger);
                assert!(left >= 7, "round {round}: {left} of 8 are left in service");
            }
        }
        assert_eq!(ledger.servers().len(), 1, "the roll-out itself goes on");
    }
}

/// A Server that serves and whose application is not healthy any more.
fn kept_in_traffic(name: &str) -> Server {
    let mut server = berth_testing::Fixture::new().all_right().decided().fact(|status| status.health = None);
    server.acknowledge();
    assert!(server.server.is_sick_in_service(), "{}", server.steps());
    server.server.metadata.name = Some(name.into());
    server.server
}

/// The panic floor keeps the only Server of a Service in traffic: without an exception no new code could ever repair it.
#[test]
fn sick_servers_that_are_kept_in_traffic_are_changed_within_the_budget() {
    let all = ["a", "b", "c", "d"].map(kept_in_traffic);
    let servers: Vec<&Server> = all.iter().collect();
    let empty = Ledger::default();
    assert_eq!(names(&entered(&servers[..1], &empty, budget(1, 1), |_| true)), ["a"]);
    assert_eq!(names(&entered(&servers[..1], &empty, budget(1, 0), |_| true)), ["a"], "it is unavailable anyway");
    assert_eq!(names(&entered(&servers, &empty, budget(4, 2), |_| true)), ["a", "b"]);
    let being_changed = ledger(&[("a", Axis::App), ("b", Axis::App)]);
    assert!(entered(&servers, &being_changed, budget(4, 2), |_| true).is_empty());
    // One that serves nothing comes first, one that is out of reach for good is not waited for, and is not counted either.
    let free = server("free", "Deploying", 60, false, true);
    let with_free = [servers[0], &free];
    assert_eq!(names(&entered(&with_free, &empty, budget(2, 1), |_| true)), ["free"]);
    let lost = server("lost", "Unknown", 60, false, true);
    let with_lost = [&lost, servers[0]];
    assert_eq!(names(&entered(&with_lost, &empty, budget(2, 1), |_| true)), ["lost", "a"]);
    let lost_entered = ledger(&[("lost", Axis::App)]);
    assert_eq!(names(&entered(&with_lost, &lost_entered, budget(2, 1), |_| true)), ["lost", "a"]);
}

prop_compose! {
    /// Servers in any state, observed or not, with any fact about their traffic.
    fn fleet_with_traffic()(
        parts in prop::collection::vec((0..4usize, 0..20i64, any::<bool>(), any::<bool>(), 0..4usize), 0..12),
    ) -> Vec<Server> {
        parts.into_iter().enumerate().map(|(n, (state, age, observed, declared, phase))| {
            let state = ["Ready", "Ready", "Deploying", "Unknown"][state];
            let mut server = server(&format!("s-{n}"), state, age, false, observed);
            if declared {
                server.spec.traffic = serde_json::from_value(json!({"backends": [{"service": "web", "port": 80}]})).unwrap();
            }
            if phase > 0 {
                let phase = ["Serving", "Held", "Draining"][phase - 1];
                server.status.as_mut().unwrap().traffic = serde_json::from_value(json!({"phase": phase})).unwrap();
            }
            server
        }).collect()
    }
}

proptest! {
    /// Whatever is written to the Servers' declarations, a roll-out takes no more out of service than the budget allows.
    #[test]
    fn servers_in_service_stay_so_within_the_budget(
        all in fleet_with_traffic(), replicas in 0..12usize, max in 0..6usize,
        outdated in prop::collection::vec(any::<bool>(), 12), in_ledger in prop::collection::vec(any::<bool>(), 12),
    ) {
        let servers: Vec<&Server> = all.iter().collect();
        let is_entered = servers.iter().zip(&in_ledger).filter(|(_, entered)| **entered);
        let ledger: Ledger = is_entered.map(|(server, _)| LedgerEntry::new(server.name(), Axis::Drift)).collect();
        let before = in_service(&servers, &ledger);
        let index = |server: &Server| server.name()[2..].parse::<usize>().unwrap();
        let mut fleet = fleet_of(&servers, ledger, budget(replicas, max));
        fleet.roll(Axis::Environment, &servers, Pace::Unlimited, |server| outdated[index(server)]);
        let after = in_service(&servers, &fleet.ledger);
        prop_assert!(after >= before.min(replicas.saturating_sub(max)), "{after} of {before} are left of {replicas}, {max} may be out");
    }
}

/// The world of a roll-out: what each Server has, whether it works, and the ledger.
#[derive(Clone)]
struct World {
    version: u64,
    ledger: Ledger,
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

/// Where a controller is: it has read the set, listed its Servers, or is updating them.
#[derive(Clone, Default)]
enum Roller {
    #[default]
    Idle,
    Read(u64, Ledger),
    Listed(u64, Ledger, World),
    Updating(Vec<String>),
}

fn step(roller: &mut Roller, axis: Axis, world: &mut World, max: usize) {
    *roller = match std::mem::take(roller) {
        Roller::Idle => Roller::Read(world.version, world.ledger.clone()),
        Roller::Read(version, ledger) => Roller::Listed(version, ledger, world.clone()),
        Roller::Listed(version, ledger, mut seen) => {
            let all = seen.list();
            let servers: Vec<&Server> = all.iter().collect();
            let outdated: Vec<bool> = all.iter().map(|server| !*seen.has(server.name(), axis)).collect();
            let is_outdated = |server: &Server| outdated[server.name()[2..].parse::<usize>().unwrap()];
            let mut fleet = fleet_of(&servers, ledger.clone(), budget(all.len(), max));
            let update = fleet.roll(axis, &servers, Pace::Unlimited, is_outdated);
            let update_names = update.iter().map(|server| server.name().to_owned()).collect();
            if fleet.ledger == ledger && version == world.version {
                Roller::Updating(update_names)
            } else if version == world.version {
                (world.version, world.ledger) = (version + 1, fleet.ledger);
                Roller::Updating(update_names)
            } else {
                Roller::Idle
            }
        }
        Roller::Updating(mut names) => match names.pop() {
            Some(name) => {
                if !std::mem::replace(world.has(&name, axis), true) {
                    let index: usize = name[2..].parse().unwrap();
                    world.servers[index].2 = false;
                }
                Roller::Updating(names)
            }
            None => Roller::Idle,
        },
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Environment and code are rolled out at once, by two instances each, that crash at any moment.
    #[test]
    fn four_concurrent_roll_outs_share_one_budget_and_finish(
        size in 1..7usize, max in 1..4usize,
        events in prop::collection::vec((0..10usize, 0..4usize), 0..300),
    ) {
        let mut world = World { version: 1, ledger: Ledger::default(), servers: vec![(false, false, true); size] };
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
        prop_assert!(world.ledger == Ledger::default(), "{:?}", world.ledger);
    }
}

/// Ready for long, with a Service declared.
fn behind_a_service(name: &str, traffic: &str) -> Server {
    let mut server = server(name, "Ready", 100, false, true);
    server.spec.traffic = serde_json::from_value(json!({"backends": [{"service": "web", "port": 80}]})).unwrap();
    server.status.as_mut().unwrap().traffic = serde_json::from_value(json!({"phase": traffic})).unwrap();
    server
}

#[test]
fn a_ready_server_without_its_traffic_is_unavailable_and_costs_no_headroom() {
    let servers = [behind_a_service("a", "Serving"), behind_a_service("b", "Held"), behind_a_service("c", "Serving")];
    let servers: Vec<&Server> = servers.iter().collect();
    let budget = budget(3, 1);
    let empty = Ledger::default();
    assert_eq!(unavailable(&servers, &empty, budget), 1);
    // Behind its gate b receives no traffic anyway; the others have to stay.
    assert_eq!(names(&entered(&servers, &empty, budget, |_| true)), ["b"]);
    assert!(entered(&servers, &empty, budget, |server| server.name() != "b").is_empty());
}
