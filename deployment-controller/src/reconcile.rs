//! One reconcile of a VMDeployment: its set, its roll-out, its status.

use std::time::Duration;

use berth_core::api::{Server, VMDeployment, VMDeploymentStatus, VMReplicaSet};
use berth_runtime::{ApiError, Context, ListedServer, Throttle, requeue_after};
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;

use crate::{
    assessment::Assessment,
    count::RolloutCount,
    deployment_api::DeploymentApi,
    history::{self, Wanted},
    observed::ObservedDeployment,
    replica_set, rollout,
    rollout::AppUpdates,
    secrets, stable, status, undo,
};

/// The status of a VMDeployment is written at most this often: while many Servers change, one write shows many changes.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Servers that are patched at the same time: enough to be quick, few enough to leave the API server to other clients.
const CONCURRENT_PATCHES: usize = 16;

/// Reconciles VMDeployments.
pub struct Deployments {
    ctx: Context,
    status_writes: Throttle,
}

impl Deployments {
    /// Works with this context.
    #[must_use]
    pub fn new(ctx: Context) -> Self {
        Self { ctx, status_writes: Throttle::new(STATUS_INTERVAL) }
    }

    /// Reconciles a VMDeployment; `set` is the VMReplicaSet of its name, and `servers` are the Servers that the set controls,
    /// both from a cache.
    ///
    /// A set of this name that something else controls is left alone; the status says so. The set of a VMDeployment that is
    /// being deleted is removed by Kubernetes' garbage collection.
    pub async fn reconcile(
        &self,
        deployment: &VMDeployment,
        set: Option<&VMReplicaSet>,
        servers: &[&Server],
    ) -> Result<Action, ApiError> {
        if deployment.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let now = self.ctx.clock.now();
        let api = &DeploymentApi::new(&self.ctx, deployment.namespace());
        let read = deployment;
        let turned = turn(api, read, now).await?;
        let wanted = undo::wanted(turned.as_ref().unwrap_or(read));
        let deployment = wanted.as_ref();
        let missing = self.missing_secret(deployment, servers, now).await?;
        let observed = &ObservedDeployment { deployment, set, servers, missing_secret: missing.as_deref(), now };
        if let Some(wait) = self.leave_to_another(read, observed) {
            return Ok(Action::requeue(wait));
        }
        // Another application than before is wanted: that is written before anything is done about it.
        let mut is_declared = true;
        if observed.foreign_set().is_none() && turned.is_none() {
            Self::sync_replica_set(api, observed).await?;
            is_declared = self.roll_out(api, observed).await?;
        }
        let action = self.update_status(api, read, observed).await?;
        Ok(if is_declared { action } else { Action::requeue(STATUS_INTERVAL) })
    }

    /// How long what there is to do about the VMDeployment is left to the copy whose turn it is.
    fn leave_to_another(&self, read: &VMDeployment, observed: &ObservedDeployment<'_>) -> Option<Duration> {
        if self.ctx.turns.is_mine(read) {
            return None;
        }
        let has_to_act = observed.foreign_set().is_none() && (differs(observed).is_some() || has_next(observed))
            || read.status.as_ref() != Some(&status::compute(observed).0);
        if has_to_act { self.ctx.turns.wait(read) } else { None }
    }

    /// What is missing of the Secrets that the newest application needs. Looked for only while Servers are left to be updated.
    async fn missing_secret(
        &self,
        deployment: &VMDeployment,
        servers: &[&Server],
        now: Timestamp,
    ) -> Result<Option<String>, ApiError> {
        let app = &deployment.spec.app;
        if app.secret_variables().next().is_none() || RolloutCount::of(deployment, servers, now).left == 0 {
            return Ok(None);
        }
        Ok(secrets::resolve(&self.ctx.client, deployment.namespace(), app).await?.err())
    }

    /// Creates the set, or brings it up to date.
    async fn sync_replica_set(api: &DeploymentApi<'_>, observed: &ObservedDeployment<'_>) -> Result<(), ApiError> {
        match differs(observed) {
            Some(desired) => api.apply_set(&desired).await,
            None => Ok(()),
        }
    }

    /// Makes the next move of the roll-out. The cache shows whether there is one. What it is must be decided on the set as
    /// the API server has it now and on its Servers as read after that, and be entered into the ledger before it is done:
    /// see [`SetApi`](berth_runtime::SetApi). Says whether each Server that was to be updated is: one whose declaration has changed
    /// since it was read is not.
    async fn roll_out(&self, api: &DeploymentApi<'_>, observed: &ObservedDeployment<'_>) -> Result<bool, ApiError> {
        let ObservedDeployment { deployment, servers, missing_secret, .. } = *observed;
        if !has_next(observed) {
            return Ok(true);
        }
        // Another copy may have aborted the roll-out since.
        let Some(read) = &api.again(deployment).await? else { return Ok(true) };
        if undo::pending(read).is_some() {
            return Ok(true);
        }
        let deployment = undo::wanted(read);
        let deployment = deployment.as_ref();
        let Some(set) = api.own_set(deployment).await? else { return Ok(true) };
        let listed = api.sets.list_servers(&set, servers).await?;
        let servers: Vec<&Server> = listed.iter().map(ListedServer::server).collect();
        let updates = rollout::next_updates(deployment, &set, &servers, missing_secret, self.ctx.clock.now());
        if api.commit_ledger(&set, &updates.ledger).await? {
            return declare_app(api, &updates).await;
        }
        Ok(true)
    }

