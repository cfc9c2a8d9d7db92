//! Watches, and what a change of one object means for others.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use berth_core::api::{Executor, Server, VMDeployment, VMReplicaSet};
use berth_machine::{
    fleet::Fleet,
    ssh::{ClientKey, PoolConfig, SshPool},
};
use berth_runtime::{Cache, Context, Controller, Pace, Process};
use futures::{Stream, StreamExt as _, future};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{args::Args, desired, reconcile::Deployments, server::Servers};

/// How many times as many tasks as looks at objects run at once: tasks mostly wait for machines.
const TASKS: u16 = 4;
/// A VMDeployment is looked at this often at most while its Servers change.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Runs until shutdown.
pub async fn run(args: Args, process: Process) -> Result<()> {
    let pool = SshPool::new(ClientKey::from_file(&args.ssh_key).context("--ssh-key")?, PoolConfig::default());
    let ctx = process.context(Executor::DeploymentController, &args.common).await?;
    let servers: Cache<Server> = Cache::start_begun(&ctx);
    let sets: Cache<VMReplicaSet> = Cache::start(&ctx);
    let deployments: Cache<VMDeployment> = Cache::start(&ctx);
    tokio::select! {
        _ = future::join3(servers.ready(), sets.ready(), deployments.ready()) => {}
        () = ctx.shutdown.cancelled() => return Ok(()),
    }
    let by_server = Arc::new(Servers::new(&ctx, pool, args.simulated.then(Fleet::default), &servers));
    let by_deployment = Arc::new(Deployments::new(ctx.clone()));
    tokio::join!(tasks(&ctx, &servers, by_server), roll_outs(&ctx, &servers, &sets, &deployments, by_deployment));
    Ok(())
}

async fn tasks(ctx: &Context, servers: &Cache<Server>, app: Arc<Servers>) {
    Controller::new("tasks", servers)
        .concurrency(ctx.concurrency.saturating_mul(TASKS))
        .run(ctx, app, |server, app| async move { app.reconcile(&server).await })
        .await;
}

async fn roll_outs(
    ctx: &Context,
    servers: &Cache<Server>,
    sets: &Cache<VMReplicaSet>,
    deployments: &Cache<VMDeployment>,
    app: Arc<Deployments>,
) {
    let (all_servers, all_sets, pace) = (servers.store(), sets.clone(), Arc::new(Pace::new(LOOK_INTERVAL)));
    Controller::new("vmdeployments", deployments)
        .also_on(owners_of_sets(sets))
        .also_on(owners_of_servers(servers, sets.store()))
        .concurrency(ctx.concurrency)
        .run(ctx, app, move |deployment, app| {
            let (all_servers, all_sets, pace) = (all_servers.clone(), all_sets.clone(), pace.clone());
            async move {
                if let Some(later) = pace.too_soon(&*deployment) {
                    return Ok(later);
                }
                let set = all_sets.get(deployment.metadata.namespace.as_deref(), name(&deployment.metadata));
                let all = all_servers.state();
                let own = |server: &&Server| set.as_ref().is_some_and(|set| desired::has(set, server));
                let own: Vec<&Server> = all.iter().map(AsRef::as_ref).filter(own).collect();
                app.reconcile(&deployment, set.as_deref(), &own).await
            }
        })
        .await;
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// The object of kind `K` that controls another.
fn owner<K: Resource<DynamicType = ()>>(of: &ObjectMeta) -> Option<ObjectRef<K>> {
    let mut owners = of.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.kind == K::kind(&()) && owner.controller == Some(true))?;
    Some(ObjectRef::new(&owner.name).within(of.namespace.as_deref().unwrap_or_default()))
}

/// The VMDeployments of changed sets. A set of somebody else's may stand in the way of the VMDeployment of its name.
fn owners_of_sets(sets: &Cache<VMReplicaSet>) -> impl Stream<Item = ObjectRef<VMDeployment>> + Send + use<> {
    sets.changes().map(|change| {
        let metadata = &change.object().metadata;
        let namesake = || ObjectRef::new(name(metadata)).within(metadata.namespace.as_deref().unwrap_or_default());
        owner(metadata).unwrap_or_else(namesake)
    })
}

/// The VMDeployments that changed Servers belong to, through their sets.
fn owners_of_servers(
    servers: &Cache<Server>,
    sets: Store<VMReplicaSet>,
) -> impl Stream<Item = ObjectRef<VMDeployment>> + Send + use<> {
    servers.changes().filter_map(move |change| {
        let set = owner::<VMReplicaSet>(&change.object().metadata).and_then(|set| sets.get(&set));
        future::ready(set.and_then(|set| owner(&set.metadata)))
    })
}
