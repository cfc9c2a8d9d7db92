//! Methods of a Server: its identity, its state as its set counts it, and the parts of its status.

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    api::{Lock, MachineFact, Server, ServerStatus, State, Task, VMReplicaSet},
    lifecycle::HoldCause,
    object::controlling_owner,
};

/// Identity and ownership.
impl Server {
    /// Whether both are versions of the same object, and not two objects with the same name.
    #[must_use]
    pub fn is_same_object(&self, other: &Self) -> bool {
        self.metadata.uid == other.metadata.uid
    }

    /// The VMReplicaSet that controls this Server.
    #[must_use]
    pub fn owner(&self) -> Option<&OwnerReference> {
        controlling_owner::<VMReplicaSet>(&self.metadata)
    }

    /// The annotation of this name.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

/// State, as the set counts it.
impl Server {
    /// The state; none before the first decision.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        self.status.as_ref().and_then(|status| status.state)
    }

    /// When the Server entered its state.
    #[must_use]
    pub fn state_since(&self) -> Option<Timestamp> {
        self.status.as_ref()?.state_since.as_ref().map(|time| time.0)
    }

    /// Whether its deletion was requested.
    #[must_use]
    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether it has to be retired: its deletion was requested, or it is declared offline.
    #[must_use]
    pub fn must_retire(&self) -> bool {
        self.is_being_deleted() || self.spec.offline
    }

    /// Whether the Server counts for its set: not offline, not being deleted, and not retained for diagnosis.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.must_retire() && self.spec.retain.is_none()
    }

    /// Whether the webhook has decided on the newest declaration.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.observed_generation == self.metadata.generation)
    }

    /// Whether the Server is Ready with its newest declaration.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_active() && self.is_observed() && self.state() == Some(State::Ready)
    }

    /// Whether the Server has been Ready for `min_ready_seconds` and receives the traffic that it declares: while a gate holds
    /// traffic back, the Server serves nobody.
    #[must_use]
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.is_ready()
            && self.receives_declared_traffic()
            && self.available_at(min_ready_seconds).is_none_or(|at| at <= now)
    }

    /// Whether disturbing the Server takes something away from its users, by the facts: load balancers send it traffic, or it
    /// declares none and is Ready. A newer generation that the webhook has not decided on changes nothing about that: otherwise
    /// a bulk edit would make all Servers free to disturb.
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        self.is_serving() || self.declared_traffic().is_none() && self.state() == Some(State::Ready)
    }

    /// Whether load balancers send the Server traffic although probes say that it is sick: a panic floor may keep it so. It
    /// counts as unavailable already, so that to disturb it costs none of the budget.
    #[must_use]
    pub fn is_sick_in_service(&self) -> bool {
        let is_sick = matches!(self.state(), Some(State::Initializing | State::Deploying | State::Unknown));
        is_sick && self.is_serving() && self.hold_cause() != HoldCause::Deliberate
    }

    /// When a Ready Server becomes available, if it stays Ready.
    #[must_use]
    pub fn available_at(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        self.state_since()?.checked_add(SignedDuration::from_secs(i64::from(min_ready_seconds))).ok()
    }

    /// Whether the Server is active and Unknown because of the facts, not because a person forced it.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.is_active() && self.state() == Some(State::Unknown) && !self.is_forced()
    }
}

/// Parts of its status.
impl Server {
    /// What is known of the machine.
    #[must_use]
    pub fn machine(&self) -> Option<&MachineFact> {
        self.status.as_ref()?.machine.as_ref()
    }

    /// The machine's address.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.machine()?.address.as_deref()
    }

    /// The lock, whether or not it has expired.
    #[must_use]
    pub fn lock(&self) -> Option<&Lock> {
        self.status.as_ref()?.lock.as_ref()
    }

    /// All tasks in the list, including those of earlier states.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        self.status.as_ref().map_or(&[], |status| status.tasks.as_slice())
    }

    /// The task with this id.
    #[must_use]
    pub fn task(&self, id: i64) -> Option<&Task> {
        self.tasks().iter().find(|task| task.id == id)
    }
}

/// Seconds by which the clocks of two copies of the webhook may differ. Each copy judges by its own clock whether a lock has
/// expired, but the time in the lock is from the copy that renewed it. A holder stops when it could not renew its lock for its
/// duration; another holder may take the lock only this much later. Kubernetes itself expects clocks that differ by seconds at
/// most, so a minute is ample; a longer margin would only delay the work after a crash.
pub const CLOCK_MARGIN_SECONDS: i32 = 60;

impl Lock {
    /// When another holder may take the lock, unless it is renewed: its duration after the last renewal, and the margin for
    /// clocks that differ.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        let seconds = i64::from(self.duration_seconds) + i64::from(CLOCK_MARGIN_SECONDS);
        self.renewed_at.0.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
    }

    /// The time after a renewal within which the holder renews it again, or stops.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.duration_seconds).unwrap_or(0))
    }

    /// How long ago the lock was handed over, by this clock. None when its holder cannot be sure that it still has it, and has to
    /// claim it: it was renewed, half of its time is over, or it lies in the future. Clocks may differ by [`CLOCK_MARGIN_SECONDS`].
    #[must_use]
    pub fn age_when_new(&self, now: Timestamp) -> Option<Duration> {
        let age = Duration::try_from(now.duration_since(self.renewed_at.0)).ok()?;
        (self.renewed_at == self.acquired_at && age < self.duration() / 2).then_some(age)
    }

    /// Whether the lock has expired, so that another holder may take it.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now > self.expires_at()
    }
}

impl Task {
    /// Earliest time at which the task may begin.
    #[must_use]
    pub fn earliest_begin(&self) -> Option<Timestamp> {
        self.not_before.as_ref().map(|time| time.0)
    }
}

impl ServerStatus {
    /// The tasks of the current state.
    #[must_use]
    pub fn current_tasks(&self) -> impl DoubleEndedIterator<Item = &Task> {
        let first = self.first_task_id.unwrap_or(1);
        self.tasks.iter().filter(move |task| task.id >= first)
    }
}
