//! One reconcile of a VMDeployment: its set, its roll-out, its status.

use std::{sync::Arc, time::Duration};

use berth_core::api::{
    AlarmProgress, Alarms, App, RolloutAction, Server, VMDeployment, VMDeploymentStatus, VMReplicaSet,
};
use berth_runtime::{ApiError, Context, ListedServer, Throttle, requeue_after};
use futures::future::{join_all, try_join, try_join_all};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;

use crate::{
    after::{self, Other},
    alarms::AlarmLook,
    analysis::Look,
    assessment::Assessment,
    content::{ContentKey, Contents, SeenContent, another_stable_app},
    content_look::ContentLook,
    count::RolloutCount,
    deployment_api::DeploymentApi,
    history::{self, Changes, Revision, Wanted},
    look::{self, Due},
    observed::ObservedDeployment,
    replica_set::{self, newest_app},
    rollout,
    rollout::AppUpdates,
    stable,
    staging::Stager,
    status, steps, undo,
};

/// The status of a VMDeployment is written at most this often: while many Servers change, one write shows many changes.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Servers that are patched at the same time: enough to be quick, few enough to leave the API server to other clients.
const CONCURRENT_PATCHES: usize = 16;

/// Reconciles VMDeployments.
pub struct Deployments {
    ctx: Context,
    content: ContentLook,
    status_writes: Throttle,
    stager: Option<Arc<Stager>>,
}

/// What a copy of this controller has to do with a VMDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// What there is to do is its turn, or the copy whose turn it is has not done it.
    Acts,
    /// There is nothing to do, and it is the turn of another copy.
    Looks,
    /// There is something to do, which is left to another copy for so long.
    Leaves(Duration),
}

impl Deployments {
    /// Works with this context. Digests of content are made with this key.
    #[must_use]
    pub fn new(ctx: Context, key: ContentKey) -> Self {
        let content = ContentLook::new(ctx.client.clone(), key);
        Self { ctx, content, status_writes: Throttle::new(STATUS_INTERVAL), stager: None }
    }

    /// Has artifacts brought ahead by this one.
    pub(crate) fn with_stager(self, stager: &Arc<Stager>) -> Self {
        Self { stager: Some(stager.clone()), ..self }
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
        // Which application is wanted is decided before its ConfigMaps and Secrets are looked at.
        let turned = self.turn(api, read, set, servers, now).await?;
        let wanted = undo::wanted(turned.as_ref().unwrap_or(read));
        let contents = self.contents(&wanted, set, servers).await?;
        let deployment = &*contents.of(&wanted);
        let missing = contents.missing(deployment, servers, now);
        let others = Self::others(api, deployment, servers, now).await?;
        let observed = ObservedDeployment {
            deployment,
            set,
            servers,
            missing_content: missing,
            looks: &[],
            alarm_look: None,
            others: &others,
            awaited: &[],
            now,
        };
        let part = self.part(read, &observed);
        let awaited = self.stage(&observed, part);
        if let Part::Leaves(wait) = part {
            return Ok(Action::requeue(wait));
        }
        let observed = ObservedDeployment { awaited: &awaited, ..observed };
        let (looks, alarm_look) = if turned.is_none() { self.look(&observed).await? } else { (Vec::new(), None) };
        let observed = &ObservedDeployment { looks: &looks, alarm_look: alarm_look.as_ref(), ..observed };
        // Another application than before is wanted: that is written before anything is done about it.
        let mut is_declared = true;
        if observed.foreign_set().is_none() && turned.is_none() {
            Self::sync_replica_set(api, observed).await?;
            is_declared = self.roll_out(api, observed, &contents).await?;
        }
        let action = self.update_status(api, read, observed, contents.next_look()).await?;
        Ok(if is_declared { action } else { Action::requeue(STATUS_INTERVAL) })
    }

    /// What there is at present of all that the wanted application and the stable one refer to.
    async fn contents(
        &self,
        wanted: &VMDeployment,
        set: Option<&VMReplicaSet>,
        servers: &[&Server],
    ) -> Result<Contents, ApiError> {
        let seen = self.content.look(wanted, &wanted.spec.app).await?;
        let seen_of_stable = match another_stable_app(wanted) {
            Some(stable) => self.content.look(wanted, stable).await?,
            None => SeenContent::default(),
        };
        Ok(Contents::new(wanted, set, servers, seen, seen_of_stable))
    }

    /// The VMDeployment as a new request turns it, if there is one that decides which application is wanted.
    async fn turn(
        &self,
        api: &DeploymentApi<'_>,
        read: &VMDeployment,
        set: Option<&VMReplicaSet>,
        servers: &[&Server],
        now: Timestamp,
    ) -> Result<Option<VMDeployment>, ApiError> {
        let Some(request) = undo::pending(read) else { return Ok(None) };
        let content = self.contents(&undo::wanted(read), set, servers).await?.newest();
        let history = api.history(read).await?;
        let rollout = Some(undo::carry_out(read, content, request, &history, now));
        let status = VMDeploymentStatus { rollout, ..read.status.clone().unwrap_or_default() };
        Ok(Some(VMDeployment { status: Some(status), ..read.clone() }))
    }

