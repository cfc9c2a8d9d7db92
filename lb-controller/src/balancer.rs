//! The interface that every load balancer implements.

use std::sync::Arc;

use berth_core::api::Server;
use berth_runtime::{Context, ReadinessFlag};
use futures::{channel::mpsc::UnboundedSender, future::BoxFuture};
use tokio::sync::oneshot;

use crate::{
    kept::Kept,
    member::{Member, ServerRef},
};

/// Why a load balancer does not show what it should.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BalancerError {
    /// The decision was made on an older version of the Server than the one that the load balancer shows.
    #[error("a newer version of the Server was acted on already")]
    Superseded,
    /// The panic floor keeps the Server in traffic for now.
    #[error("{0}")]
    Kept(Kept),
    /// The change has to wait for somebody: for an administrator, or for a load balancer that does not answer. It is tried again
    /// until then, and does not count as an attempt.
    #[error("{0}")]
    Blocked(String),
    /// The load balancer refuses the change, and would refuse it again.
    #[error("cannot {action}: refused: {reason}")]
    Refused {
        /// What was being done, with the object: an infinitive.
        action: String,
        /// The load balancer's answer.
        reason: String,
    },
    /// Nothing can be created any more, because the namespace is being deleted.
    #[error("cannot {action}: {reason}")]
    NamespaceEnding {
        /// What was being done, with the object: an infinitive.
        action: String,
        /// The load balancer's answer.
        reason: String,
    },
    /// The change could not be made now; another attempt may help.
    #[error("cannot {action}: {reason}")]
    Unavailable {
        /// What was being done, with the object: an infinitive.
        action: String,
        /// What went wrong.
        reason: String,
    },
}

impl BalancerError {
    /// Of several errors, the one with the lowest rank decides what happens next: a superseded decision no longer counts, and
    /// what the panic floor says matters only when everything else is done.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::Superseded => 0,
            Self::Refused { .. } | Self::NamespaceEnding { .. } | Self::Unavailable { .. } => 1,
            Self::Blocked(_) => 2,
            Self::Kept(_) => 3,
        }
    }
}

/// Something about a Server's registration that a person has to repair. It becomes an Event of the Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason of the Event, such as `ServiceMissing`.
    pub reason: &'static str,
    /// What is wrong, where, and what to do.
    pub message: String,
}

/// Tells the controller what a load balancer sees while it runs.
pub struct Observer {
    ready: ReadinessFlag,
    synced: Option<oneshot::Sender<()>>,
    changes: UnboundedSender<ServerRef>,
}

impl Observer {
    /// An observer that sets `ready` and `synced` once, and sends every change to `changes`.
    #[must_use]
    pub(crate) fn new(ready: ReadinessFlag, synced: oneshot::Sender<()>, changes: UnboundedSender<ServerRef>) -> Self {
        Self { ready, synced: Some(synced), changes }
    }

    /// All entries of the load balancer have been read: from now on [`LoadBalancer::shows`] tells the truth. May be called
    /// more than once.
    pub fn synced(&mut self) {
        self.ready.set(true);
        if let Some(synced) = self.synced.take() {
            // The controller stops listening only at shutdown.
            let _ = synced.send(());
        }
    }

    /// The entries of this Server are not as this process knew them: somebody else has changed them. The Server is reconciled,
    /// and if it no longer exists, its entries are removed.
    pub fn changed(&self, server: ServerRef) {
        // The controller stops listening only at shutdown.
        let _ = self.changes.unbounded_send(server);
    }
}

/// Which copies of lb-controller may act on a Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Responsible {
    /// Any.
    Any,
    /// This one alone.
    This,
    /// Another one alone.
    Another,
}

/// A load balancer. Everything it does is idempotent, and safe while other copies of this program do the same.
pub trait LoadBalancer: Send + Sync + 'static {
    /// The name for logs, errors and readiness, such as `endpointslices`.
    fn name(&self) -> &'static str;

    /// Follows the load balancer's entries until shutdown. It must call [`Observer::synced`] when it has read all of them, and
    /// [`Observer::changed`] for every Server whose entries somebody else has changed.
    fn run(self: Arc<Self>, ctx: Context, observer: Observer) -> BoxFuture<'static, ()>;

    /// Whether the load balancer shows what it should, as far as this process knows without asking.
    fn shows(&self, member: &Member) -> bool;

    /// Makes the load balancer show what it should, and returns when it does.
    fn apply<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<(), BalancerError>>;

    /// Whether this process may change the load balancer for this Server. Where only one copy of lb-controller may at a time, the others
    /// leave the whole Server to it.
    fn is_responsible(&self, _server: &Server) -> Responsible {
        Responsible::Any
    }

    /// Whether the load balancer knows that no request is under way at the Server. False if it cannot count them.
    fn is_idle(&self, member: &Member) -> bool;

    /// What keeps the registration from having any effect although it was applied.
    fn problems<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Vec<Problem>, BalancerError>>;
}
