//! Which sets have a monitor that is blind: the condition `MonitorBlind`.

use std::collections::BTreeSet;

use berth_core::{
    api::{VMReplicaSet, VMReplicaSetStatus},
    conditions::{self, MONITOR_BLIND},
    second_opinion::{Question, SecondOpinion},
};
use berth_runtime::{ControllerCopy, Copies, question_of};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;

/// The copies of monitor-controller that may be blind, as their Leases say. By default there is none.
#[derive(Clone, Debug, Default)]
pub struct BlindMonitors(Option<Copies>);

impl BlindMonitors {
    /// Those among these copies.
    #[must_use]
    pub fn among(copies: &Copies) -> Self {
        Self(Some(copies.clone()))
    }

    /// Adds to a set's status what its monitors say of themselves.
    #[must_use]
    pub fn tell(&self, set: &VMReplicaSet, status: VMReplicaSetStatus, now: Timestamp) -> VMReplicaSetStatus {
        let blindness = self.0.as_ref().and_then(|copies| Blindness::of(set, &copies.others()));
        with_blindness(set, status, blindness.as_ref(), now)
    }

    /// The sets to reconcile because a monitor says something else about them.
    pub fn notifications(&self) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
        let changes = self.0.as_ref().map(Copies::changes);
        let changes = stream::unfold((changes, BTreeSet::new()), |(changes, before)| async move {
            let mut changes = changes?;
            changes.changed().await.ok()?;
            let now = affected(&changes.borrow_and_update());
            // Also those that are affected as before: the monitor may have said how.
            let sets: Vec<_> = before.union(&now).cloned().collect();
            Some((sets, (Some(changes), now)))
        });
        changes.flat_map(|sets| {
            stream::iter(sets.into_iter().map(|(namespace, name)| ObjectRef::new(&name).within(&namespace)))
        })
    }
}

/// Namespace and name of the sets with machines that a monitor has lost.
fn affected(copies: &[ControllerCopy]) -> BTreeSet<(String, String)> {
    let sets = copies.iter().filter_map(question_of).flat_map(|question| question.sets);
    sets.map(|set| (set.namespace, set.name)).collect()
}

/// What the condition says.
#[derive(Debug, PartialEq, Eq)]
struct Blindness {
    reason: &'static str,
    message: String,
}

impl Blindness {
    /// Of the first monitor that is blind for machines of this set.
    fn of(set: &VMReplicaSet, copies: &[ControllerCopy]) -> Option<Self> {
        copies.iter().find_map(|copy| Self::of_question(set, copy, &question_of(copy)?))
    }

    fn of_question(set: &VMReplicaSet, copy: &ControllerCopy, question: &Question) -> Option<Self> {
        let (reason, others) = match question.opinion {
            SecondOpinion::Agrees => return None,
            SecondOpinion::Contradicts => ("OthersReachMachines", "others reach machines that it has lost"),
            SecondOpinion::Missing => ("NoSecondOpinion", "replicaset-controller has not looked at them yet"),
        };
        let is_this = |(namespace, name): (&str, &str)| (namespace, name) == (set.namespace(), set.name());
        let affected = question.sets.iter().find(|affected| is_this((&affected.namespace, &affected.name)))?;
        let message = format!(
            "{} has lost {} of {} machines at once, since {}, and {others}: until it sees again it reports none of them as \
             unreachable or unhealthy",
            copy.holder, affected.lost, affected.targets, question.since.0
        );
        Some(Self { reason, message })
    }
}

/// The status with the condition. A set whose monitor was never blind has no such condition.
fn with_blindness(
    set: &VMReplicaSet,
    mut status: VMReplicaSetStatus,
    blindness: Option<&Blindness>,
    now: Timestamp,
) -> VMReplicaSetStatus {
    let is_known = conditions::get(&status.conditions, MONITOR_BLIND).is_some();
    let mut put = |is_true, reason: &str, message: &str| {
        let generation = set.metadata.generation;
        conditions::set(&mut status.conditions, MONITOR_BLIND, is_true, reason, message, generation, now);
    };
    match blindness {
        Some(Blindness { reason, message }) => {
            put(true, reason, message);
            status.waiting_for.get_or_insert_with(|| format!("monitor-controller to see again: {message}"));
        }
        None if is_known => put(false, "Seeing", ""),
        None => {}
    }
    status
}

#[cfg(test)]
mod tests {
    use berth_core::{
        api::Executor,
        second_opinion::{AffectedSet, QUESTION},
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    fn monitor(opinion: SecondOpinion) -> ControllerCopy {
        let affected = AffectedSet { namespace: "default".into(), name: "web".into(), targets: 4, lost: 3 };
        let question = Question {
            id: "q".into(),
            since: Time(Timestamp::UNIX_EPOCH),
            opinion,
            sample: Vec::new(),
            sets: vec![affected],
        };
        ControllerCopy {
            name: "monitor-controller-1".into(),
            executor: Executor::MonitorController,
            holder: "monitor-controller/one".into(),
            since: None,
            notes: [(QUESTION.to_owned(), serde_json::to_string(&question).unwrap())].into(),
        }
    }

    fn set(name: &str) -> VMReplicaSet {
        berth_testing::replica_set(json!({"metadata": {"name": name, "namespace": "default"}}))
    }

    fn told(name: &str, status: VMReplicaSetStatus, copies: &[ControllerCopy]) -> VMReplicaSetStatus {
        let set = set(name);
        with_blindness(&set, status, Blindness::of(&set, copies).as_ref(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_set_says_that_its_monitor_is_blind_and_later_that_it_sees() {
        let table = [(SecondOpinion::Missing, "NoSecondOpinion"), (SecondOpinion::Contradicts, "OthersReachMachines")];
        for (opinion, reason) in table {
            let blind = told("web", VMReplicaSetStatus::default(), &[monitor(opinion)]);
            let condition = conditions::get_true(&blind.conditions, MONITOR_BLIND).unwrap();
            assert_eq!(condition.reason, reason);
            assert!(condition.message.contains("monitor-controller/one has lost 3 of 4 machines"), "{condition:?}");
            assert!(blind.waiting_for.as_ref().unwrap().contains("to see again"));
            let busy = VMReplicaSetStatus { waiting_for: Some("web-0".into()), ..VMReplicaSetStatus::default() };
            assert_eq!(told("web", busy, &[monitor(opinion)]).waiting_for.as_deref(), Some("web-0"));
            let again = told("web", VMReplicaSetStatus { waiting_for: None, ..blind }, &[]);
            assert_eq!((again.conditions[0].reason.as_str(), again.waiting_for), ("Seeing", None));
        }
    }

    #[test]
    fn other_sets_and_confirmed_losses_are_no_blindness() {
        for (name, opinion) in [("other", SecondOpinion::Contradicts), ("web", SecondOpinion::Agrees)] {
            let status = told(name, VMReplicaSetStatus::default(), &[monitor(opinion)]);
            assert_eq!(status, VMReplicaSetStatus::default(), "{name}");
        }
        let mut impostor = monitor(SecondOpinion::Contradicts);
        impostor.executor = Executor::LbController;
        assert_eq!(told("web", VMReplicaSetStatus::default(), &[impostor]).conditions, []);
    }
}
