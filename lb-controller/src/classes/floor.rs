//! The panic floor of a backend of a class.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::{
    api::{BalancerClassSpec, Server, TrafficPhase},
    lifecycle::HoldCause,
};
use k8s_openapi::jiff::Timestamp;

use super::{
    driver::EntryKey,
    view::{View, entries_of},
};
use crate::{
    kept::Kept,
    member::{Member, ServerRef, has_panic_floor},
    panic_floor::{FloorMember, PanicThreshold, withheld},
    plan,
    subsets::Subsets,
};

/// The name of a backend in messages.
pub(super) fn title(class: &str, backend: &str) -> String {
    format!("backend {backend} of BalancerClass {class}")
}

/// The threshold of a class.
pub(super) fn threshold(spec: &BalancerClassSpec, default: PanicThreshold) -> PanicThreshold {
    spec.panic_threshold.as_ref().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The Servers of each backend of the class, by UID, without those that are being retired.
pub(super) fn members(
    class: &str,
    servers: &[Arc<Server>],
    view: &View,
    subsets: &Subsets,
    now: Timestamp,
) -> BTreeMap<String, BTreeMap<String, FloorMember>> {
    let mut backends: BTreeMap<String, BTreeMap<String, FloorMember>> = BTreeMap::new();
    for server in servers.iter().filter(|server| !server.must_retire()) {
        let Some(desired) = plan::desired(server, now, subsets.of(server)) else { continue };
        let entries = entries_of(class, &ServerRef::of(server), Some(&desired));
        for key in entries.keys().filter(|key| has_panic_floor(desired.subset_of(class, &key.backend))) {
            let member = FloorMember { serves: view.is_serving(key), is_coming_back: server.is_coming_back() };
            backends.entry(key.backend.clone()).or_default().insert(server.uid().to_owned(), member);
        }
    }
    backends
}

/// Which members of the batch lose no traffic for now, by UID.
pub(super) fn kept(
    class: &str,
    threshold: PanicThreshold,
    members: &BTreeMap<String, BTreeMap<String, FloorMember>>,
    batch: &[Member],
    view: &View,
) -> BTreeMap<String, Kept> {
    let mut kept = BTreeMap::new();
    for (backend, members) in members {
        let holds = holds(class, backend, batch, view);
        if holds.values().all(|cause| *cause == HoldCause::Deliberate) {
            continue;
        }
        for (uid, counts) in withheld(threshold, members, &holds) {
            let Some(cause) = holds.get(&uid).copied() else { continue };
            kept.insert(uid, Kept { backend: title(class, backend), counts, cause });
        }
    }
    kept
}

/// What the batch takes traffic of this backend away for, by UID.
fn holds(class: &str, backend: &str, batch: &[Member], view: &View) -> BTreeMap<String, HoldCause> {
    let serves = |server: &ServerRef| {
        let mut keys = view.processes.values().flat_map(|process| process.shown.entries_of(server));
        keys.any(|key| key.backend == backend && view.is_serving(key))
    };
    let keeps_traffic = |member: &Member| {
        let entries = entries_of(class, &member.server, member.desired.as_ref());
        let stays = |(key, entry): (&EntryKey, &super::driver::Entry)| {
            key.backend == backend && entry.phase == TrafficPhase::Serving
        };
        entries.iter().any(stays)
    };
    let taken = batch.iter().filter(|member| serves(&member.server) && !keeps_traffic(member));
    taken.map(|member| (member.server.uid.clone(), member.held_for.unwrap_or(HoldCause::Deliberate))).collect()
}
