//! What came of a task.

use berth_core::{
    api::{EnvironmentFact, MachineFact, Outcome, TaskKind},
    protocol::StatusWrite,
};

use crate::iaas;

/// What came of a task: its outcome in words, and what is now known to be true.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// What became of it.
    pub outcome: Outcome,
    /// In words.
    pub message: String,
    /// The machine, if anything is known of it that the Server does not say yet.
    pub machine: Option<MachineFact>,
    /// What is installed, if it was read.
    pub environment: Option<EnvironmentFact>,
    /// The task that this controller wants to do next.
    pub next: Option<TaskKind>,
    /// Whether the provider has room for machines, if it was seen.
    pub room: Option<Room>,
}

/// Whether a provider has room for another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A machine was just made or destroyed.
    Some,
    /// It said that it has none.
    None,
}

impl Finished {
    pub(super) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), machine: None, environment: None, next: None, room: None }
    }

    pub(super) fn succeeded(message: impl Into<String>) -> Self {
        Self::new(Outcome::Succeeded, message)
    }

    pub(super) fn with_machine(self, machine: MachineFact) -> Self {
        Self { machine: Some(machine), ..self }
    }

    /// Puts the facts into a write.
    #[must_use]
    pub fn facts(self, mut write: StatusWrite) -> StatusWrite {
        if let Some(machine) = self.machine {
            write = write.machine(Some(machine));
        }
        if let Some(environment) = self.environment {
            write = write.environment(environment);
        }
        write
    }
}

/// Why a task was not done.
#[derive(Debug)]
pub(super) struct Failure {
    outcome: Outcome,
    message: String,
    room: Option<Room>,
}

impl Failure {
    pub(super) fn retry(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Retry, message: message.into(), room: None }
    }

    pub(super) fn fatal(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, message: message.into(), room: None }
    }

    /// With the place where it happened in front.
    pub(super) fn at(self, place: &str) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }
}

impl From<Failure> for Finished {
    fn from(failure: Failure) -> Self {
        Self { room: failure.room, ..Self::new(failure.outcome, failure.message) }
    }
}

/// What is configured wrongly is repaired outside of the Server; trying again before that would only hide it. Credentials
/// are looked at before the next attempt: it is not begun before they are accepted.
impl From<iaas::Error> for Failure {
    fn from(error: iaas::Error) -> Self {
        match &error {
            iaas::Error::Configuration(message) => Self::fatal(message),
            iaas::Error::Quota(_) => Self { room: Some(Room::None), ..Self::retry(error.to_string()) },
            iaas::Error::Retryable(message) | iaas::Error::Credentials(message) => Self::retry(message),
        }
    }
}

impl From<berth_machine::Error> for Failure {
    fn from(error: berth_machine::Error) -> Self {
        if error.is_permanent() { Self::fatal(error.to_string()) } else { Self::retry(error.to_string()) }
    }
}
