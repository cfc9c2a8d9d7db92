//! Watches, and what a change of a slice means for Servers.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use berth_core::api::{Executor, Server};
use berth_runtime::{Cache, Context, Controller, Process};
use futures::{StreamExt, channel::mpsc::UnboundedSender, future, pin_mut};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api,
    runtime::{WatchStreamExt, reflector::ObjectRef, watcher},
};
use tokio::sync::mpsc;

use crate::{
    Now,
    args::Args,
    orphans,
    reconcile::Traffic,
    slices::{EndpointSlices, ServerId},
};

/// Runs until shutdown.
///
/// # Errors
/// When it is not said where the API server is.
pub async fn run(args: Args, process: Process) -> Result<()> {
    let ctx = process.context(Executor::LbController, &args.common).await?;
    let clock = ctx.clock.clone();
    let now: Now = Arc::new(move || clock.now());
    let window = Duration::from_millis(u64::from(args.batch_window_ms));
    let slices = Arc::new(EndpointSlices::new(ctx.client.clone(), now, window));
    let (servers, traffic) = (Cache::start_begun(&ctx), Arc::new(Traffic::new(&ctx, &slices)));
    let (touched, keys) = futures::channel::mpsc::unbounded();
    let (suspects, suspected) = mpsc::unbounded_channel();
    let (known, is_known) = tokio::sync::oneshot::channel();
    process.tasks.spawn(watch(ctx.clone(), slices.clone(), touched, suspects.clone(), known));
    process.tasks.spawn(retired(ctx.clone(), servers.clone(), traffic.clone(), suspects));
    process.tasks.spawn(orphans::run(ctx.clone(), servers.clone(), slices, suspected));
    tokio::select! {
        _ = future::join(servers.ready(), is_known) => {}
        () = ctx.shutdown.cancelled() => return Ok(()),
    }
    Controller::new("traffic", &servers)
        .also_on(keys)
        .concurrency(ctx.concurrency.saturating_mul(WAITING))
        .run(&ctx, traffic, |server, traffic| async move { traffic.reconcile(server).await })
        .await;
    Ok(())
}

/// How many times as many Servers as said are worked on at once: most of them only wait for the same write of a slice.
const WAITING: u16 = 8;

/// Follows the slices, and names the Servers whose endpoints have changed under another's hand.
async fn watch(
    ctx: Context,
    slices: Arc<EndpointSlices>,
    touched: UnboundedSender<ObjectRef<Server>>,
    suspects: mpsc::UnboundedSender<ServerId>,
    known: tokio::sync::oneshot::Sender<()>,
) {
    let ready = ctx.readiness.register("endpointslices");
    let mut known = Some(known);
    let api = Api::<EndpointSlice>::all(ctx.client.clone());
    let events = watcher(api, EndpointSlices::watch_config()).default_backoff();
    pin_mut!(events);
    loop {
        let event = tokio::select! {
            () = ctx.shutdown.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(event)) => {
                for server in slices.observe(&event) {
                    let key = ObjectRef::new(&server.name).within(&server.namespace);
                    // At shutdown nobody reads them any more.
                    let _ = touched.unbounded_send(key);
                    let _ = suspects.send(server);
                }
                if matches!(event, watcher::Event::InitDone) {
                    ready.set(true);
                    known.take().map(|known| known.send(()));
                }
            }
            Some(Err(error)) => tracing::warn!(%error, "the watch of EndpointSlices failed; beginning it again"),
            None => return,
        }
    }
}

/// Servers that are gone: whatever still shows them is a suspect.
async fn retired(
    ctx: Context,
    servers: Cache<Server>,
    traffic: Arc<Traffic>,
    suspects: mpsc::UnboundedSender<ServerId>,
) {
    let gone = servers.gone(&ctx);
    pin_mut!(gone);
    while let Some(server) = gone.next().await {
        let Some(id) = ServerId::of(&server) else { continue };
        traffic.forget(&id.uid);
        // At shutdown nobody reads them any more.
        let _ = suspects.send(id);
    }
}
