//! Starts what reconciles the traffic of Servers, and what triggers it.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use berth_core::api::{Executor, Server, VMDeployment};
use berth_runtime::{Cache, CacheOptions, Context, Controller, Copies, Process};
use futures::{
    StreamExt,
    channel::mpsc::{self, UnboundedSender},
    future, stream,
};
use kube::runtime::reflector::ObjectRef;
use tokio::net::TcpListener;

use crate::{
    args::Args,
    balancers::{Balancers, Observations},
    classes,
    envoy::EnvoyClasses,
    haproxy::server_lists,
    kept::KeptServers,
    member::ServerRef,
    orphans::{self, suspect},
    reconcile::TrafficReconciler,
    routes::RouteWeights,
    subsets::Subsets,
};

/// Servers that are reconciled at the same time, for each one of `--concurrency`: most of them only wait for the same write of
/// a load balancer, which changes many Servers together.
const SERVERS_PER_WRITE: u16 = 8;

/// Runs until shutdown.
///
/// # Errors
/// When the API server's address or credentials are missing or cannot be used, or nothing can listen at `--servers-address`.
pub async fn run(args: Args, process: Process) -> Result<()> {
    let ctx = process.context(Executor::LbController, &args.common).await?;
    let listener = match args.servers_address {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.with_context(|| format!("--servers-address: cannot listen on {address}"))?)
        }
        None => None,
    };
    run_with(&ctx, &args, &process, listener).await;
    Ok(())
}

/// Runs on this API server until shutdown, and serves the lists of servers at this socket.
pub async fn run_with(ctx: &Context, args: &Args, process: &Process, server_lists: Option<TcpListener>) {
    let _copies = Copies::start(ctx, &process.tasks);
    let servers = Cache::start_with(ctx, CacheOptions::servers_with_state());
    let deployments = Cache::<VMDeployment>::start(ctx);
    let subsets = Subsets::new(&servers, &deployments);
    let envoy = EnvoyClasses::new(server_lists.is_some());
    if let Some(listener) = server_lists {
        let lists = server_lists::Lists {
            ctx: ctx.clone(),
            servers: servers.clone(),
            deployments: deployments.clone(),
            subsets: subsets.clone(),
        };
        process.tasks.spawn(server_lists::serve(lists, listener, envoy.routes()));
    }
    let kept = Arc::new(KeptServers::default());
    ctx.metrics.register(|registry| kept.register(registry));
    let drivers = classes::configured(&ctx.client, &envoy);
    let balancers = Balancers::configured(ctx, args, (&servers, &deployments), &subsets, &kept, drivers);
    let Observations { changes, synced } = balancers.start(ctx, process);
    let (suspects, suspected) = mpsc::unbounded();
    let reconciler = Arc::new(TrafficReconciler::new(ctx, &balancers, &kept, &subsets, suspects.clone()));
    process.tasks.spawn(follow_deletions(ctx.clone(), servers.clone(), reconciler.clone(), suspects.clone()));
    process.tasks.spawn(orphans::run(ctx.clone(), servers.clone(), balancers, suspected));
    tokio::select! {
        biased;
        _ = future::join(subsets.ready(), synced) => {}
        () = ctx.shutdown.cancelled() => return,
    }
    let (moved, has_moved) = mpsc::unbounded();
    process.tasks.spawn(RouteWeights::new(ctx, &deployments, &subsets).run());
    process.tasks.spawn(subsets.follow(ctx.clone(), moved));
    let changed = stream::select(changes, has_moved).map(move |server| {
        let key = ObjectRef::new(&server.name).within(&server.namespace);
        suspect(&suspects, server);
        key
    });
    Controller::new("traffic", &servers)
        .reconcile_on(changed)
        .concurrency(ctx.concurrency.saturating_mul(SERVERS_PER_WRITE))
        .run(ctx, reconciler, |server, reconciler| async move { reconciler.reconcile(server).await })
        .await;
}

/// A Server that was deleted may still be shown by a load balancer, if somebody has removed its finalizer.
async fn follow_deletions(
    ctx: Context,
    servers: Cache<Server>,
    reconciler: Arc<TrafficReconciler>,
    suspects: UnboundedSender<ServerRef>,
) {
    let mut deleted = std::pin::pin!(servers.deleted(&ctx));
    while let Some(server) = deleted.next().await {
        reconciler.forget(server.uid());
        suspect(&suspects, ServerRef::of(&server));
    }
}
