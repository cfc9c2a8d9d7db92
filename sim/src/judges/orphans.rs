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
    let events: Vec<Event> = world.api.objects("events");
    let tells = |uid: &str| events.iter().filter_map(|event| event.message.as_deref()).any(|text| text.contains(uid));
    let uid = orphans(world).into_iter().find(|uid| !tells(uid))?;
    Some(format!("the machine {uid}, whose Server a restored etcd has forgotten, is not reported"))
}

/// Whether there are machines whose Servers a restored etcd has forgotten: an Event tells of them again and again.
pub(crate) fn has_orphans(world: &World) -> bool {
    !orphans(world).is_empty()
}

/// The machines without a Server that a restored etcd has forgotten, by the UIDs of their Servers.
fn orphans(world: &World) -> Vec<String> {
    let servers: Vec<Server> = world.api.objects("servers");
    let is_known = |uid: &str| servers.iter().any(|server| server.uid() == uid);
    let mut owners: Vec<String> = world.simulation.owners().into_iter().collect();
    owners.retain(|uid| world.findings.is_forgotten(uid) && !is_known(uid));
    owners
}
