//! What a set's status says.

use berth_core::{
    api::{Server, VMReplicaSet, VMReplicaSetStatus},
    budget::{self, Budget},
    conditions,
};
use k8s_openapi::jiff::Timestamp;

use super::{environment, members};

/// Condition: as many Servers are available as the budget demands.
pub const AVAILABLE: &str = "Available";
/// Condition: Servers are being created, retired or changed.
pub const PROGRESSING: &str = "Progressing";
/// Condition: a person is needed.
pub const STALLED: &str = "Stalled";

/// Names that are being created and Servers that are being disturbed, as they are to stand in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledgers {
    /// `status.creating`.
    pub creating: Vec<String>,
    /// `status.disturbed`.
    pub disturbed: Vec<String>,
}

/// The set's status as it is to be. Computing it again from the same changes nothing.
#[must_use]
pub fn status(set: &VMReplicaSet, servers: &[&Server], ledgers: Ledgers, now: Timestamp) -> VMReplicaSetStatus {
    let active: Vec<&Server> = servers.iter().copied().filter(|s| budget::is_active(s)).collect();
    let min_ready = set.spec.min_ready_seconds;
    let count = |holds: &dyn Fn(&Server) -> bool| to_i32(active.iter().filter(|s| holds(s)).count());
    let mut status = VMReplicaSetStatus {
        observed_generation: set.metadata.generation,
        replicas: to_i32(active.len()),
        ready_replicas: count(&|s| budget::is_ready(s)),
        available_replicas: count(&|s| budget::is_available(s, min_ready, now)),
        updated_replicas: count(&|s| !environment::is_outdated(set, s)),
        selector: Some(members::selector(set)),
        waiting_for: None,
        creating: ledgers.creating,
        last_disturbed_at: set.status.as_ref().and_then(|s| s.last_disturbed_at.clone()),
        disturbed: ledgers.disturbed,
        conditions: set.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default(),
    };
    let stalled = stalled(set, &active);
    status.waiting_for = waiting_for(set, &status, &active, stalled.as_ref());
    set_conditions(set, &mut status, stalled, now);
    status
}

/// When the status changes although nothing happens: a Server becomes available.
#[must_use]
pub fn next_change(set: &VMReplicaSet, servers: &[&Server], now: Timestamp) -> Option<Timestamp> {
    let waiting = servers.iter().filter(|s| budget::is_ready(s));
    waiting.filter_map(|s| budget::available_at(s, set.spec.min_ready_seconds)).filter(|at| *at > now).min()
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn name(server: &Server) -> &str {
    server.metadata.name.as_deref().unwrap_or_default()
}

struct Stall {
    reason: &'static str,
    message: String,
}

fn stalled(set: &VMReplicaSet, active: &[&Server]) -> Option<Stall> {
    let other = active.iter().find(|s| environment::has_other_machine(set, s));
    if let Some(server) = other {
        let message = format!(
            "spec.template.spec.machine differs from the machine of {}: machines are not replaced; set it back, or retire the Servers one by one",
            name(server)
        );
        return Some(Stall { reason: "MachineChanged", message });
    }
    active.iter().find_map(|server| {
        let condition = conditions::get(&server.status.as_ref()?.conditions, STALLED)?;
        let message = || format!("{}: {}", name(server), condition.message);
        (condition.status == "True").then(|| Stall { reason: "ServerStalled", message: message() })
    })
}

fn waiting_for(
    set: &VMReplicaSet,
    status: &VMReplicaSetStatus,
    active: &[&Server],
    stalled: Option<&Stall>,
) -> Option<String> {
    if let Some(stall) = stalled {
        return Some(format!("a person: {}", stall.message));
    }
    let replicas = set.spec.replicas;
    if status.replicas != replicas {
        return Some(format!("{} Servers, there are {}", replicas, status.replicas));
    }
    if status.updated_replicas < status.replicas && set.spec.paused {
        return Some("a person: the roll-out of the template is paused".to_owned());
    }
    if let Some(server) = active.iter().find(|s| !budget::is_ready(s)) {
        let detail = server.status.as_ref().and_then(|s| s.waiting_for.as_deref()).unwrap_or("its first decision");
        let others = replicas - status.ready_replicas - 1;
        let more = if others > 0 { format!(" (and {others} more Servers)") } else { String::new() };
        return Some(format!("{} to be Ready: it waits for {detail}{more}", name(server)));
    }
    if status.available_replicas < replicas {
        return Some("Servers to be Ready for long enough".to_owned());
    }
    None
}

fn set_conditions(set: &VMReplicaSet, status: &mut VMReplicaSetStatus, stalled: Option<Stall>, now: Timestamp) {
    let spec = &set.spec;
    let generation = set.metadata.generation;
    let budget = Budget::of(set);
    let available = usize::try_from(status.available_replicas).unwrap_or(0);
    let enough = available + budget.max_unavailable >= budget.replicas;
    let reason = if enough { "EnoughAvailable" } else { "TooFewAvailable" };
    let message = format!("{available} of {} Servers are available", spec.replicas);
    conditions::set(&mut status.conditions, AVAILABLE, enough, reason, &message, generation, now);

    let to_update = status.replicas - status.updated_replicas > spec.update_strategy.partition && !spec.paused;
    let (progressing, reason) = if status.replicas != spec.replicas {
        (true, "Scaling")
    } else if to_update {
        (true, "RollingOut")
    } else if status.ready_replicas < status.replicas {
        (true, "BecomingReady")
    } else {
        (false, "Complete")
    };
    conditions::set(&mut status.conditions, PROGRESSING, progressing, reason, "", generation, now);

    let (is_stalled, reason, message) = match stalled {
        Some(stall) => (true, stall.reason, stall.message),
        None => (false, "Progressing", String::new()),
    };
    conditions::set(&mut status.conditions, STALLED, is_stalled, reason, &message, generation, now);
}
