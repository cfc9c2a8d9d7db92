//! Carrying out a task that needs the Server's lock: claim, renew, work, report, release.

mod held;
mod keeper;
mod runner;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Outcome, Server, TaskKind},
    protocol::StatusWrite,
};
use kube::runtime::controller::Action;

pub use runner::TaskRunner;

/// What an attempt came to.
pub struct Done {
    /// What is true now; added to the write that reports.
    pub facts: Facts,
    /// What became of the attempt. `Retry` waits longer each time.
    pub outcome: Outcome,
    /// In words, for people.
    pub message: String,
    /// Claim the open task of this kind with the same write, if this one's end opens it.
    pub next: Option<TaskKind>,
}

/// Adds facts to a write. It may be asked more than once, because a refused or failed write is tried in another way.
pub type Facts = Box<dyn Fn(StatusWrite) -> StatusWrite + Send + Sync>;

impl Done {
    /// An attempt without facts.
    #[must_use]
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { facts: Box::new(|write| write), outcome, message: message.into(), next: None }
    }

    /// It succeeded.
    #[must_use]
    pub fn succeeded(message: impl Into<String>) -> Self {
        Self::new(Outcome::Succeeded, message)
    }

    /// It failed, and another attempt may help.
    #[must_use]
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(Outcome::Retry, message)
    }

    /// It failed, and another attempt would fail, too.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, message)
    }

    /// With these facts.
    #[must_use]
    pub fn with_facts(mut self, facts: impl Fn(StatusWrite) -> StatusWrite + Send + Sync + 'static) -> Self {
        self.facts = Box::new(facts);
        self
    }

    /// Claim the task of this kind with the same write, if this one's end opens it.
    #[must_use]
    pub fn and_claim(mut self, next: TaskKind) -> Self {
        self.next = Some(next);
        self
    }
}

/// How a run of a task ended.
#[derive(Debug)]
pub enum Ran {
    /// It was reported. This is the Server as the webhook left it: newer than the cache.
    Reported(Arc<Server>),
    /// It is not this process's any more (or never was): a change of the Server says what to do next.
    Stopped {
        /// Why.
        why: String,
    },
    /// It cannot begin yet; look again after this time.
    NotYet(Duration),
}

impl Ran {
    /// What a reconcile that has nothing else to do returns.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::NotYet(wait) => Action::requeue(*wait),
            Self::Reported(_) | Self::Stopped { .. } => Action::await_change(),
        }
    }
}
