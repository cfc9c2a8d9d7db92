//! One look at a VMDeployment: its set, its roll-out, its status.

use std::time::Duration;

use berth_core::api::{Server, VMDeployment, VMReplicaSet};
use berth_runtime::{CallError as Error, Context, Pace, until};
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt as _, runtime::controller::Action};

use crate::{desired, live::Live, rollout, status};

/// The status is written at most this often while things change.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How many Servers are changed at once.
const CALLS: usize = 16;

/// Reconciles VMDeployments.
pub struct Deployments {
    ctx: Context,
    writes: Pace,
}

impl Deployments {
    /// With this context.
    #[must_use]
    pub fn new(ctx: Context) -> Self {
        Self { ctx, writes: Pace::new(STATUS_INTERVAL) }
    }

    /// Looks at a VMDeployment, whose set and Servers the cache shows to be these.
    pub async fn reconcile(
        &self,
        deployment: &VMDeployment,
        set: Option<&VMReplicaSet>,
        servers: &[&Server],
    ) -> Result<Action, Error> {
        if deployment.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let live = Live::new(&self.ctx, &deployment.namespace().unwrap_or_default());
        let now = self.ctx.clock.now();
        if set.is_none_or(|set| desired::is_own(deployment, set)) {
            self.bring_set(&live, deployment, set, servers, now).await?;
            if let Some(set) = set {
                self.roll_out(&live, deployment, set, servers, now).await?;
            }
        }
        self.report(&live, deployment, set, servers, now).await
    }

    async fn bring_set(
        &self,
        live: &Live<'_>,
        deployment: &VMDeployment,
        set: Option<&VMReplicaSet>,
        servers: &[&Server],
        now: Timestamp,
    ) -> Result<(), Error> {
        let rolled_out = rollout::is_complete(deployment, servers, now);
        let desired = desired::replica_set(deployment, set, rolled_out);
        if desired::differs(set, &desired) { live.apply(&desired).await } else { Ok(()) }
    }

    /// Moves the roll-out on. That there is something to do is seen in the cache; what is done is decided on the set
    /// and then its Servers as read from the API server, and entered before it is done.
    async fn roll_out(
        &self,
        live: &Live<'_>,
        deployment: &VMDeployment,
        set: &VMReplicaSet,
        servers: &[&Server],
        now: Timestamp,
    ) -> Result<(), Error> {
        let ledger = |set: &VMReplicaSet| set.status.clone().unwrap_or_default().disturbed;
        let seen = rollout::next(deployment, servers, &ledger(set), now);
        if seen.touch.is_empty() && seen.ledger == ledger(set) {
            return Ok(());
        }
        let Some(set) = live.set(deployment).await? else { return Ok(()) };
        let servers = live.servers(&set).await?;
        let servers: Vec<&Server> = servers.iter().collect();
        let roll = rollout::next(deployment, &servers, &ledger(&set), self.ctx.clock.now());
        if roll.ledger == ledger(&set) {
            // Without a write nothing has shown yet that the ledger was still this one when the Servers were listed.
            let still = live.set(deployment).await?;
            if still.is_none_or(|newer| newer.metadata.resource_version != set.metadata.resource_version) {
                return Ok(());
            }
        } else if !live.swap(&set, &roll.ledger).await? {
            return Ok(());
        }
        let app = desired::newest(deployment);
        for batch in roll.touch.chunks(CALLS) {
            join_all(batch.iter().map(|server| live.touch(server, &app)))
                .await
                .into_iter()
                .collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    /// Writes the status if it differs, and says when to look again.
    async fn report(
        &self,
        live: &Live<'_>,
        deployment: &VMDeployment,
        set: Option<&VMReplicaSet>,
        servers: &[&Server],
        now: Timestamp,
    ) -> Result<Action, Error> {
        let (wanted, next) = status::status(deployment, set, servers, now);
        if deployment.status.as_ref() != Some(&wanted) {
            if let Some(later) = self.writes.too_soon(deployment) {
                return Ok(later);
            }
            if !live.write_status(deployment, &wanted).await? {
                return Ok(Action::requeue(STATUS_INTERVAL));
            }
        }
        Ok(next.map_or_else(Action::await_change, |at| Action::requeue(until(at, now))))
    }
}
