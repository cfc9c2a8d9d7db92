//! Guarantee 8: the fleet becomes as people have declared it.

use berth_core::api::{Server, State, VMReplicaSet};

use crate::{World, findings::reached};

/// What keeps the world from being as declared; none when it is.
pub(crate) fn unfinished(world: &World, wanted: &Wanted) -> Option<String> {
    let servers: Vec<Server> = world.api.objects("servers");
    let reached = reached(&world.api);
    if servers.len() != wanted.replicas {
        return Some(format!("{} Servers instead of {}", servers.len(), wanted.replicas));
    }
    let machines = world.simulation.owners().len();
    if machines != wanted.replicas {
        return Some(format!("{machines} machines instead of {}", wanted.replicas));
    }
    for server in &servers {
        let name = server.name();
        if server.state() != Some(State::Ready) {
            let waits = server.status.as_ref().and_then(|status| status.waiting_for.clone()).unwrap_or_default();
            return Some(format!("{name} is {:?}: {waits}", server.state()));
        }
        if !reached.contains(&format!("{}/{name}", server.namespace())) {
            return Some(format!("no client reaches {name}"));
        }
        let machine = world.machines.of_server(server.uid()).state();
        let runs = machine.apps.values().next().map(|app| app.revision.clone().unwrap_or_default());
        if runs.as_deref() != Some(wanted.revision.as_str()) {
            return Some(format!("{name} runs {runs:?} instead of {}", wanted.revision));
        }
        let package = machine.managed.values().find_map(|package| package.version.clone());
        if package.as_deref() != Some(wanted.package.as_str()) {
            return Some(format!("{name} has package {package:?} instead of {}", wanted.package));
        }
    }
    None
}

/// Whether the fleet says that it waits for a person.
pub(crate) fn asks_for_a_person(world: &World) -> bool {
    let sets: Vec<VMReplicaSet> = world.api.objects("vmreplicasets");
    let servers: Vec<Server> = world.api.objects("servers");
    let of_sets = sets.iter().filter_map(|set| set.status.as_ref()?.waiting_for.as_deref());
    let of_servers = servers.iter().filter_map(|server| server.status.as_ref()?.waiting_for.as_deref());
    of_sets.chain(of_servers).any(|waiting| waiting.contains("a person"))
}

/// What people have declared last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) replicas: usize,
    pub(crate) revision: String,
    pub(crate) package: String,
}
