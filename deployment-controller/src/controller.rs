//! Caches, the two controllers, and which changes make a VMDeployment reconcile.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use berth_core::api::{Executor, Server, VMDeployment, VMReplicaSet};
use berth_machine::{
    Connector, SshConnector,
    ssh::{ClientKey, PoolConfig, SshPool},
};
use berth_runtime::{
    ApiError, Cache, CacheOptions, Change, Context, Controller, Copies, Process, ServerIndex, Throttle,
};
use futures::{Stream, StreamExt as _, future};
use kube::runtime::{
    controller::Action,
    reflector::{ObjectRef, Store},
};

use crate::{args::Args, content::ContentKey, reconcile::Deployments, staging::Stager, tasks::DeployTasks};

/// Tasks that run at the same time, for each unit of `--concurrency`: a task mostly waits for its machine and costs little.
const TASKS_PER_RECONCILE: u16 = 4;

/// A VMDeployment is reconciled at most this often: while many of its Servers change, one reconcile sees many changes.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(200);

/// Runs until shutdown.
pub async fn run(args: Args, process: Process) -> Result<()> {
    let connector = connector(&args)?;
    // All copies have the same key, and nobody else has it.
    let key = ContentKey::derived_from(&std::fs::read(&args.ssh_key).context("--ssh-key")?);
    let ctx = process.context(Executor::DeploymentController, &args.common).await?;
    run_with(&ctx, &process, connector, key).await;
    Ok(())
}

/// Runs on this API server, with this way to machines and this key for digests of content, until shutdown.
pub async fn run_with(ctx: &Context, process: &Process, connector: Arc<dyn Connector>, key: ContentKey) {
    let _copies = Copies::start(ctx, &process.tasks);
    let servers: Cache<Server> = Cache::start_with(ctx, CacheOptions::servers_with_state());
    let sets: Cache<VMReplicaSet> = Cache::start(ctx);
    let deployments: Cache<VMDeployment> = Cache::start(ctx);
    tokio::select! {
        biased;
        _ = future::join3(servers.ready(), sets.ready(), deployments.ready()) => {}
        () = ctx.shutdown.cancelled() => return,
    }
    let most_tasks = ctx.concurrency.saturating_mul(TASKS_PER_RECONCILE);
    let stager = Arc::new(Stager::new(ctx, connector.clone(), &servers, &deployments));
    let reconciler = Deployments::new(ctx.clone(), key).with_stager(&stager);
    tokio::join!(
        run_tasks(ctx, &servers, DeployTasks::new(ctx, connector, &servers, most_tasks)),
        run_deployments(ctx, &servers, &sets, &deployments, (reconciler, stager.ended())),
        stager.run(),
    );
}

/// The way to machines.
fn connector(args: &Args) -> Result<Arc<dyn Connector>> {
    let key = ClientKey::from_file(&args.ssh_key).context("--ssh-key")?;
    let connector: Arc<dyn Connector> = Arc::new(SshConnector::new(SshPool::new(key, PoolConfig::default())));
    #[cfg(feature = "simulated")]
    let connector = with_simulated(args, connector);
    Ok(connector)
}

#[cfg(feature = "simulated")]
fn with_simulated(args: &Args, others: Arc<dyn Connector>) -> Arc<dyn Connector> {
    use berth_iaas::simulated::{SimulatedConnector, SimulatedMachines};

    if args.simulated { Arc::new(SimulatedConnector::new(SimulatedMachines::default(), others)) } else { others }
}

/// Carries out the tasks of Servers.
async fn run_tasks(ctx: &Context, servers: &Cache<Server>, tasks: DeployTasks) {
    Controller::new("tasks", servers)
        .concurrency(tasks.most_reconciles())
        .run(ctx, Arc::new(tasks), |server, tasks| async move { tasks.reconcile(&server).await })
        .await;
}

/// Reconciles VMDeployments.
async fn run_deployments(
    ctx: &Context,
    servers: &Cache<Server>,
    sets: &Cache<VMReplicaSet>,
    deployments: &Cache<VMDeployment>,
    (reconciler, staged): (Deployments, impl Stream<Item = ObjectRef<VMDeployment>> + Send + 'static),
) {
    let index = Arc::new(ServerIndex::default());
    let of_servers = deployments_of_servers(servers, index.clone(), sets.store());
    // Complete before the first VMDeployment is reconciled. The changes are followed already: a Server that goes now is not kept.
    for server in servers.store().state() {
        index.follow(&Change::Present(server));
    }
    let cached = CachedDeployments {
        deployments: reconciler,
        servers: index,
        sets: sets.clone(),
        throttle: Throttle::new(RECONCILE_INTERVAL),
    };
    Controller::new("vmdeployments", deployments)
        .reconcile_on(deployments_of_sets(sets))
        .reconcile_on(of_servers)
        .reconcile_on(staged)
        .concurrency(ctx.concurrency)
        .run(ctx, Arc::new(cached), |deployment, cached| async move { cached.reconcile(&deployment).await })
        .await;
}

/// Reconciles VMDeployments with what the caches show of their sets and Servers.
struct CachedDeployments {
    deployments: Deployments,
    servers: Arc<ServerIndex>,
    sets: Cache<VMReplicaSet>,
    throttle: Throttle,
}

impl CachedDeployments {
    async fn reconcile(&self, deployment: &VMDeployment) -> Result<Action, ApiError> {
        if let Some(wait) = self.throttle.requeue_after(deployment) {
            return Ok(Action::requeue(wait));
        }
        let set = self.sets.get(Some(deployment.namespace()), deployment.name());
        let servers = set.as_ref().map(|set| self.servers.of(set)).unwrap_or_default();
        let servers: Vec<&Server> = servers.iter().map(AsRef::as_ref).collect();
        // Boxed, because it holds several versions of the VMDeployment.
        Box::pin(self.deployments.reconcile(deployment, set.as_deref(), &servers)).await
    }
}

/// The VMDeployments of changed sets. For a set that no VMDeployment controls it is the VMDeployment of the same name: the set
/// keeps it from creating its own.
fn deployments_of_sets(sets: &Cache<VMReplicaSet>) -> impl Stream<Item = ObjectRef<VMDeployment>> + Send + use<> {
    sets.changes().map(|change| {
        let set = change.object();
        deployment_of(set).unwrap_or_else(|| ObjectRef::new(set.name()).within(set.namespace()))
    })
}

/// The VMDeployments of changed Servers, through their sets. Keeps the index up to date.
fn deployments_of_servers(
    servers: &Cache<Server>,
    index: Arc<ServerIndex>,
    sets: Store<VMReplicaSet>,
) -> impl Stream<Item = ObjectRef<VMDeployment>> + Send + use<> {
    servers.changes().filter_map(move |change| {
        let set = index.follow(&change).and_then(|set| sets.get(&set));
        future::ready(set.and_then(|set| deployment_of(&set)))
    })
}

fn deployment_of(set: &VMReplicaSet) -> Option<ObjectRef<VMDeployment>> {
    Some(ObjectRef::new(&set.deployment()?.name).within(set.namespace()))
}
