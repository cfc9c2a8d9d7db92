//! The program: its cache of Servers, the prober, the controller loop and the page of targets.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use berth_core::{
    api::{Executor, Server},
    second_opinion::SampledServer,
};
use berth_runtime::{Cache, CacheOptions, Context, Controller, Copies, Process, answer_questions};
use futures::{StreamExt, pin_mut};
use tokio::net::TcpListener;

use crate::{
    args::Args,
    discovery,
    metrics::ProbeMetrics,
    probe::{NetworkProbes, ProbeClient},
    prober::Prober,
    reconcile::Monitor,
    sight_keeper::SightKeeper,
};

/// Runs until shutdown.
///
/// # Errors
/// When no API server is configured, or the targets' address cannot be listened on.
pub async fn run(args: Args, process: Process) -> Result<()> {
    let ctx = process.context(Executor::MonitorController, &args.common).await?;
    run_with(&ctx, &args, &process, Arc::new(NetworkProbes)).await
}

/// Runs on this API server, with these probes, until shutdown.
///
/// # Errors
/// When the targets' address cannot be listened on.
pub async fn run_with(ctx: &Context, args: &Args, process: &Process, client: Arc<dyn ProbeClient>) -> Result<()> {
    let metrics = Arc::new(ProbeMetrics::default());
    ctx.metrics.register(|registry| metrics.register(registry));
    let (changed_servers, triggers) = futures::channel::mpsc::unbounded();
    let concurrency = usize::from(args.probe_concurrency);
    let (prober, probe_loop) =
        Prober::new(client, concurrency, changed_servers.clone(), metrics.clone(), ctx.clock.clone());
    let copies = Copies::start(ctx, &process.tasks);
    let sight = SightKeeper::new(ctx, &copies, &prober, changed_servers, metrics, args.blind_share);
    let servers = Cache::start_with(ctx, CacheOptions::servers_with_state());
    let monitor = Arc::new(Monitor::new(ctx, prober.clone()));
    if let Some(address) = args.targets_address {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("--targets-address: cannot listen on {address}"))?;
        tracing::info!(%address, "serving /targets");
        process.tasks.spawn(discovery::serve(ctx.shutdown.clone(), listener, servers.store()));
    }
    tokio::select! {
        biased;
        () = servers.ready() => {}
        () = ctx.shutdown.cancelled() => return Ok(()),
    }
    process.tasks.spawn(probe_loop.run(ctx.shutdown.clone()));
    process.tasks.spawn(sight.run());
    process.tasks.spawn(answer_questions(ctx.clone(), copies, move |server| look(prober.clone(), server)));
    process.tasks.spawn(forget_deleted(ctx.clone(), servers.clone(), monitor.clone()));
    Controller::new("monitor", &servers)
        .reconcile_on(triggers)
        .concurrency(ctx.concurrency)
        .run(ctx, monitor, |server, monitor| async move { monitor.reconcile(server).await })
        .await;
    Ok(())
}

/// Whether the machine of a Server that another copy has lost can be reached from here: it is probed anew.
async fn look(prober: Prober, server: SampledServer) -> Option<bool> {
    prober.reaches_machine(&server.uid).await
}

/// Ends the probes of deleted Servers.
async fn forget_deleted(ctx: Context, servers: Cache<Server>, monitor: Arc<Monitor>) {
    let deleted = servers.deleted(&ctx);
    pin_mut!(deleted);
    while let Some(server) = deleted.next().await {
        monitor.forget(server.uid());
    }
}
