//! Watches, and what a change of one object means for others.

use std::sync::Arc;

use anyhow::Result;
use berth_core::api::{Approval, Executor, MachineClass, Server, VMReplicaSet};
use berth_runtime::{Cache, Context, Controller, Process};
use futures::{Stream, StreamExt as _, future, stream};
use kube::runtime::reflector::{ObjectRef, Store};

use crate::{
    args::Args,
    iaas::{Classes, Limits, Providers, incus::IncusDriver, local::LocalProvider},
    server::Servers,
    set::{members, reconcile::Sets},
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
    let by_server = Arc::new(Servers::new(&ctx, tools, &servers, &usable, &approvals));
    let by_set = Arc::new(Sets::new(ctx.clone(), usize::from(args.max_creating)));
    tokio::join!(
        steps(&ctx, &servers, &approvals, of_class(&classes, servers.store()), by_server.clone()),
        tasks(&ctx, &servers, &usable, of_class(&classes, servers.store()), by_server),
        scale(&ctx, &servers, &sets, by_set),
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
        .also_on(approved(approvals))
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

async fn scale(ctx: &Context, servers: &Cache<Server>, sets: &Cache<VMReplicaSet>, app: Arc<Sets>) {
    let store = servers.store();
    Controller::new("vmreplicasets", sets)
        .also_on(owners(servers))
        .concurrency(ctx.concurrency)
        .run(ctx, app, move |set, app| {
            let all = store.state();
            async move {
                let own: Vec<&Server> = all.iter().map(AsRef::as_ref).filter(|s| members::is_own(&set, s)).collect();
                app.reconcile(&set, &own).await
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

/// The Servers that Approvals are about.
fn approved(approvals: &Cache<Approval>) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
    approvals.changes().map(|change| {
        let approval = change.object();
        let server = ObjectRef::new(&approval.spec.target.name);
        match &approval.metadata.namespace {
            Some(namespace) => server.within(namespace),
            None => server,
        }
    })
}

/// The sets that changed Servers belong to.
fn owners(servers: &Cache<Server>) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
    servers.changes().filter_map(|change| {
        let server = change.object();
        let owner = members::owner(server)
            .map(|owner| ObjectRef::new(&owner.name).within(server.metadata.namespace.as_deref().unwrap_or_default()));
        future::ready(owner)
    })
}
