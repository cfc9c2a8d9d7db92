//! Watches, and what a change of one object means for others.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use berth_core::api::{Approval, Executor, MachineClass, Server, TargetKind, VMReplicaSet};
use berth_runtime::{Cache, Context, Controller, Process};
use futures::{Stream, StreamExt as _, future, stream};
use kube::runtime::reflector::{ObjectRef, Store};

use crate::{
    args::Args,
    drift::Drift,
    iaas::{Classes, Limits},
    orphans::Sweeper,
    server::Servers,
    set::{index::Index, members, plan, reconcile::Sets},
    setup,
};

/// How many times as many tasks of one class as looks at objects run at once: tasks mostly wait for machines.
const TASKS: u16 = 4;
/// For how many classes that take up all the room that they may have there is room in this process, before one that is
/// well has to wait for them. Whoever waits takes up none.
const CLASSES: u16 = 16;

/// Runs until shutdown.
pub async fn run(args: Args, process: Process) -> Result<()> {
    let (tools, providers) = setup::machines(&args)?;
    let ctx = process.context(Executor::ReplicasetController, &args.common).await?;
    let servers: Cache<Server> = Cache::start(&ctx);
    let sets: Cache<VMReplicaSet> = Cache::start(&ctx);
    let classes: Cache<MachineClass> = Cache::start_with_times(&ctx);
    let approvals: Cache<Approval> = Cache::start(&ctx);
    tokio::select! {
        _ = future::join4(servers.ready(), sets.ready(), classes.ready(), approvals.ready()) => {}
        () = ctx.shutdown.cancelled() => return Ok(()),
    }
    let limit = usize::from(ctx.concurrency.saturating_mul(TASKS));
    let usable = Classes::new(&ctx, &classes, providers, Limits::default(), limit);
    let orphans = Sweeper::new(&ctx, &usable, &args.cluster_name);
    let drift = Drift::new(&ctx, tools.clone(), &servers, Duration::from_secs(u64::from(args.drift_interval)));
    let by_server = Arc::new(Servers::new(&ctx, tools, &servers, &usable, &approvals));
    let of_sets = plan::Limits { creating: usize::from(args.max_creating), replicas: args.max_replicas };
    let by_set = Arc::new(Sets::new(ctx.clone(), of_sets, Arc::new(usable.clone()), Arc::new(drift.clone())));
    tokio::join!(
        orphans.run(Duration::from_secs(u64::from(args.orphan_period))),
        steps(&ctx, &servers, &approvals, of_class(&classes, servers.store()), by_server.clone()),
        tasks(&ctx, &servers, &usable, of_class(&classes, servers.store()), by_server),
        scale(&ctx, &servers, &sets, &classes, &drift, by_set),
        drift.run(),
    );
    Ok(())
}

async fn steps(
    ctx: &Context,
    servers: &Cache<Server>,
    approvals: &Cache<Approval>,
    of_class: impl Stream<Item = ObjectRef<Server>> + Send + 'static,
    app: Arc<Servers>,
) {
    Controller::new("servers", servers)
        .also_on(of_class)
        .also_on(approved(approvals, servers.store()))
        .concurrency(ctx.concurrency)
        .run(ctx, app, |server, app| async move { app.reconcile(&server).await })
        .await;
}

async fn tasks(
    ctx: &Context,
    servers: &Cache<Server>,
    classes: &Classes,
    of_class: impl Stream<Item = ObjectRef<Server>> + Send + 'static,
    app: Arc<Servers>,
) {
    Controller::new("tasks", servers)
        .also_on(of_class)
        .also_on(classes.woken())
        .concurrency(ctx.concurrency.saturating_mul(TASKS).saturating_mul(CLASSES))
        .run(ctx, app, |server, app| async move { app.work(server).await })
        .await;
}

async fn scale(
    ctx: &Context,
    servers: &Cache<Server>,
    sets: &Cache<VMReplicaSet>,
    classes: &Cache<MachineClass>,
    drift: &Drift,
    app: Arc<Sets>,
) {
    let index = Arc::new(Index::default());
    Controller::new("vmreplicasets", sets)
        .also_on(owners(servers, index.clone()))
        .also_on(sets_of_class(classes, sets.store()))
        .also_on(drift.changes())
        .concurrency(ctx.concurrency)
        .run(ctx, app, move |set, app| {
            let index = index.clone();
            async move {
                if let Some(later) = app.too_soon(&set) {
                    return Ok(later);
                }
                let own = index.of(&set);
                app.reconcile(&set, &own.iter().map(AsRef::as_ref).collect::<Vec<_>>()).await
            }
        })
        .await;
}

/// The Servers of changed classes: what waits for the class is looked at again.
fn of_class(
    classes: &Cache<MachineClass>,
    servers: Store<Server>,
) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
    classes.changes().flat_map(move |change| {
        let name = change.object().metadata.name.clone().unwrap_or_default();
        let all = servers.state();
        let own = all.iter().filter(|server| server.spec.machine.class_name == name);
        stream::iter(own.map(|server| ObjectRef::from_obj(&**server)).collect::<Vec<_>>())
    })
}

/// The sets of changed classes.
fn sets_of_class(
    classes: &Cache<MachineClass>,
    sets: Store<VMReplicaSet>,
) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
    classes.changes().flat_map(move |change| {
        let name = change.object().metadata.name.clone().unwrap_or_default();
        let all = sets.state();
        let own = all.iter().filter(|set| set.spec.template.spec.machine.class_name == name);
        stream::iter(own.map(|set| ObjectRef::from_obj(&**set)).collect::<Vec<_>>())
    })
}

/// The Servers that Approvals are about.
fn approved(
    approvals: &Cache<Approval>,
    servers: Store<Server>,
) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
    approvals.changes().flat_map(move |change| {
        let approval = change.object();
        let (target, namespace) = (&approval.spec.target, approval.metadata.namespace.as_deref().unwrap_or_default());
        let keys = match target.kind {
            TargetKind::Server => vec![ObjectRef::new(&target.name).within(namespace)],
            TargetKind::VMReplicaSet => servers
                .state()
                .iter()
                .filter(|s| s.metadata.namespace.as_deref() == Some(namespace))
                .filter(|s| members::owner(s).is_some_and(|owner| owner.name == target.name))
                .map(|s| ObjectRef::from_obj(&**s))
                .collect(),
        };
        stream::iter(keys)
    })
}

/// The sets that changed Servers belong to.
fn owners(servers: &Cache<Server>, index: Arc<Index>) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
    servers.changes().filter_map(move |change| future::ready(index.follow(&change)))
}
