//! Guarantee 8: each fleet becomes as people have declared it. What a decision of a person keeps from that says so.

use berth_core::api::{FailoverAction, MachineClass, Server, State, VMDeployment, VMReplicaSet};

use super::orphans::unreported_orphan;
use crate::{
    World,
    findings::reached,
    people::{Fleet, is_of},
};

/// Words by which a fleet says that it waits for a person's decision.
const PERSON: [&str; 4] = ["a person", "approval", "forced", "maxUnavailable"];

/// Words by which a Server says that it stays in traffic so that enough of a Service serves.
const PANIC_FLOOR: &str = "panic floor";

/// What keeps the fleets from being as declared; none when they are.
pub(crate) fn unfinished(world: &World, fleets: &[Fleet]) -> Option<String> {
    let stuck = fleets.iter().find_map(|fleet| unfinished_fleet(world, fleet));
    stuck.or_else(|| unreported_orphan(world)).or_else(|| unused_class(world, fleets))
}

/// A class of machines that was deleted stays until no Server names it, and not longer.
fn unused_class(world: &World, fleets: &[Fleet]) -> Option<String> {
    let classes: Vec<MachineClass> = world.api.objects("machineclasses");
    let is_unused = fleets.iter().all(|fleet| !fleet.wanted.exists);
    let left = classes.iter().find(|class| class.metadata.deletion_timestamp.is_some()).filter(|_| is_unused)?;
    Some(format!("the class {} was deleted, no Server names it, and it stays", left.name()))
}

fn unfinished_fleet(world: &World, fleet: &Fleet) -> Option<String> {
    let (wanted, reached, owners) = (&fleet.wanted, reached(&world.api), world.simulation.owners());
    let active: Vec<Server> = own(world, fleet).into_iter().filter(|server| server.spec.retain.is_none()).collect();
    let replicas = if wanted.exists { declared_replicas(world, fleet) } else { 0 };
    if active.len() != replicas {
        return Some(format!("{} Servers of {} instead of {replicas}", active.len(), fleet.name));
    }
    // A kept machine may have been gone before it was kept.
    let machines = owners.iter().filter(|uid| active.iter().any(|server| server.uid() == *uid)).count();
    if machines != replicas {
        return Some(format!("{machines} machines of {} instead of {replicas}", fleet.name));
    }
    let (mut old_code, mut old_environments) = (Vec::new(), Vec::new());
    for server in &active {
        let name = server.name();
        if server.state() != Some(State::Ready) {
            return Some(format!("{name} is {:?}: {}", server.state(), waiting_for(server)));
        }
        if wanted.has_service && !reached.contains(&format!("{}/{name}", server.namespace())) {
            return Some(format!("no client reaches {name}"));
        }
        old_code.extend(outdated_code(world, fleet, server));
        old_environments.extend(outdated_environment(world, fleet, server));
    }
    // These keep what they have. Code and environment are rolled out independently of each other.
    let beyond = |old: Vec<String>| old.into_iter().nth(wanted.partition);
    beyond(old_code).or_else(|| beyond(old_environments))
}

/// The fleet's Servers that are not being removed.
fn own(world: &World, fleet: &Fleet) -> Vec<Server> {
    let mut servers: Vec<Server> = world.api.objects("servers");
    servers.retain(|server| is_of(fleet, server));
    servers
}

/// How many Servers people want. Failover may have lowered the number where it shrinks a fleet, which leaves at least one.
fn declared_replicas(world: &World, fleet: &Fleet) -> usize {
    let wanted = fleet.wanted.replicas;
    if !fleet.may_shrink {
        return wanted;
    }
    let deployments: Vec<VMDeployment> = world.api.objects("vmdeployments");
    let sets: Vec<VMReplicaSet> = world.api.objects("vmreplicasets");
    let is_own = |name: &str, namespace: Option<&str>| name == fleet.name && namespace == Some(fleet.namespace);
    let of_deployment = deployments.iter().find(|d| is_own(d.name(), d.metadata.namespace.as_deref()));
    let of_set = sets.iter().find(|s| is_own(s.name(), s.metadata.namespace.as_deref()));
    let declared = of_deployment.map(|d| d.spec.replicas).or(of_set.map(|s| s.spec.replicas));
    let declared = declared.and_then(|replicas| usize::try_from(replicas).ok()).unwrap_or(wanted);
    if (1..=wanted).contains(&declared) { declared } else { wanted }
}

/// What runs on the Server's machine instead of what is declared.
fn outdated_code(world: &World, fleet: &Fleet, server: &Server) -> Option<String> {
    let (wanted, name) = (&fleet.wanted, server.name());
    let machine = world.machines.of_server(server.uid()).state();
    let runs = machine.apps.values().next().map(|app| app.revision.clone().unwrap_or_default());
    // A set without a VMDeployment gives code to new Servers only.
    if !fleet.shape.is_plain_set && runs.as_deref() != Some(wanted.revision.as_str()) {
        return Some(format!("{name} runs {runs:?} instead of {}", wanted.revision));
    }
    let is_changed = machine.apps.values().any(|app| app.digest.is_none());
    is_changed.then(|| format!("{name} runs code that somebody has changed by hand"))
}

