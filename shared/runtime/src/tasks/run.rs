//! How the run of a task ended, for the reconcile that began it.

use std::{sync::Arc, time::Duration};

use berth_core::api::Server;
use kube::runtime::controller::Action;

/// When to look again after the work was stopped. Usually a change shows what to do before. But a report may be refused because of a
/// conflict although the cache has shown all changes, and then no other follows.
const AFTER_STOP: Duration = Duration::from_secs(5);

/// How the run of a task ended.
#[derive(Debug)]
pub enum TaskRun {
    /// The result was reported. This is the Server as the webhook left it: newer than the cache.
    Reported(Arc<Server>),
    /// The task does not belong to this process any more, or its report met a conflict: what to do next is decided anew.
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
            Self::Stopped { .. } => Action::requeue(AFTER_STOP),
            Self::Reported(_) => Action::await_change(),
        }
    }
}
