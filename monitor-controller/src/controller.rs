//! Watches, probes, and the page of targets.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::{Json, Router, http::StatusCode, routing::get};
use berth_core::api::{Executor, Server};
use berth_runtime::{Cache, Context, Controller, Process};
use futures::{StreamExt, pin_mut};
use kube::runtime::reflector::Store;
use tokio::net::TcpListener;

use crate::{
    Now,
    args::Args,
    discovery::{self, TargetGroup},
    metrics::ProbeMetrics,
    prober::Prober,
    reconcile::Monitor,
};

/// Runs until shutdown.
///
/// # Errors
/// When it is not said where the API server is, or the targets' address cannot be listened on.
pub async fn run(args: Args, process: Process) -> Result<()> {
    let ctx = process.context(Executor::MonitorController, &args.common).await?;
    let metrics = Arc::new(ProbeMetrics::default());
    ctx.metrics.register(|registry| metrics.register(registry));
    let clock = ctx.clock.clone();
    let now: Now = Arc::new(move || clock.now());
    let (news, keys) = futures::channel::mpsc::unbounded();
    let (prober, work) = Prober::new(usize::from(args.probe_concurrency), news, metrics, now);
    let (servers, monitor) = (Cache::start_begun(&ctx), Arc::new(Monitor::new(&ctx, prober)));
    if let Some(address) = args.targets_address {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("--targets-address: cannot listen on {address}"))?;
        tracing::info!(%address, "serving /targets");
        process.tasks.spawn(serve(ctx.clone(), listener, pages(&servers)));
    }
    tokio::select! {
        () = servers.ready() => {}
        () = ctx.shutdown.cancelled() => return Ok(()),
    }
    process.tasks.spawn(work.run(ctx.shutdown.clone()));
    process.tasks.spawn(retired(ctx.clone(), servers.clone(), monitor.clone()));
    Controller::new("monitor", &servers)
        .also_on(keys)
        .concurrency(ctx.concurrency)
        .run(&ctx, monitor, |server, monitor| async move { monitor.reconcile(server).await })
        .await;
    Ok(())
}

/// Servers that are gone are probed no longer.
async fn retired(ctx: Context, servers: Cache<Server>, monitor: Arc<Monitor>) {
    let gone = servers.gone(&ctx);
    pin_mut!(gone);
    while let Some(server) = gone.next().await {
        monitor.forget(server.metadata.uid.as_deref().unwrap_or_default());
    }
}

fn pages(servers: &Cache<Server>) -> Router {
    let store = servers.store();
    Router::new().route("/targets", get(move || async move { targets(&store).await }))
}

/// All targets. While the first list of Servers is not there yet there is no answer, because an empty one would make
/// Prometheus forget every target.
async fn targets(store: &Store<Server>) -> Result<Json<Vec<TargetGroup>>, (StatusCode, &'static str)> {
    if tokio::time::timeout(std::time::Duration::ZERO, store.wait_until_ready()).await.is_err() {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "the Servers are not known yet\n"));
    }
    let mut groups: Vec<_> = store.state().iter().filter_map(|server| discovery::target(server)).collect();
    groups.sort_by(|a, b| a.targets.cmp(&b.targets));
    Ok(Json(groups))
}

async fn serve(ctx: Context, listener: TcpListener, pages: Router) {
    let shutdown = ctx.shutdown.clone();
    let served = axum::serve(listener, pages).with_graceful_shutdown(async move { shutdown.cancelled().await }).await;
    if let Err(error) = served {
        tracing::error!(%error, "/targets is served no longer");
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde_json::json;
    use kube::runtime::{reflector, watcher::Event};

    use super::*;

    #[tokio::test]
    async fn no_target_is_forgotten_while_the_servers_are_not_known() {
        let (store, mut writer) = reflector::store::<Server>();
        assert_eq!(targets(&store).await.unwrap_err().0, StatusCode::SERVICE_UNAVAILABLE);
        let mut server: Server = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "web-0", "namespace": "shop"},
            "spec": {"machine": {"className": "c"}, "monitoring": {"port": 9100}},
            "status": {"machine": {"phase": "Running", "address": "10.0.0.1"}, "monitoring": {"phase": "Bound", "digest": ""}}
        }))
        .unwrap();
        let digest = berth_core::lifecycle::monitoring_digest(&server).unwrap();
        server.status.as_mut().unwrap().monitoring.as_mut().unwrap().digest = digest;
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(server));
        writer.apply_watcher_event(&Event::InitDone);
        let Json(groups) = targets(&store).await.unwrap();
        assert_eq!(groups[0].targets, ["10.0.0.1:9100"]);
    }
}
