//! Whether a set can have machines.

use std::time::Duration;

use berth_core::api::Server;
use futures::{FutureExt as _, future::BoxFuture};

use super::plan::{Effect, Obstacle};
use crate::iaas::{ClassProblem, Classes, Phase};

/// When to look again at a class that waits for a change: of a Secret nobody may tell.
const UNUSABLE: Duration = Duration::from_mins(1);
/// When to look again at a class whose provider does not answer.
const UNAVAILABLE: Duration = Duration::from_secs(8);

/// Why a set can have no machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMachines {
    /// Reason of a condition.
    pub reason: String,
    /// In words, with the class's name.
    pub message: String,
    /// Whether it may pass without a change of what is declared or configured.
    pub is_temporary: bool,
}

impl NoMachines {
    pub(super) fn obstacle(&self) -> Obstacle {
        let effect = if self.is_temporary { Effect::Delays } else { Effect::Stalls };
        Obstacle { effect, reason: self.reason.clone(), message: self.message.clone() }
    }

    pub(super) fn look_again(&self) -> Duration {
        if self.is_temporary { UNAVAILABLE } else { UNUSABLE }
    }
}

impl From<ClassProblem> for NoMachines {
    fn from(problem: ClassProblem) -> Self {
        Self { reason: problem.reason.to_owned(), message: problem.message, is_temporary: problem.is_temporary }
    }
}

/// What the provider says of a Server's machine that Berth cannot reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Gone,
    /// It does not run.
    Stopped,
    /// It runs, or is about to.
    Runs,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gone => "is gone",
            Self::Stopped => "is stopped",
            Self::Runs => "runs",
        })
    }
}

/// Where machines come from.
pub trait Machines: Send + Sync {
    /// Whether machines of the class can be had.
    fn usable<'a>(&'a self, class: &'a str) -> BoxFuture<'a, Result<(), NoMachines>>;
    /// What became of the Server's machine, or why the provider does not say.
    fn find<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<Found, String>>;
}

impl Machines for Classes {
    fn usable<'a>(&'a self, class: &'a str) -> BoxFuture<'a, Result<(), NoMachines>> {
        async move { Self::usable(self, class).await.map_err(NoMachines::from) }.boxed()
    }

    fn find<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<Found, String>> {
        async move {
            let class = &server.spec.machine.class_name;
            let (_, connection) = self.connection(class).await.map_err(|problem| problem.message)?;
            let uid = server.metadata.uid.as_deref().unwrap_or_default();
            match connection.provider.get(uid).await.map_err(|error| error.to_string())? {
                None => Ok(Found::Gone),
                Some(machine) if machine.phase == Phase::Stopped => Ok(Found::Stopped),
                Some(_) => Ok(Found::Runs),
            }
        }
        .boxed()
    }
}
