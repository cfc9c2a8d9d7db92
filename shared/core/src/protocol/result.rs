//! The result of one attempt at a task: from the neighbour that did the work to the report in the Server's status.

use std::fmt::Display;

use crate::api::{
    AppFact, EnvironmentFact, HealthFact, MachineFact, MonitoringFact, Outcome, ReachabilityFact, TaskKind, TrafficFact,
};

/// A fact about a Server, for one field of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The machine.
    Machine(MachineFact),
    /// The installed packages.
    Environment(EnvironmentFact),
    /// The deployed application; none when nothing is deployed.
    App(Option<AppFact>),
    /// Its registration with load balancers; none when no load balancer knows it.
    Traffic(Option<TrafficFact>),
    /// Whether the machine answers.
    Reachability(ReachabilityFact),
    /// Whether the application is healthy, judged in the epoch that the fact names.
    Health(HealthFact),
    /// Its monitoring target; none when it has none.
    Monitoring(Option<MonitoringFact>),
}

/// The result of one attempt at a task: its outcome, and the facts that are known now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskResult {
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// Human-readable explanation.
    pub message: String,
    /// Facts that are known now, also after a failure.
    pub facts: Vec<Fact>,
    /// Kind of the task to claim with the report, if the report opens it: the executor continues without another write.
    pub next: Option<TaskKind>,
    /// Whether something that the attempt began on the machine may still run: then its lock must not be released.
    pub may_still_run: bool,
}

impl TaskResult {
    /// A result with this outcome, without facts.
    #[must_use]
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), facts: Vec::new(), next: None, may_still_run: false }
    }

    /// The task is done.
    #[must_use]
    pub fn succeeded(message: impl Into<String>) -> Self {
        Self::new(Outcome::Succeeded, message)
    }

    /// The attempt failed; another one may help.
    #[must_use]
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(Outcome::Retry, message)
    }

    /// Nothing was done, because the task cannot begin yet, for this reason. The attempt does not count.
    #[must_use]
    pub fn waiting(message: impl Into<String>) -> Self {
        Self::new(Outcome::Waiting, message)
    }

    /// The attempt failed, and another one would fail, too.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, message)
    }

    /// Something that the attempt began may still run on the machine.
    #[must_use]
    pub fn and_may_still_run(self) -> Self {
        Self { may_still_run: true, ..self }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, fact: Fact) -> Self {
        self.facts.push(fact);
        self
    }

    /// Also claims the task of this kind with the report.
    #[must_use]
    pub fn and_claim(self, next: TaskKind) -> Self {
        Self { next: Some(next), ..self }
    }

    /// Puts the place where it happened in front of the message.
    #[must_use]
    pub fn at(self, place: impl Display) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }
}
