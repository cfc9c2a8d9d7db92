//! The one way to set a condition.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// The condition of this type.
#[must_use]
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// Whether the condition of this type is True.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    get(conditions, kind).is_some_and(|c| c.status == "True")
}

/// Sets a condition and says whether anything changed. `lastTransitionTime` moves only with the status, as the
/// Kubernetes API conventions ask for, so that setting the same again changes nothing.
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
    fn the_transition_time_moves_with_the_status_only() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(100).unwrap());
        let mut list = Vec::new();
        assert!(set(&mut list, "Ready", false, "A", "a", Some(1), early));
        assert!(!set(&mut list, "Ready", false, "A", "a", Some(1), late));
        assert!(set(&mut list, "Ready", false, "B", "b", Some(2), late));
        assert_eq!(get(&list, "Ready").unwrap().last_transition_time.0, early);
        assert!(set(&mut list, "Ready", true, "B", "b", Some(2), late));
        assert_eq!(get(&list, "Ready").unwrap().last_transition_time.0, late);
        assert!(is_true(&list, "Ready") && !is_true(&list, "Stalled"));
    }
}
