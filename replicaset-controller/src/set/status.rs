//! What a set's status says.

use berth_core::{
    api::{Server, UpdateType, VMReplicaSet, VMReplicaSetStatus},
    budget::{self, Budget, name},
    conditions,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{
    approvals, environment, failover, members,
    plan::{Effect, Plan},
    roll::TOO_MANY_FAILED,
};

/// Condition: as many Servers are available as the budget demands.
pub const AVAILABLE: &str = "Available";
/// Condition: Servers are being created, retired or changed.
pub const PROGRESSING: &str = "Progressing";
/// Condition: a person is needed.
pub const STALLED: &str = "Stalled";

/// The set's status as it is to be. Computing it again from the same changes nothing.
#[must_use]
pub fn status(set: &VMReplicaSet, servers: &[&Server], plan: &Plan<'_>, now: Timestamp) -> VMReplicaSetStatus {
    let active: Vec<&Server> = servers.iter().copied().filter(|s| budget::is_active(s)).collect();
    let min_ready = set.spec.min_ready_seconds;
    let count = |holds: &dyn Fn(&Server) -> bool| to_i32(active.iter().filter(|s| holds(s)).count());
    let ledgers = plan.ledgers.clone();
    let mut status = VMReplicaSetStatus {
        observed_generation: set.metadata.generation,
        replicas: to_i32(active.len()),
        ready_replicas: count(&|s| budget::is_ready(s)),
        available_replicas: count(&|s| budget::is_available(s, min_ready, now)),
        updated_replicas: count(&|s| environment::is_updated(set, s)),
        selector: Some(members::selector(set)),
        waiting_for: None,
        creating: ledgers.creating,
        disturbed: ledgers.disturbed,
        last_disturbed_at: ledgers.last_disturbed_at,
        conditions: set.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default(),
    };
    let about = About {
        stalled: stalled(set, &active, plan),
        held: with_effect(plan, Effect::Holds),
        approval: approvals::waiting(set, servers),
        delayed: with_effect(plan, Effect::Delays),
        to_change: active.iter().filter(|s| environment::is_to_change(set, s)).count(),
        to_replace: plan.to_replace,
        brake: plan.failover.brake.clone(),
    };
    status.waiting_for = waiting_for(set, &status, &active, &about);
    set_conditions(set, &mut status, &about, now);
    status
}

/// When the status changes although nothing happens: a Server becomes available.
#[must_use]
pub fn next_change(set: &VMReplicaSet, servers: &[&Server], now: Timestamp) -> Option<Timestamp> {
    let waiting = servers.iter().filter(|s| budget::is_ready(s));
    waiting.filter_map(|s| budget::available_at(s, set.spec.min_ready_seconds)).filter(|at| *at > now).min()
}

/// What people are to be told because the status turned from `before` into `after`, once: reason and note.
#[must_use]
pub fn news(before: Option<&VMReplicaSetStatus>, after: &VMReplicaSetStatus) -> Vec<(String, String)> {
    let told = |conditions: &[Condition], kind: &str| {
        let condition = conditions::get(conditions, kind)?;
        let is_bad = match kind {
            STALLED => condition.status == "True",
            _ => condition.status == "False" && condition.reason == TOO_MANY_FAILED,
        };
        is_bad.then(|| (condition.reason.clone(), condition.message.clone()))
    };
    let before = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let kinds = [STALLED, PROGRESSING].into_iter();
    kinds
        .filter_map(|kind| {
            let is = told(&after.conditions, kind)?;
            // Another Server that is stalled, too, changes the message and not the reason.
            (told(before, kind).map(|was| was.0) != Some(is.0.clone())).then_some(is)
        })
        .collect()
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A reason and a message.
struct Said {
    reason: String,
    message: String,
}

/// What stands in a set's way.
struct About {
    stalled: Option<Said>,
    held: Option<Said>,
    approval: Option<String>,
    delayed: Option<Said>,
    /// Servers that a roll-out has something to change about.
    to_change: usize,
    to_replace: usize,
    /// Why failover does nothing, if too many Servers cannot be reached.
    brake: Option<String>,
}

fn with_effect(plan: &Plan<'_>, effect: Effect) -> Option<Said> {
    let obstacle = plan.obstacles.iter().find(|o| o.effect == effect)?;
    Some(Said { reason: obstacle.reason.clone(), message: obstacle.message.clone() })
}

fn stalled(set: &VMReplicaSet, active: &[&Server], plan: &Plan<'_>) -> Option<Said> {
    if let Some(said) = with_effect(plan, Effect::Stalls) {
        return Some(said);
    }
    if set.spec.update_strategy.type_ == UpdateType::InPlace
        && let Some(server) = active.iter().find(|s| environment::has_other_machine(set, s))
    {
        let message = format!(
            "spec.template.spec.machine differs from the machine of {}, and updateStrategy.type is InPlace: set the machine back, \
             or allow Replace",
            name(server)
        );
        return Some(Said { reason: "MachineChanged".to_owned(), message });
    }
    active.iter().find_map(|server| {
        let condition = conditions::get(&server.status.as_ref()?.conditions, STALLED)?;
        let message = || format!("{}: {}", name(server), condition.message);
        (condition.status == "True").then(|| Said { reason: "ServerStalled".to_owned(), message: message() })
    })
}

fn waiting_for(set: &VMReplicaSet, status: &VMReplicaSetStatus, active: &[&Server], about: &About) -> Option<String> {
    if let Some(said) = about.held.as_ref().or(about.stalled.as_ref()) {
        return Some(format!("a person: {}", said.message));
    }
    if let Some(approval) = &about.approval {
        return Some(format!("a person: {approval}"));
    }
    if let Some(delayed) = &about.delayed {
        return Some(delayed.message.clone());
    }
    let replicas = set.spec.replicas;
    if status.replicas < replicas || status.replicas > replicas && about.to_replace == 0 {
        return Some(format!("{} Servers, there are {}", replicas, status.replicas));
    }
    if status.updated_replicas < status.replicas && set.spec.paused {
        return Some("a person: the roll-out of the template is paused".to_owned());
    }
    if let Some(server) = active.iter().find(|s| !budget::is_ready(s)) {
        let detail = server.status.as_ref().and_then(|s| s.waiting_for.as_deref()).unwrap_or("its first decision");
        let others = status.replicas - status.ready_replicas - 1;
        let more = if others > 0 { format!(" (and {others} more Servers)") } else { String::new() };
        return Some(format!("{} to be Ready: it waits for {detail}{more}", name(server)));
    }
    if status.available_replicas < status.replicas {
        return Some("Servers to be Ready for long enough, and to get their traffic".to_owned());
    }
    (about.to_replace > 0).then(|| format!("{} machines to be replaced", about.to_replace))
}

fn set_conditions(set: &VMReplicaSet, status: &mut VMReplicaSetStatus, about: &About, now: Timestamp) {
    let spec = &set.spec;
    let generation = set.metadata.generation;
    let budget = Budget::of(set);
    let available = usize::try_from(status.available_replicas).unwrap_or(0);
    let enough = available + budget.max_unavailable >= budget.replicas;
    let reason = if enough { "EnoughAvailable" } else { "TooFewAvailable" };
    let message = format!("{available} of {} Servers are available", spec.replicas);
    conditions::set(&mut status.conditions, AVAILABLE, enough, reason, &message, generation, now);

    let (progressing, reason, message) = progress(set, status, about);
    conditions::set(&mut status.conditions, PROGRESSING, progressing, &reason, &message, generation, now);

    let (is_stalled, reason, message) = match &about.stalled {
        Some(said) => (true, said.reason.as_str(), said.message.as_str()),
        None => (false, "Progressing", ""),
    };
    conditions::set(&mut status.conditions, STALLED, is_stalled, reason, message, generation, now);

    let (is_held, reason, message) = match &about.brake {
        Some(message) => (true, failover::TOO_MANY_UNKNOWN, message.as_str()),
        None => (false, "FewEnoughUnknown", ""),
    };
    // A set that was never in need of it has no such condition.
    if is_held || conditions::get(&status.conditions, failover::HELD).is_some() {
        conditions::set(&mut status.conditions, failover::HELD, is_held, reason, message, generation, now);
    }
}

fn progress(set: &VMReplicaSet, status: &VMReplicaSetStatus, about: &About) -> (bool, String, String) {
    let spec = &set.spec;
    let partition = usize::try_from(spec.update_strategy.partition).unwrap_or(0);
    if let Some(held) = about.held.as_ref().or(about.delayed.as_ref()) {
        return (false, held.reason.clone(), held.message.clone());
    }
    if let Some(approval) = &about.approval {
        return (false, "WaitingForApproval".to_owned(), approval.clone());
    }
    let (progressing, reason) = if about.to_replace > 0 && !spec.paused {
        (true, "Replacing")
    } else if status.replicas != spec.replicas {
        (true, "Scaling")
    } else if about.to_change > partition && !spec.paused {
        (true, "RollingOut")
    } else if status.ready_replicas < status.replicas {
        (true, "BecomingReady")
    } else {
        (false, "Complete")
    };
    (progressing, reason.to_owned(), String::new())
}