    /// What is known of the VMDeployments that the roll-out waits for, as long as it does.
    async fn others(
        api: &DeploymentApi<'_>,
        deployment: &VMDeployment,
        servers: &[&Server],
        now: Timestamp,
    ) -> Result<Vec<Other>, ApiError> {
        let rollout = &deployment.spec.rollout;
        if rollout.after.is_empty() {
            return Ok(Vec::new());
        }
        let count = RolloutCount::of(deployment, servers, now);
        let is_gradual = !steps::needs_no_steps(deployment, &count);
        if !after::has_to_wait(rollout, steps::recorded(deployment, &count.newest), is_gradual) {
            return Ok(Vec::new());
        }
        let namespace = deployment.namespace();
        let look = rollout.after.iter().map(async |after| {
            let found = api.other(&after.namespace, &after.name).await?;
            Ok(Other::new(after, found.as_ref(), namespace))
        });
        try_join_all(look).await
    }

    /// Looks at the checks and the alarms that are due.
    async fn look(&self, observed: &ObservedDeployment<'_>) -> Result<(Vec<Look>, Option<AlarmLook>), ApiError> {
        let (ctx, deployment) = (&self.ctx, observed.deployment);
        let checks = due_looks(observed).into_iter().map(|due| look::make(ctx, deployment, observed.servers, due));
        let alarms = due_alarms(observed).map(|due| look::at_alarms(ctx, deployment, due));
        let (checks, alarms) = try_join(try_join_all(checks), try_join_all(alarms)).await?;
        Ok((checks, alarms.into_iter().next()))
    }

    /// What this copy has to do with the VMDeployment now.
    fn part(&self, read: &VMDeployment, observed: &ObservedDeployment<'_>) -> Part {
        if self.ctx.turns.is_mine(read) {
            return Part::Acts;
        }
        let has_to_act = observed.foreign_set().is_none()
            && (differs(observed).is_some()
                || has_next(observed)
                || !due_looks(observed).is_empty()
                || due_alarms(observed).is_some())
            || read.status.as_ref() != Some(&new_status(read, observed).0);
        match self.ctx.turns.wait(read).filter(|_| has_to_act) {
            Some(wait) => Part::Leaves(wait),
            None if has_to_act => Part::Acts,
            None => Part::Looks,
        }
    }

    /// Has artifacts brought ahead if this copy acts. Returns the Servers that they are on their way to.
    fn stage(&self, observed: &ObservedDeployment<'_>, part: Part) -> Vec<String> {
        let Some(stager) = &self.stager else { return Vec::new() };
        if part == Part::Acts {
            return stager.want(observed);
        }
        stager.leave(observed.deployment);
        Vec::new()
    }

    /// Creates the set, or brings it up to date. The caches show whether that is to be done; it is done only if they show the
    /// VMDeployment as it is. Of two copies of this controller the one whose cache is behind would take a newer declaration back again
    /// and again. What changes between the reading and the write is refused, and makes the VMDeployment reconcile.
    async fn sync_replica_set(api: &DeploymentApi<'_>, observed: &ObservedDeployment<'_>) -> Result<(), ApiError> {
        let Some(desired) = differs(observed) else { return Ok(()) };
        let set = api.set_of_any(desired.name()).await?;
        let Some(now) = api.again(observed.deployment).await? else { return Ok(()) };
        let is_known = now.metadata.resource_version == observed.deployment.metadata.resource_version;
        let is_foreign = set.as_ref().is_some_and(|set| !observed.deployment.owns(set));
        if is_known && !is_foreign && replica_set::differs(set.as_ref(), &desired) {
            api.apply_set(&desired, set.as_ref()).await?;
        }
        Ok(())
    }

