use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::{endpoint::InvalidEndpoints, endpoint::check};

fn endpoint(host: u8, weight: u32, traffic: EndpointTraffic) -> Endpoint {
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 1, host));
    Endpoint { name: format!("web-{host}"), address, port: 8080, weight, traffic, zone: "a".to_owned() }
}

fn serving(host: u8) -> Endpoint {
    endpoint(host, 1, EndpointTraffic::Serving)
}

fn shape(assignment: &Assignment) -> Vec<(&str, bool, bool)> {
    assignment.entries.values().map(|entry| (entry.name.as_str(), entry.draining, entry.leaving)).collect()
}

#[test]
fn held_endpoints_and_weight_0_are_left_out() {
    let held = [serving(1), endpoint(2, 1, EndpointTraffic::Held), endpoint(3, 0, EndpointTraffic::Serving)];
    assert_eq!(shape(&Assignment::goal(&held)), [("web-1", false, false)]);
    let draining = Assignment::goal(&[endpoint(4, 0, EndpointTraffic::Draining)]);
    assert_eq!(draining.entries.values().map(|entry| (entry.weight, entry.draining)).collect::<Vec<_>>(), [(1, true)]);
}

#[test]
fn a_host_drains_before_it_is_left_out() {
    let sent = Assignment::goal(&[serving(1), serving(2)]);
    let goal = Assignment::goal(&[serving(1)]);
    let first = Assignment::next(&sent, true, &goal);
    assert_eq!(shape(&first), [("web-1", false, false), ("web-2", true, true)]);
    assert_eq!(Assignment::next(&first, false, &goal), first, "until the proxies have applied it");
    assert_eq!(Assignment::next(&first, true, &goal), goal);
    assert_eq!(shape(&Assignment::next(&first, false, &sent)), [("web-1", false, false), ("web-2", false, false)]);
}

#[test]
fn a_host_that_was_drained_on_request_is_left_out_at_once() {
    let sent = Assignment::goal(&[serving(1), endpoint(2, 1, EndpointTraffic::Draining)]);
    let goal = Assignment::goal(&[serving(1)]);
    assert_eq!(Assignment::next(&sent, true, &goal), goal);
    assert_eq!(shape(&Assignment::next(&sent, false, &goal)), [("web-1", false, false), ("web-2", true, true)]);
}

#[test]
fn what_envoy_would_reject_or_ignore_is_refused_in_words() {
    let refused = |endpoints: &[Endpoint]| check("web", endpoints).unwrap_err().to_string();
    let no_port = refused(&[Endpoint { port: 0, ..serving(1) }]);
    assert_eq!(no_port, "endpoint `web-1` (127.0.1.1) has port 0: give the port on which it listens");
    let twice = refused(&[serving(1), Endpoint { name: "other".to_owned(), ..serving(1) }]);
    assert_eq!(twice, "endpoints `web-1` and `other` are both 127.0.1.1:8080: list each address and port once");
    let heavy = refused(&[endpoint(1, u32::MAX, EndpointTraffic::Serving), serving(2)]);
    assert!(heavy.contains("add up to 4294967296: at most 4000000000"), "{heavy}");
    assert_eq!(check("", &[]), Err(InvalidEndpoints::NoClusterName));
    assert_eq!(check("web", &[endpoint(1, 4_000_000_000, EndpointTraffic::Serving)]), Ok(()));
}

/// Any declaration of up to six hosts.
fn declarations() -> impl Strategy<Value = Vec<Endpoint>> {
    let traffic =
        prop_oneof![Just(EndpointTraffic::Serving), Just(EndpointTraffic::Draining), Just(EndpointTraffic::Held)];
    let hosts = proptest::collection::btree_map(1_u8..=6, (0_u32..3, traffic), 0..6);
    hosts.prop_map(|hosts| hosts.into_iter().map(|(host, (weight, traffic))| endpoint(host, weight, traffic)).collect())
}

proptest! {
    #[test]
    fn no_host_disappears_without_having_drained(steps in proptest::collection::vec((declarations(), any::<bool>()), 1..20)) {
        let mut sent = Assignment::default();
        for (desired, applied) in steps {
            let goal = Assignment::goal(&desired);
            let next = Assignment::next(&sent, applied, &goal);
            for (socket, entry) in &sent.entries {
                prop_assert!(next.entries.contains_key(socket) || (entry.draining && applied));
            }
            for (socket, entry) in &next.entries {
                prop_assert_eq!(entry.leaving, !goal.entries.contains_key(socket));
                prop_assert!(entry.weight > 0 && (entry.draining || !entry.leaving));
            }
            // Two more steps that are applied lead to the goal, and nothing moves after that.
            let settled = Assignment::next(&Assignment::next(&next, true, &goal), true, &goal);
            prop_assert_eq!(&settled, &goal);
            prop_assert_eq!(&Assignment::next(&goal, true, &goal), &goal);
            sent = next;
        }
    }
}