/// What is installed on the Server's machine, or which machine it has, instead of what is declared.
fn outdated_environment(world: &World, fleet: &Fleet, server: &Server) -> Option<String> {
    let (wanted, name) = (&fleet.wanted, server.name());
    let machine = world.machines.of_server(server.uid()).state();
    let package = machine.managed.values().find_map(|package| package.version.clone());
    if package.as_deref() != Some(wanted.package.as_str()) {
        return Some(format!("{name} has package {package:?} instead of {}", wanted.package));
    }
    let flavor = server.spec.machine.flavor.as_deref();
    let is_other = fleet.shape.replaces && flavor != Some(wanted.flavor.as_str());
    is_other.then(|| format!("{name} has flavor {flavor:?} instead of {}", wanted.flavor))
}

/// What is neither as declared nor kept from it by a person's decision that it names; none when everything is one of these.
pub(crate) fn unexplained(world: &World, fleets: &[Fleet]) -> Option<String> {
    fleets.iter().find_map(|fleet| unexplained_fleet(world, fleet))
}

fn unexplained_fleet(world: &World, fleet: &Fleet) -> Option<String> {
    let stuck = unfinished_fleet(world, fleet)?;
    let servers = own(world, fleet);
    let mut waits_for_person = waiting_of_sets(world, fleet).iter().any(|waiting| names_a_person(waiting));
    let fleet_waits = waits_for_person;
    for server in servers.iter().filter(|server| server.spec.retain.is_none()) {
        let forced = server.spec.force.as_ref().filter(|_| server.is_forced());
        if let Some(force) = forced.filter(|force| Some(force.state) != server.state() && !server.must_retire()) {
            return Some(format!("{} is forced to {} and is {:?}", server.name(), force.state, server.state()));
        }
        let waiting = waiting_for(server);
        if forced.is_some() || names_a_person(&waiting) {
            waits_for_person = true;
        } else if server.state() != Some(State::Ready) && !(fleet_waits && follows_fleet(server, &waiting)) {
            return Some(format!("{} is {:?}: {waiting}", server.name(), server.state()));
        }
    }
    // Whoever asked for that has to bring the Service back.
    let is_service_missing = !fleet.wanted.has_service;
    let is_blocked = waits_for_person || is_service_missing;
    (!is_blocked).then_some(stuck)
}

/// Whether the Server may wait because of others of its fleet that wait for a person: failover gives up none of them, and the panic
/// floor keeps this one in traffic, as long as the others serve nobody.
fn follows_fleet(server: &Server, waiting: &str) -> bool {
    server.state() == Some(State::Unknown) || waiting.contains(PANIC_FLOOR)
}

fn names_a_person(waiting: &str) -> bool {
    PERSON.iter().any(|word| waiting.contains(word))
}

fn waiting_for(server: &Server) -> String {
    server.status.as_ref().and_then(|status| status.waiting_for.clone()).unwrap_or_default()
}

/// What the set and the VMDeployment of the fleet wait for.
fn waiting_of_sets(world: &World, fleet: &Fleet) -> Vec<String> {
    let deployments: Vec<VMDeployment> = world.api.objects("vmdeployments");
    let sets: Vec<VMReplicaSet> = world.api.objects("vmreplicasets");
    let is_own = |name: &str| name == fleet.name;
    let of_sets =
        sets.iter().filter(|set| is_own(set.name())).filter_map(|set| set.status.as_ref()?.waiting_for.clone());
    let of_deployments = deployments
        .iter()
        .filter(|deployment| is_own(deployment.name()))
        .filter_map(|deployment| deployment.status.as_ref()?.waiting_for.clone());
    of_sets.chain(of_deployments).collect()
}

/// Whether a decision of a person may keep a fleet from what is declared.
pub(crate) fn is_held(world: &World, fleets: &[Fleet]) -> bool {
    fleets.iter().any(|fleet| {
        let wanted = &fleet.wanted;
        let is_decided = |server: &Server| {
            let spec = &server.spec;
            spec.force.is_some() || spec.retain.is_some() || !spec.gates.is_empty()
        };
        let is_declared = wanted.paused
            || wanted.partition > 0
            || wanted.most == Some(0)
            || !wanted.gates.is_empty()
            || wanted.code.may_hold()
            || !wanted.exists
            || !wanted.has_service
            || wanted.action != FailoverAction::Replace;
        is_declared || own(world, fleet).iter().any(is_decided)
    })
}

/// Whether a fleet says that it waits for a person.
pub(crate) fn asks_for_a_person(world: &World) -> bool {
    let sets: Vec<VMReplicaSet> = world.api.objects("vmreplicasets");
    let servers: Vec<Server> = world.api.objects("servers");
    let deployments: Vec<VMDeployment> = world.api.objects("vmdeployments");
    let of_deployments = deployments.iter().filter_map(|deployment| deployment.status.as_ref()?.waiting_for.as_deref());
    let of_sets = sets.iter().filter_map(|set| set.status.as_ref()?.waiting_for.as_deref());
    let of_servers = servers.iter().filter_map(|server| server.status.as_ref()?.waiting_for.as_deref());
    of_deployments.chain(of_sets).chain(of_servers).any(|waiting| waiting.contains("a person"))
}
