//! The status of a set: counts, conditions, and what it waits for.

mod approvals;
mod conditions;
mod situation;
#[cfg(test)]
mod tests;
mod waiting_for;

use berth_core::{
    api::{Server, VMReplicaSet, VMReplicaSetStatus},
    conditions::{FAILOVER_HELD, PROGRESSING, STALLED, get},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::plan::{PROVIDER_UNRESPONSIVE, Plan, TOO_MANY_FAILED};
use situation::Situation;

/// The status that the set should have. Computing it again from the same objects changes nothing.
#[must_use]
pub fn status(set: &VMReplicaSet, servers: &[&Server], plan: &Plan<'_>, now: Timestamp) -> VMReplicaSetStatus {
    let active: Vec<&Server> = servers.iter().copied().filter(|server| server.is_active()).collect();
    let count = |holds: &dyn Fn(&Server) -> bool| to_i32(active.iter().filter(|server| holds(server)).count());
    let counts = VMReplicaSetStatus {
        observed_generation: set.metadata.generation,
        replicas: to_i32(active.len()),
        ready_replicas: count(&Server::is_ready),
        available_replicas: count(&|server| server.is_available(set.spec.min_ready_seconds, now)),
        updated_replicas: count(&|server| set.is_updated(server)),
        selector: Some(set.selector_text()),
        waiting_for: None,
        creating: plan.ledgers.creating.clone(),
        disturbed: plan.ledgers.disturbed.to_status(),
        last_disturbed_at: plan.ledgers.last_disturbed_at.clone(),
        conditions: Vec::new(),
    };
    let situation = Situation::new(set, servers, &active, &counts, plan);
    let waiting_for = situation.waiting_for();
    let conditions = situation.conditions(waiting_for.as_deref(), now);
    VMReplicaSetStatus { waiting_for, conditions, ..counts }
}

/// When the status changes even if nothing happens before: a Server becomes available.
#[must_use]
pub fn next_change(set: &VMReplicaSet, servers: &[&Server], now: Timestamp) -> Option<Timestamp> {
    let ready = servers.iter().filter(|server| server.is_ready());
    ready.filter_map(|server| server.available_at(set.spec.min_ready_seconds)).filter(|at| *at > now).min()
}

/// What is published as Events, once, because the status changed from `before` to `after`: reason and note.
#[must_use]
pub fn news(before: Option<&VMReplicaSetStatus>, after: &VMReplicaSetStatus) -> Vec<(String, String)> {
    let before = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let kinds = [STALLED, FAILOVER_HELD, PROGRESSING].into_iter();
    let is_new = |kind: &str, now: &Condition| bad(before, kind).is_none_or(|was| was.reason != now.reason);
    // A further Server that is stalled changes the message and not the reason.
    let news = kinds.filter_map(|kind| bad(&after.conditions, kind).filter(|now| is_new(kind, now)));
    let mut news: Vec<_> = news.map(|condition| (condition.reason.clone(), condition.message.clone())).collect();
    // The brake of failover stalls the set, too, once the turn of the first Server has come.
    news.dedup_by(|later, earlier| later.0 == earlier.0);
    news
}

/// The condition of this type, if people should know of it.
fn bad<'c>(conditions: &'c [Condition], kind: &str) -> Option<&'c Condition> {
    get(conditions, kind).filter(|condition| match kind {
        STALLED | FAILOVER_HELD => condition.status == "True",
        _ => {
            condition.status == "False" && [TOO_MANY_FAILED, PROVIDER_UNRESPONSIVE].contains(&condition.reason.as_str())
        }
    })
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
