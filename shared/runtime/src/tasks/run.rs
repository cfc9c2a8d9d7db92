//! How the run of a task ended, for the reconcile that began it.

use std::{sync::Arc, time::Duration};

use berth_core::api::Server;
use kube::runtime::controller::Action;

/// How the run of a task ended.
#[derive(Debug)]
pub enum TaskRun {
    /// The result was reported. This is the Server as the webhook left it: newer than the cache.
    Reported(Arc<Server>),
    /// The task does not belong to this process any more: a change of the Server will show what to do next.
    Stopped {
        /// Human-readable reason.
        message: String,
    },
    /// The task cannot begin yet.
    NotYet {
        /// When to try again.
        requeue_after: Duration,
    },
}

impl TaskRun {
    /// The action of a reconcile that has nothing else to do.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::NotYet { requeue_after } => Action::requeue(*requeue_after),
            Self::Reported(_) | Self::Stopped { .. } => Action::await_change(),
        }
    }
}