    /// Makes the next move of the roll-out. The cache shows whether there is one. What it is must be decided on the set as
    /// the API server has it now and on its Servers as read after that, and be entered into the ledger before it is done:
    /// see [`SetApi`](berth_runtime::SetApi). Says whether each Server that was to be updated is: one whose declaration has changed
    /// since it was read is not.
    async fn roll_out(
        &self,
        api: &DeploymentApi<'_>,
        observed: &ObservedDeployment<'_>,
        contents: &Contents,
    ) -> Result<bool, ApiError> {
        let ObservedDeployment { deployment: known, servers, missing_content, awaited, .. } = *observed;
        if !has_next(observed) {
            return Ok(true);
        }
        // Another copy may have aborted the roll-out since.
        let Some(read) = &api.again(known).await? else { return Ok(true) };
        if undo::pending(read).is_some() {
            return Ok(true);
        }
        let deployment = &*contents.of(&undo::wanted(read));
        if !contents.are_of(known, deployment) {
            // What was looked at is not this. Its change makes it reconcile.
            return Ok(true);
        }
        let Some(set) = api.own_set(deployment).await? else { return Ok(true) };
        let listed = api.sets.list_servers(&set, servers).await?;
        let servers: Vec<&Server> = listed.iter().map(ListedServer::server).collect();
        let now = self.ctx.clock.now();
        let updates = rollout::next_updates_except(deployment, &set, &servers, missing_content, awaited, now);
        if api.commit_ledger(&set, &updates.ledger).await? {
            return declare_app(api, &updates).await;
        }
        Ok(true)
    }

    /// Writes the status if it differs, and requeues the VMDeployment for the time at which its status changes by itself, and at the
    /// latest after `next_look`, when the ConfigMaps and Secrets are looked at again. `read`: the VMDeployment as it was read.
    async fn update_status(
        &self,
        api: &DeploymentApi<'_>,
        read: &VMDeployment,
        observed: &ObservedDeployment<'_>,
        next_look: Option<Duration>,
    ) -> Result<Action, ApiError> {
        let (mut status, requeue_at) = new_status(read, observed);
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
            // An Undo may name a number of the history. It is written as done before numbers change: a copy that crashes in between, or
            // another one, would not find that number again.
            let is_undo = undo::pending(read).is_some_and(|request| request.action == RolloutAction::Undo);
            let is_kept = is_undo || keep_history(api, read, observed, &mut status).await?;
            if !is_kept || !api.write_status(read, &status).await? {
                return Ok(Action::requeue(STATUS_INTERVAL));
            }
        }
        let change = requeue_at.map(|at| requeue_after(at, observed.now));
        Ok(change.into_iter().chain(next_look).min().map_or_else(Action::await_change, Action::requeue))
    }
}

/// The status as it has to be written, and when it changes by itself. What was stable stays as it was, whatever content it would get now.
pub(crate) fn new_status(
    read: &VMDeployment,
    observed: &ObservedDeployment<'_>,
) -> (VMDeploymentStatus, Option<Timestamp>) {
    let (mut status, requeue_at) = status::compute(observed);
    let present = observed.deployment.status.as_ref().and_then(|status| status.stable_app.as_ref());
    if status.stable_app.as_ref() == present {
        status.stable_app = read.status.as_ref().and_then(|known| known.stable_app.clone());
    }
    (status, requeue_at)
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
    let ObservedDeployment { deployment, set, servers, missing_content, awaited, now, .. } = *observed;
    set.is_some_and(|set| {
        !rollout::next_updates_except(deployment, set, servers, missing_content, awaited, now).is_empty(set)
    })
}

/// The checks that are due to be looked at.
fn due_looks<'a>(observed: &ObservedDeployment<'a>) -> Vec<Due<'a>> {
    let ObservedDeployment { deployment, servers, missing_content, now, .. } = *observed;
    if observed.own_set().is_none() { Vec::new() } else { look::due(deployment, servers, missing_content, now) }
}

/// The alarms, if they are due to be looked at.
fn due_alarms<'a>(observed: &ObservedDeployment<'a>) -> Option<(&'a Alarms, &'a AlarmProgress)> {
    let ObservedDeployment { deployment, servers, missing_content, now, .. } = *observed;
    observed.own_set()?;
    look::due_alarms(deployment, servers, missing_content, now)
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
    let changes = history_changes(read, observed, status, &api.history(read).await?);
    api.change_history(read, &changes).await?;
    if let Some(progress) = &mut status.rollout {
        progress.revision_number = Some(changes.newest);
    }
    Ok(true)
}

/// What has to change in this history. It holds applications as they were declared, without their content.
pub(crate) fn history_changes(
    read: &VMDeployment,
    observed: &ObservedDeployment<'_>,
    status: &VMDeploymentStatus,
    known: &[Revision],
) -> Changes {
    let (newest, declared) = (newest_app(observed.deployment).as_declared(), newest_app(read).as_declared());
    let stable = status.stable_app.as_ref().map(App::as_declared);
    let of_servers = observed.servers.iter().filter_map(|server| server.spec.app.as_ref());
    let of_servers: Vec<App> = of_servers.map(App::as_declared).collect();
    let in_use: Vec<&App> = of_servers.iter().chain([&declared]).collect();
    let wanted = Wanted {
        newest: &newest,
        stable: stable.as_ref(),
        in_use: &in_use,
        limit: usize::try_from(read.spec.revision_history_limit).unwrap_or(0),
    };
    history::changes(read, known, wanted)
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
