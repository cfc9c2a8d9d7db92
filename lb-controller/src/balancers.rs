//! The registry of load balancers. [`Balancers::configured`] is the one place that names them; everything else uses the trait.

use std::{sync::Arc, time::Duration};

use berth_core::api::{Server, VMDeployment};
use berth_runtime::{Cache, Context, Process};
use futures::{
    FutureExt,
    channel::mpsc::{self, UnboundedReceiver},
    future::{BoxFuture, join_all},
};
use tokio::sync::oneshot;

use crate::{
    args::Args,
    balancer::{BalancerError, LoadBalancer, Observer, Problem, Responsible},
    classes::{ClassBalancers, Drivers},
    endpoint_slices::{EndpointSlices, PanicFloor},
    kept::KeptServers,
    member::{Member, ServerRef},
    subsets::Subsets,
};

/// A load balancer that does not show what it should.
#[derive(Debug, thiserror::Error)]
#[error("load balancer {balancer}: {cause}")]
pub struct BalancerFailure {
    /// Its name.
    pub balancer: &'static str,
    /// Why.
    #[source]
    pub cause: BalancerError,
}

/// All load balancers that this program uses.
#[derive(Clone)]
pub struct Balancers(Arc<[Arc<dyn LoadBalancer>]>);

/// What the running load balancers tell.
pub struct Observations {
    /// Completes when all load balancers have read their entries.
    pub synced: BoxFuture<'static, ()>,
    /// Servers whose entries somebody else has changed.
    pub changes: UnboundedReceiver<ServerRef>,
}

impl Balancers {
    /// The load balancers of this program. Add a new one here.
    #[must_use]
    pub fn configured(
        ctx: &Context,
        args: &Args,
        (servers, deployments): (&Cache<Server>, &Cache<VMDeployment>),
        subsets: &Subsets,
        kept: &Arc<KeptServers>,
        drivers: Drivers,
    ) -> Self {
        let batch_window = Duration::from_millis(u64::from(args.batch_window_ms));
        let floor = PanicFloor { default: args.panic_threshold, servers: servers.clone(), kept: Arc::clone(kept) };
        let caches = (servers, deployments);
        let classes = ClassBalancers::new(ctx, caches, subsets, kept, args.panic_threshold, drivers);
        let balancers: Vec<Arc<dyn LoadBalancer>> = vec![
            Arc::new(EndpointSlices::new(ctx, batch_window, floor, subsets.clone())), // backends that name a service
            Arc::new(classes),                                                        // backends that name a class
        ];
        Self::new(balancers)
    }

    /// These load balancers.
    #[must_use]
    pub fn new(balancers: impl IntoIterator<Item = Arc<dyn LoadBalancer>>) -> Self {
        Self(balancers.into_iter().collect())
    }

    /// Starts to follow all load balancers, until shutdown. The process is ready only when all have read their entries.
    #[must_use]
    pub fn start(&self, ctx: &Context, process: &Process) -> Observations {
        let (sender, changes) = mpsc::unbounded();
        let start = |balancer: &Arc<dyn LoadBalancer>| {
            let (synced, is_synced) = oneshot::channel();
            let observer = Observer::new(ctx.readiness.register(balancer.name()), synced, sender.clone());
            process.tasks.spawn(Arc::clone(balancer).run(ctx.clone(), observer));
            is_synced
        };
        // An error means that a load balancer has stopped, which it does only at shutdown.
        let synced = join_all(self.0.iter().map(start).collect::<Vec<_>>()).map(|_| ()).boxed();
        Observations { synced, changes }
    }

    /// Which copies of this program may act on the Server.
    #[must_use]
    pub fn responsible(&self, server: &Server) -> Responsible {
        self.0.iter().map(|balancer| balancer.is_responsible(server)).max().unwrap_or(Responsible::Any)
    }

    /// Whether all load balancers know that no request is under way at the Server.
    #[must_use]
    pub fn is_idle(&self, member: &Member) -> bool {
        self.0.iter().all(|balancer| balancer.is_idle(member))
    }

    /// Whether all load balancers show what they should, as far as this process knows without asking.
    #[must_use]
    pub fn show(&self, member: &Member) -> bool {
        self.0.iter().all(|balancer| balancer.shows(member))
    }

    /// Makes all load balancers show what they should. One that fails does not keep the others from it.
    ///
    /// # Errors
    /// The failure that decides what happens next (see [`BalancerError::rank`]); of several of the same rank that of the first
    /// load balancer. The others are logged.
    pub async fn apply(&self, member: &Member) -> Result<(), BalancerFailure> {
        let applied = self.0.iter().map(|balancer| async move {
            let result = apply_to(balancer.as_ref(), member).await;
            result.map_err(|cause| BalancerFailure { balancer: balancer.name(), cause })
        });
        let mut failures: Vec<_> = join_all(applied).await.into_iter().filter_map(Result::err).collect();
        // The sort is stable: failures of the same rank keep the order of the registry.
        failures.sort_by_key(|failure| failure.cause.rank());
        let mut failures = failures.into_iter();
        let Some(first) = failures.next() else { return Ok(()) };
        for failure in failures {
            let server = &member.server;
            tracing::warn!(server = %server.name, namespace = %server.namespace, error = %failure, "another load balancer failed, too");
        }
        Err(first)
    }

    /// What keeps the registration from having any effect. A load balancer that cannot tell is logged.
    pub async fn problems(&self, member: &Member) -> Vec<Problem> {
        let asked = self.0.iter().map(|balancer| async move {
            balancer.problems(member).await.unwrap_or_else(|error| {
                tracing::debug!(balancer = balancer.name(), %error, "cannot check for problems");
                Vec::new()
            })
        });
        join_all(asked).await.concat()
    }
}

async fn apply_to(balancer: &dyn LoadBalancer, member: &Member) -> Result<(), BalancerError> {
    if !member.must_record_version && balancer.shows(member) {
        return Ok(());
    }
    tracing::debug!(
        server = %member.server.name, namespace = %member.server.namespace, balancer = balancer.name(),
        phase = ?member.phase(), "changing traffic"
    );
    balancer.apply(member).await
}

#[cfg(test)]
#[path = "balancers_tests.rs"]
mod tests;
