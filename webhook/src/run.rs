//! Runs the program: certificate, listener, readiness.

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use berth_runtime::{CommonArgs, Process};
use k8s_openapi::jiff::Timestamp;
use std::{net::TcpListener, sync::Arc, time::Duration};

use crate::{
    args::{TlsArgs, WebhookArgs},
    metrics::WebhookMetrics,
    router::{Webhook, router},
    serve::{ShutdownTimes, serve},
    tls::{CertificateFiles, ClientAuthority, SecretSource},
};

/// How often the certificate's files are polled. Kubernetes itself takes up to a minute to update a mounted Secret, so this
/// delay adds little.
const FILE_POLL_PERIOD: Duration = Duration::from_secs(5);

/// Runs the webhook until the process shuts down and every request in flight has its response.
pub async fn run(args: WebhookArgs, common: CommonArgs, process: Process) -> anyhow::Result<()> {
    let ready = process.readiness.register("certificate and listener");
    let mut registered = None;
    process.metrics.register(|registry| registered = Some(WebhookMetrics::register(registry)));
    let metrics = registered.context("the metrics could not be registered")?;
    let listener = TcpListener::bind(args.bind).with_context(|| format!("--bind: cannot listen on {}", args.bind))?;
    let address = listener.local_addr().unwrap_or(args.bind);
    // No server is running yet that would notice the shutdown.
    let Some(tls) = process.shutdown.run_until_cancelled(tls_config(&args.tls, &common, &process)).await else {
        return Ok(());
    };
    let webhook = Webhook { ids: common.identities(), clock: Box::new(Timestamp::now), limits: args.limits(), metrics };
    let times = ShutdownTimes { delay: args.shutdown_delay, drain_timeout: args.drain_timeout };
    tracing::info!(%address, "serving POST /mutate");
    ready.set(true);
    serve(listener, tls?, router(Arc::new(webhook)), args.connection_limits(), times, process.shutdown)
        .await
        .context("the listener failed")
}

async fn tls_config(args: &TlsArgs, common: &CommonArgs, process: &Process) -> anyhow::Result<RustlsConfig> {
    let clients = match &args.client_ca {
        Some(file) => Some(ClientAuthority::new(file.clone()).load(FILE_POLL_PERIOD, process.shutdown.clone()).await?),
        None => None,
    };
    match (&args.tls_cert, &args.tls_key, &args.tls_secret) {
        (Some(certificate), Some(key), _) => {
            CertificateFiles::new(certificate.clone(), key.clone())
                .for_clients(clients)
                .serve(FILE_POLL_PERIOD, process.shutdown.clone())
                .await
        }
        (_, _, Some(secret)) => {
            let call = Duration::from_secs(u64::from(common.call_timeout));
            let client = berth_runtime::build_client(common.kubeconfig.as_deref(), call).await?;
            let source = SecretSource {
                client,
                namespace: common.berth_namespace.clone(),
                secret: secret.clone(),
                service: args.service.clone(),
                configuration: args.webhook_configuration.clone(),
                clients,
            };
            source.serve(process).await
        }
        _ => {
            anyhow::bail!("set --tls-cert and --tls-key, or --tls-secret: the apiserver calls webhooks by HTTPS only")
        }
    }
}
