//! What every kind of load balancer can do for a Server.

use berth_core::api::TrafficPhase;
use futures::future::BoxFuture;

use crate::plan::Registration;

/// A Server, as load balancers know it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The `resourceVersion` of the Server that was decided upon, as a number.
    pub version: u64,
    /// What is to be shown of it; nothing when no load balancer is to know it.
    pub target: Option<Registration>,
    /// Whether traffic is being taken away: then nothing that was decided on an older version may come after, not
    /// even where there is nothing to change.
    pub fence: bool,
}

impl Member {
    /// Which traffic the Server is to get; nothing when it is to be unknown.
    #[must_use]
    pub fn phase(&self) -> Option<TrafficPhase> {
        self.target.as_ref().map(|target| target.phase)
    }
}

/// Why a load balancer does not show what it should.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// What was asked for was decided on an older version of the Server than what is shown.
    #[error("a newer version of the Server was acted upon already")]
    Superseded,
    /// The load balancer refuses it, and would refuse it again.
    #[error("{what} refused: {why}")]
    Refused {
        /// What was tried.
        what: String,
        /// The answer.
        why: String,
    },
    /// It could not be done now; another attempt may help.
    #[error("{what}: {why}")]
    Unavailable {
        /// What was tried.
        what: String,
        /// What happened.
        why: String,
    },
}

/// A kind of load balancer. Everything it does is idempotent and safe with several controllers at once.
pub trait LoadBalancer: Send + Sync {
    /// Its name, for logs and metrics.
    fn name(&self) -> &'static str;

    /// Whether, as far as is known here without asking, it shows what it should.
    fn shows(&self, member: &Member) -> bool;

    /// Makes it show what it should, and returns when it does.
    fn apply<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<(), BalancerError>>;
}
