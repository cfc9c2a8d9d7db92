//! Guarantee 1: no machine outlives its Server. Those that a restored etcd has forgotten are reported.

use std::collections::BTreeSet;

use berth_core::api::Server;
use k8s_openapi::api::core::v1::Event;

use crate::{Finding, Judge, World};

/// Machines that have outlived their Servers. The orphans of a restored etcd are none: those are reported, and stay.
pub(crate) fn machines_without_server(world: &World) -> Option<Finding> {
    let servers: Vec<Server> = world.api.objects("servers");
    let known: BTreeSet<&str> = servers.iter().map(Server::uid).collect();
    let lost: Vec<String> = world
        .simulation
        .owners()
        .into_iter()
        .filter(|uid| !known.contains(uid.as_str()) && !world.findings.is_forgotten(uid))
        .collect();
    (!lost.is_empty()).then(|| Finding::new(Judge::Machines, format!("machines without a Server: {}", lost.join(", "))))
}

/// A machine whose Server a restored etcd has forgotten, and of which no Event tells.
pub(super) fn unreported_orphan(world: &World) -> Option<String> {
    let mut orphans = world.simulation.owners().into_iter().filter(|uid| world.findings.is_forgotten(uid));
    let events: Vec<Event> = world.api.objects("events");
    let tells = |uid: &str| events.iter().filter_map(|event| event.message.as_deref()).any(|text| text.contains(uid));
    let uid = orphans.find(|uid| !tells(uid))?;
    Some(format!("the machine {uid}, whose Server a restored etcd has forgotten, is not reported"))
}

/// Whether there are machines whose Servers a restored etcd has forgotten: an Event tells of them again and again.
pub(crate) fn has_orphans(world: &World) -> bool {
    world.simulation.owners().iter().any(|uid| world.findings.is_forgotten(uid))
}