    /// Writes the status if it differs, and requeues the VMDeployment for the time at which its status changes by itself. `read`: the
    /// VMDeployment as it was read.
    async fn update_status(
        &self,
        api: &DeploymentApi<'_>,
        read: &VMDeployment,
        observed: &ObservedDeployment<'_>,
    ) -> Result<Action, ApiError> {
        let (mut status, requeue_at) = status::compute(observed);
        if read.status.as_ref() != Some(&status) || history::may_have_changed(read.status.as_ref(), &status) {
            // Should another application be declared before it is written, it would never be known that this one was stable.
            // The next step, or the way back, begins only once it is written.
            let is_urgent = read.status.as_ref().is_none_or(|known| {
                known.stable_app != status.stable_app
                    || status::has_turned(known.rollout.as_ref(), status.rollout.as_ref())
            });
            if let Some(wait) = self.status_writes.requeue_after(read).filter(|_| !is_urgent) {
                return Ok(Action::requeue(wait));
            }
            if !keep_history(api, read, observed, &mut status).await? || !api.write_status(read, &status).await? {
                return Ok(Action::requeue(STATUS_INTERVAL));
            }
        }
        let change = requeue_at.map(|at| requeue_after(at, observed.now));
        let look = observed.missing_secret.map(|_| secrets::WAIT);
        Ok(change.into_iter().chain(look).min().map_or_else(Action::await_change, Action::requeue))
    }
}

/// The set as it should be, if it is not.
fn differs(observed: &ObservedDeployment<'_>) -> Option<VMReplicaSet> {
    let ObservedDeployment { deployment, set, .. } = *observed;
    let assessment = Assessment::of(observed);
    let desired = replica_set::desired(deployment, stable::initial_app(observed, &assessment));
    replica_set::differs(set, &desired).then_some(desired)
}

/// Whether the roll-out has a next move, by the caches.
fn has_next(observed: &ObservedDeployment<'_>) -> bool {
    let ObservedDeployment { deployment, set, servers, missing_secret, now } = *observed;
    set.is_some_and(|set| !rollout::next_updates(deployment, set, servers, missing_secret, now).is_empty(set))
}

/// The VMDeployment as a new request turns it, if there is one that decides which application is wanted.
async fn turn(
    api: &DeploymentApi<'_>,
    deployment: &VMDeployment,
    now: Timestamp,
) -> Result<Option<VMDeployment>, ApiError> {
    let Some(request) = undo::pending(deployment) else { return Ok(None) };
    let history = api.history(deployment).await?;
    let rollout = Some(undo::carry_out(deployment, request, &history, now));
    let status = VMDeploymentStatus { rollout, ..deployment.status.clone().unwrap_or_default() };
    Ok(Some(VMDeployment { status: Some(status), ..deployment.clone() }))
}

/// Brings the history up to date, if this status says anything new about it, and enters the newest number. Says whether it is: not if
/// the VMDeployment has changed since it was read, because its history might go back in time then.
async fn keep_history(
    api: &DeploymentApi<'_>,
    read: &VMDeployment,
    observed: &ObservedDeployment<'_>,
    status: &mut VMDeploymentStatus,
) -> Result<bool, ApiError> {
    if !history::may_have_changed(read.status.as_ref(), status) {
        return Ok(true);
    }
    let is_same = |now: &VMDeployment| now.metadata.resource_version == read.metadata.resource_version;
    if !api.again(read).await?.is_some_and(|now| is_same(&now)) {
        return Ok(false);
    }
    let (newest, declared) = (replica_set::newest_app(observed.deployment), replica_set::newest_app(read));
    let of_servers = observed.servers.iter().filter_map(|server| server.spec.app.as_ref());
    let in_use: Vec<_> = of_servers.chain([&declared]).collect();
    let wanted = Wanted {
        newest: &newest,
        stable: status.stable_app.as_ref(),
        in_use: &in_use,
        limit: usize::try_from(read.spec.revision_history_limit).unwrap_or(0),
    };
    let changes = history::changes(read, &api.history(read).await?, wanted);
    api.change_history(read, &changes).await?;
    if let Some(progress) = &mut status.rollout {
        progress.revision_number = Some(changes.newest);
    }
    Ok(true)
}

/// Says whether the application was declared on all of these Servers.
async fn declare_app(api: &DeploymentApi<'_>, updates: &AppUpdates<'_>) -> Result<bool, ApiError> {
    let mut all = true;
    for batch in updates.servers.chunks(CONCURRENT_PATCHES) {
        let results = join_all(batch.iter().map(|server| api.declare_app(server, &updates.app))).await;
        for is_declared in results {
            all &= is_declared?;
        }
    }
    Ok(all)
}
