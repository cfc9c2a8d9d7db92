use std::{net::SocketAddr, time::Duration};

use super::*;
use crate::endpoint::{Endpoint, EndpointTraffic};

const RULES: ProxyRules = ProxyRules {
    expected: Some(1),
    learn_for: Duration::from_secs(10),
    forget_after: Duration::from_mins(2),
    takes_effect: Duration::ZERO,
};

fn serving(hosts: &[u8]) -> Assignment {
    let endpoint = |host: &u8| {
        let socket = SocketAddr::from(([127, 0, 1, *host], 80));
        let name = format!("web-{host}");
        let traffic = EndpointTraffic::Serving;
        Endpoint { name, address: socket.ip(), port: 80, weight: 1, traffic, zone: String::new() }
    };
    Assignment::goal(&hosts.iter().map(endpoint).collect::<Vec<_>>())
}

/// A cluster and the only proxy that asks for it.
struct World {
    cluster: ServedCluster,
    now: Instant,
    runs: Option<AssignmentVersion>,
}

impl World {
    fn new(hosts: &[u8]) -> Self {
        let now = Instant::now();
        Self { cluster: ServedCluster::new("web", serving(hosts), now).unwrap(), now, runs: None }
    }

    fn set(&mut self, hosts: &[u8]) -> AssignmentVersion {
        self.cluster.set(serving(hosts), &RULES, self.now).unwrap();
        self.cluster.wanted().clone()
    }

    /// The proxy asks, and applies the answer. Returns whether there was one.
    fn ask(&mut self) -> bool {
        self.cluster.asked("a", self.runs.clone(), None, &RULES, self.now);
        self.cluster.lead(&RULES, self.now).unwrap();
        let Some(body) = self.cluster.answer("a", self.runs.as_ref()) else { return false };
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        self.runs = answer["version_info"].as_str().map(AssignmentVersion::of_request);
        true
    }

    fn look(&self, version: &AssignmentVersion) -> Acknowledgement {
        self.cluster.acknowledgement(version, &RULES, self.now).unwrap()
    }
}

#[test]
fn a_version_is_acknowledged_by_the_next_request() {
    let mut world = World::new(&[1]);
    let first = world.cluster.wanted().clone();
    assert!(world.ask());
    assert!(!world.look(&first).complete, "it was sent, and nothing says that it was applied");
    assert!(!world.ask());
    assert!(world.look(&first).complete);
    let second = world.set(&[1, 2]);
    assert!(!world.look(&second).complete && world.look(&first).complete);
    assert!(world.ask() && !world.ask());
    assert!(world.look(&second).complete && world.look(&first).complete, "a later version counts for an earlier one");
}

#[test]
fn a_version_without_a_host_is_acknowledged_after_the_host_has_drained() {
    let mut world = World::new(&[1, 2]);
    assert!(world.ask() && !world.ask());
    let without = world.set(&[1]);
    let look = world.look(&without);
    assert_eq!((look.complete, look.leaving), (false, vec!["web-2".to_owned()]));
    assert!(world.ask(), "with web-2 draining");
    let look = world.look(&without);
    assert!(!look.complete && look.to_string().contains("draining before they are left out: web-2"), "{look}");
    assert!(world.ask(), "it has applied that, and gets the assignment without web-2");
    assert!(!world.look(&without).complete);
    assert!(!world.ask());
    assert!(world.look(&without).complete && world.look(&without).leaving.is_empty());
}

#[test]
fn going_back_to_an_earlier_version_makes_it_the_newest() {
    let mut world = World::new(&[1]);
    let first = world.cluster.wanted().clone();
    assert!(world.ask() && !world.ask());
    let second = world.set(&[1, 2]);
    assert_eq!(world.set(&[1]), first);
    // The proxy has never heard of web-2 and gets it as draining, once: this process cannot know that.
    for _ in 0..3 {
        world.ask();
    }
    assert!(world.look(&first).complete && world.look(&second).complete);
}

#[test]
fn after_a_restart_the_same_endpoints_have_the_same_version() {
    let mut world = World::new(&[1, 2]);
    assert!(world.ask() && !world.ask());
    let runs = world.runs.clone();
    let mut world = World { runs, ..World::new(&[2, 1]) };
    assert!(!world.ask(), "nothing new is sent");
    assert!(world.look(&world.cluster.wanted().clone()).complete);
}

#[test]
fn old_versions_are_dropped_and_the_newest_is_kept() {
    let mut world = World::new(&[0]);
    let first = world.cluster.wanted().clone();
    let mut newest = first.clone();
    for round in 0..2 {
        for host in 1..=200 {
            newest = world.set(&[host, 255][..=round]);
        }
    }
    assert_eq!(world.cluster.acknowledgement(&first, &RULES, world.now), None);
    assert!(world.cluster.acknowledgement(&newest, &RULES, world.now).is_some());
    assert_eq!(world.cluster.wanted.len(), REMEMBERED_VERSIONS);
}

#[test]
fn a_rejection_is_forgotten_with_the_version_that_was_rejected() {
    let mut world = World::new(&[1]);
    let first = world.cluster.wanted().clone();
    assert!(world.ask() && !world.ask());
    let mut heavier = serving(&[1]);
    heavier.entries.values_mut().for_each(|entry| entry.weight = 77);
    world.cluster.set(heavier, &RULES, world.now).unwrap();
    let second = world.cluster.wanted().clone();
    let runs = world.runs.clone();
    for _ in 0..3 {
        world.ask();
        world.runs.clone_from(&runs);
    }
    assert!(world.look(&second).has_not[0].rejection.is_some());
    // Back to what the proxy runs: there is nothing left that it rejects.
    world.set(&[1]);
    assert!(!world.ask());
    assert_eq!(world.look(&first).has[0].rejection, None);
}

#[test]
fn a_proxy_that_was_started_again_rejects_nothing() {
    let mut world = World::new(&[1]);
    // The first answer is lost on its way.
    assert!(world.ask());
    world.runs = None;
    assert!(world.ask() && !world.ask());
    let version = world.cluster.wanted().clone();
    world.runs = None;
    assert!(world.ask());
    world.runs = None;
    assert_eq!(world.look(&version).has_not[0].rejection, None, "it has been sent the version once since it started");
}
