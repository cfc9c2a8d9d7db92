//! Names of conditions, and how they are read and set.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Condition of Servers and sets: a Server is in state Ready.
pub const READY: &str = "Ready";
/// Condition of Servers, sets and deployments: nothing goes on until a person acts.
pub const STALLED: &str = "Stalled";
/// Condition of sets and deployments: as many Servers are available as the budget demands.
pub const AVAILABLE: &str = "Available";
/// Condition of sets and deployments: Servers are being created, removed, replaced or updated.
pub const PROGRESSING: &str = "Progressing";
/// Condition of sets: failover is held by the brake, because too many Servers are unreachable to reboot or replace any of them.
/// When it becomes False, Servers that are still unreachable wait for `failover.waitSeconds` again: they may be about to come
/// back like the others.
pub const FAILOVER_HELD: &str = "FailoverHeld";
/// Condition of sets: a copy of monitor-controller has lost so many machines at once that it may be blind. It reports none of
/// them as unreachable or unhealthy until replicaset-controller confirms the loss, or it sees again.
pub const MONITOR_BLIND: &str = "MonitorBlind";

/// The condition of this type.
#[must_use]
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// The condition of this type, if it is True.
#[must_use]
pub fn get_true<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    get(conditions, kind).filter(|condition| condition.status == "True")
}

/// Sets a condition and returns whether anything changed. `lastTransitionTime` changes only with the status, as the Kubernetes
/// API conventions demand, so setting the same condition again changes nothing.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let mut wanted = Condition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(existing) => {
            if existing.status == wanted.status {
                wanted.last_transition_time = existing.last_transition_time.clone();
            }
            let changed = *existing != wanted;
            *existing = wanted;
            changed
        }
        None => {
            conditions.push(wanted);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(100).unwrap());
        let mut list = Vec::new();
        assert!(set(&mut list, "Ready", false, "A", "a", Some(1), early));
        assert!(!set(&mut list, "Ready", false, "A", "a", Some(1), late));
        assert!(set(&mut list, "Ready", false, "B", "b", Some(2), late));
        assert_eq!(get(&list, "Ready").unwrap().last_transition_time.0, early);
        assert!(set(&mut list, "Ready", true, "B", "b", Some(2), late));
        assert_eq!(get(&list, "Ready").unwrap().last_transition_time.0, late);
        assert!(get_true(&list, "Ready").is_some() && get_true(&list, "Stalled").is_none());
    }
}
