//! Which endpoints Envoy is told, and how it is led from one list to the next. Pure.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::endpoint::{Endpoint, EndpointTraffic};

/// The weight of a host that gets no new requests. It has no effect, but Envoy rejects an update with a weight of 0.
const DRAINING_WEIGHT: u32 = 1;

/// What Envoy is told of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Names it in messages.
    pub(crate) name: String,
    /// At least 1, because Envoy rejects 0.
    pub(crate) weight: u32,
    /// No new requests.
    pub(crate) draining: bool,
    /// It is no longer wanted, and is shown as draining until all proxies know that.
    pub(crate) leaving: bool,
    /// Where it is.
    pub(crate) zone: String,
}

/// What Envoy is told of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Sorted, so that the order of a declaration makes no difference.
    pub(crate) entries: BTreeMap<SocketAddr, Entry>,
}

impl Assignment {
    /// What Envoy should know in the end: the endpoints that have traffic, and those that drain.
    pub(crate) fn goal(desired: &[Endpoint]) -> Self {
        let entry = |endpoint: &Endpoint, draining| Entry {
            name: endpoint.name.clone(),
            weight: if draining { DRAINING_WEIGHT } else { endpoint.weight },
            draining,
            leaving: false,
            zone: endpoint.zone.clone(),
        };
        let entries = desired.iter().filter_map(|endpoint| match endpoint.traffic() {
            EndpointTraffic::Serving => Some((endpoint.socket(), entry(endpoint, false))),
            EndpointTraffic::Draining => Some((endpoint.socket(), entry(endpoint, true))),
            EndpointTraffic::Held => None,
        });
        Self { entries: entries.collect() }
    }

    /// What to send next on the way from `sent` to `goal`. A host that is in `sent` and not in `goal` is sent as draining first,
    /// and is left out when all proxies have applied that (`applied`): Envoy does not remove a host with active health checks
    /// while they succeed, and goes on to send it requests.
    pub(crate) fn next(sent: &Self, applied: bool, goal: &Self) -> Self {
        let mut next = goal.clone();
        for (socket, entry) in &sent.entries {
            if !(entry.draining && applied) {
                let leaving = || Entry { weight: DRAINING_WEIGHT, draining: true, leaving: true, ..entry.clone() };
                next.entries.entry(*socket).or_insert_with(leaving);
            }
        }
        next
    }

    /// The names of the hosts that are no longer wanted, and that Envoy is still told of.
    pub(crate) fn leaving(&self) -> Vec<String> {
        self.entries.values().filter(|entry| entry.leaving).map(|entry| entry.name.clone()).collect()
    }
}

#[cfg(test)]
#[path = "assignment_tests.rs"]
mod tests;
