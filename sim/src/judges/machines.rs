//! Guarantee 1: one Server never has two machines, and no machine outlives its Server.

use std::collections::BTreeSet;

use berth_core::api::Server;

use super::Scene;
use crate::{Finding, Judge, World};

/// Machines of which there is more than one for the same Server. Looked for whenever a Server changes: its machine is made
/// between two of its changes.
pub(super) fn several_for_one_server(scene: &Scene<'_>) -> Option<String> {
    if scene.plural != "servers" {
        return None;
    }
    let mut owners = scene.simulation.owners();
    owners.sort();
    let twice = owners.windows(2).find(|pair| pair[0] == pair[1])?;
    Some(format!("the Server {} has two machines", twice[0]))
}

/// Machines that have outlived their Servers.
pub(crate) fn machines_without_server(world: &World) -> Option<Finding> {
    let servers: Vec<Server> = world.api.objects("servers");
    let known: BTreeSet<&str> = servers.iter().map(Server::uid).collect();
    let lost: Vec<String> = world.simulation.owners().into_iter().filter(|uid| !known.contains(uid.as_str())).collect();
    (!lost.is_empty()).then(|| Finding::new(Judge::Machines, format!("machines without a Server: {}", lost.join(", "))))
}
