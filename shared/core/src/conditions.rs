//! Names of conditions, and how they are read and set.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Condition of Servers, sets and deployments: everything is as declared. A Server is in state Ready.
pub const READY: &str = "Ready";
/// Condition of sets and deployments: not everything is as declared yet, and the controllers work on it or wait for something.
pub const RECONCILING: &str = "Reconciling";
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

/// How an object stands to what it declares. Tools that know nothing of its kind read it from three conditions (kstatus): Ready is
/// `Current`, Reconciling is `InProgress`, Stalled is `Failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Everything is as declared.
    Ready,
    /// Not yet, and controllers work on it or wait for something.
    Reconciling {
        /// One word in `CamelCase`.
        reason: &'a str,
        /// What it waits for, and who has to act.
        waits_for: &'a str,
    },
    /// It has failed, or nothing goes on: a person has to act.
    Stalled {
        /// One word in `CamelCase`.
        reason: &'a str,
        /// What is wrong, and what to do.
        message: &'a str,
    },
}

/// Sets the conditions `Ready`, `Reconciling` and `Stalled`, exactly one of which is True.
pub fn set_standing(conditions: &mut Vec<Condition>, standing: Standing<'_>, generation: Option<i64>, now: Timestamp) {
    let (kind, reason, message) = match standing {
        Standing::Ready => (READY, "Complete", ""),
        Standing::Reconciling { reason, waits_for } => (RECONCILING, reason, waits_for),
        Standing::Stalled { reason, message } => (STALLED, reason, message),
    };
    // Who asks only for Ready reads there why it is False.
    set(conditions, READY, kind == READY, reason, message, generation, now);
    let of_reconciling = if kind == RECONCILING { message } else { "" };
    set(conditions, RECONCILING, kind == RECONCILING, reason, of_reconciling, generation, now);
    let (reason, message) = if kind == STALLED { (reason, message) } else { ("Progressing", "") };
    set(conditions, STALLED, kind == STALLED, reason, message, generation, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_of_ready_reconciling_and_stalled_is_true_and_says_why() {
        let reconciling = Standing::Reconciling { reason: "Scaling", waits_for: "3 Servers" };
        let stalled = Standing::Stalled { reason: "AskHuman", message: "decide" };
        let mut list = Vec::new();
        for (standing, kind, reason, message) in [
            (reconciling, RECONCILING, "Scaling", "3 Servers"),
            (stalled, STALLED, "AskHuman", "decide"),
            (Standing::Ready, READY, "Complete", ""),
        ] {
            set_standing(&mut list, standing, Some(1), Timestamp::UNIX_EPOCH);
            let is_true: Vec<_> =
                list.iter().filter(|c| c.status == "True").map(|c| (&*c.type_, &*c.reason, &*c.message)).collect();
            assert_eq!(is_true, [(kind, reason, message)]);
            assert_eq!(get(&list, READY).map(|c| (&*c.reason, &*c.message)), Some((reason, message)));
        }
    }

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
