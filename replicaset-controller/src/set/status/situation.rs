//! What keeps a set from being complete.

use berth_core::{
    api::{Server, UpdateType, VMReplicaSet, VMReplicaSetStatus},
    budget::Budget,
    conditions::{STALLED, get_true},
};

use super::approvals;
use crate::set::plan::{Brake, Effect, Plan};

/// A reason and a message of a condition.
pub(super) struct Explanation {
    pub(super) reason: String,
    pub(super) message: String,
}

/// A set with its counts, and what keeps it from being complete.
pub(super) struct Situation<'a> {
    pub(super) set: &'a VMReplicaSet,
    pub(super) budget: Budget,
    /// The Servers that count.
    pub(super) active: &'a [&'a Server],
    /// The status with its counts, yet without conditions.
    pub(super) counts: &'a VMReplicaSetStatus,
    pub(super) stalled: Option<Explanation>,
    pub(super) held: Option<Explanation>,
    pub(super) approval: Option<String>,
    pub(super) delayed: Option<Explanation>,
    /// Servers that a roll-out of the template has something to change about.
    pub(super) outdated: usize,
    /// Servers whose machine has yet to be replaced.
    pub(super) to_replace: usize,
    /// What waits meanwhile, without keeping the set from going on.
    pub(super) noted: Option<Explanation>,
    /// Why the brake of failover holds, if it does.
    pub(super) brake: Option<Brake>,
    /// Whether it is not known yet if something keeps the set from being complete.
    pub(super) is_unsure: bool,
}

impl<'a> Situation<'a> {
    pub(super) fn new(
        set: &'a VMReplicaSet,
        servers: &[&Server],
        active: &'a [&'a Server],
        counts: &'a VMReplicaSetStatus,
        plan: &Plan<'_>,
    ) -> Self {
        Self {
            set,
            budget: Budget::of_set(set),
            active,
            counts,
            stalled: stalled(set, active, plan),
            held: first_with(plan, Effect::Held),
            approval: approvals::waiting(set, servers),
            delayed: first_with(plan, Effect::Delayed),
            outdated: active.iter().filter(|server| set.is_outdated(server)).count(),
            to_replace: plan.to_replace,
            noted: first_with(plan, Effect::Noted),
            brake: plan.failover.brake.clone(),
            is_unsure: plan.failover.awaits_answer,
        }
    }
}

fn first_with(plan: &Plan<'_>, effect: Effect) -> Option<Explanation> {
    let blocker = plan.blockers.iter().find(|blocker| blocker.effect == effect)?;
    Some(Explanation { reason: blocker.reason.to_owned(), message: blocker.message.clone() })
}

fn stalled(set: &VMReplicaSet, active: &[&Server], plan: &Plan<'_>) -> Option<Explanation> {
    first_with(plan, Effect::Stalled).or_else(|| machine_changed(set, active)).or_else(|| server_stalled(active))
}

fn machine_changed(set: &VMReplicaSet, active: &[&Server]) -> Option<Explanation> {
    if set.spec.update_strategy.type_ != UpdateType::InPlace {
        return None;
    }
    let server = active.iter().find(|server| set.machine_differs(server))?;
    let message = format!(
        "spec.template.spec.machine differs from the machine of {}, and updateStrategy.type is InPlace: set the machine \
         back, or allow Replace",
        server.name()
    );
    Some(Explanation { reason: "MachineChanged".to_owned(), message })
}

fn server_stalled(active: &[&Server]) -> Option<Explanation> {
    active.iter().find_map(|server| {
        let condition = get_true(&server.status.as_ref()?.conditions, STALLED)?;
        let message = format!("{}: {}", server.name(), condition.message);
        Some(Explanation { reason: "ServerStalled".to_owned(), message })
    })
}
