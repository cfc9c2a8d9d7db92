//! Watches, and what a change of one object means for others.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use berth_core::api::{Approval, Executor, MachineClass, Server, TargetKind, VMReplicaSet};
use berth_runtime::{Cache, Cached, Context, Controller, Pace, Process};
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
/// A set is looked at this often at most while its Servers change.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

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
    let of_sets = plan::Limits { creating: usize::from(args.max_creating), replicas: args.max_replicas };
    let by_set = Arc::new(Sets::new(ctx.clone(), of_sets, Arc::new(usable.clone()), Arc::new(drift.clone())));
    let by_server = Arc::new(Servers::new(&ctx, tools, &servers, &usable, &approvals, by_set.births()));
    tokio::join!(
        orphans.run(Duration::from_secs(u64::from(args.orphan_period))),
        steps(&ctx, &servers, &approvals, of_class(&classes, servers.store(), class_of_server), by_server.clone()),
        tasks(&ctx, &servers, &usable, of_class(&classes, servers.store(), class_of_server), by_server),
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
        .also_on(app.ready_to_begin())
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
        .also_on(app.ready_to_begin())
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
    let (index, pace) = (Arc::new(Index::default()), Arc::new(Pace::new(LOOK_INTERVAL)));
    Controller::new("vmreplicasets", sets)
        .also_on(owners(servers, index.clone()))
        .also_on(of_class(classes, sets.store(), class_of_set))
        .also_on(drift.changes())
        .concurrency(ctx.concurrency)
        .run(ctx, app, move |set, app| {
            let (index, pace) = (index.clone(), pace.clone());
            async move {
                if let Some(later) = pace.too_soon(&*set) {
                    return Ok(later);
                }
                let own = index.of(&set);
                app.reconcile(&set, &own.iter().map(AsRef::as_ref).collect::<Vec<_>>()).await
            }
        })
        .await;
}

/// What is of changed classes, by the class's name: what waits for the class is looked at again.
fn of_class<K: Cached>(
    classes: &Cache<MachineClass>,
    store: Store<K>,
    class: fn(&K) -> &str,
) -> impl Stream<Item = ObjectRef<K>> + Send + use<K> {
    classes.changes().flat_map(move |change| {
        let name = change.object().metadata.name.clone().unwrap_or_default();
        let all = store.state();
        let own = all.iter().filter(|object| class(object) == name);
        stream::iter(own.map(|object| ObjectRef::from_obj(&**object)).collect::<Vec<_>>())
    })
}

fn class_of_server(server: &Server) -> &str {
    &server.spec.machine.class_name
}

fn class_of_set(set: &VMReplicaSet) -> &str {
    &set.spec.template.spec.machine.class_name
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
