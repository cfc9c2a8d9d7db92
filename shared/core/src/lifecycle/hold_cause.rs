//! What the traffic of a Server is held for: whether the panic floor of its Services may keep the Server in traffic.

use super::force;
use crate::api::{Server, State, TaskKind};

/// What the traffic of a Server is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldCause {
    /// Something is about to be done to the Server, or a person wants it: retirement, force, diagnosis, a reboot, another
    /// environment or other code. Such a Server always drains.
    Deliberate,
    /// Only probes say that the Server is sick: its machine does not answer, or its application is not healthy. The probes may be
    /// wrong about many Servers at once.
    Sick,
    /// The machine was out of reach and answers again. As far as is known it is as declared, and only has to be verified.
    Returning,
}

impl Server {
    /// What the traffic of the Server is held for, in a state in which it must not receive any.
    #[must_use]
    pub fn hold_cause(&self) -> HoldCause {
        if self.must_retire() || force::in_effect(self).is_some() || self.spec.retain.is_some() {
            return HoldCause::Deliberate;
        }
        match self.state() {
            Some(State::Unknown) if self.reboot_is_requested() => HoldCause::Deliberate,
            Some(State::Unknown) => HoldCause::Sick,
            Some(State::Initializing | State::Deploying) if self.has_to_be_changed() => HoldCause::Deliberate,
            Some(State::Deploying) if self.app_matches() => HoldCause::Sick,
            Some(State::Initializing | State::Deploying) if self.came_from_unknown() => HoldCause::Returning,
            _ => HoldCause::Deliberate,
        }
    }

    /// Whether the Server becomes Ready again without a person, as far as is known: it is reachable, and nothing has failed,
    /// waits at a gate or is forced.
    #[must_use]
    pub fn is_coming_back(&self) -> bool {
        let is_at_gate = || self.known_status().current_tasks().any(|t| t.kind == TaskKind::Gate && self.is_open(t));
        matches!(self.state(), Some(State::Initializing | State::Deploying | State::Ready))
            && !self.is_forced()
            && self.blocking_failures().is_empty()
            && !is_at_gate()
    }

    /// Whether machine, packages, registration or application are known to differ from the declaration.
    fn has_to_be_changed(&self) -> bool {
        !self.machine_runs() || !self.environment_matched() || !self.is_registered() || !self.app_matched()
    }

    /// Whether the Server was Unknown immediately before its state. Doubts that have another origin, such as drift, are
    /// repaired within the budget of the set.
    fn came_from_unknown(&self) -> bool {
        self.known_status().previous_state() == Some(State::Unknown)
    }
}
