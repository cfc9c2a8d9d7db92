//! The life of a process: start, run until a signal, orderly shutdown.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Arguments, CommonArgs, Metrics, Readiness, logs, probes};

/// How long work may take to end after a signal: shorter than the 30 s after which Kubernetes kills a pod.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(25);

/// How long the last Events and the runtime may take after the work: what is left of the 30 s, with a reserve.
const CLEANUP_LIMIT: Duration = Duration::from_secs(2);

/// What every process has. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Conditions for the process to be ready.
    pub readiness: Readiness,
    /// Cancelled when the process has to end.
    pub shutdown: CancellationToken,
    /// Tasks that have to finish before the process ends; they get two seconds after the work has ended.
    pub tasks: TaskTracker,
}

/// The `main` of a binary: parses the arguments, starts logging and the HTTP endpoints, and runs `body` until it returns or the
/// process receives SIGTERM or SIGINT. Then `body` has 25 s to return. Fails if `body` fails or does not return in time.
pub fn run<A, F, Fut>(body: F) -> ExitCode
where
    A: Arguments,
    F: FnOnce(A, Process) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let args = A::parse();
    match start(args, body) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start<A, F, Fut>(args: A, body: F) -> anyhow::Result<()>
where
    A: Arguments,
    F: FnOnce(A, Process) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    logs::start(args.common())?;
    // Fails only if a provider is installed already: the same one, because the workspace is built with one only.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    let result = runtime.block_on(async {
        let process = Process { shutdown: on_signal()?, ..Process::default() };
        serve(args.common(), &process).await?;
        let result = until_shutdown(body(args, process.clone()), process.shutdown, SHUTDOWN_LIMIT).await;
        process.tasks.close();
        // Events that cannot be written in this time are given up.
        let _ = tokio::time::timeout(CLEANUP_LIMIT, process.tasks.wait()).await;
        result
    });
    runtime.shutdown_timeout(CLEANUP_LIMIT);
    result
}

/// A token that SIGTERM and SIGINT cancel.
fn on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        tracing::info!("shutting down");
        token.cancel();
    });
    Ok(shutdown)
}

/// Serves the HTTP endpoints as long as the process lives.
async fn serve(args: &CommonArgs, process: &Process) -> anyhow::Result<()> {
    let address = args.http_address;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("--http-address: cannot listen on {address}"))?;
    let bound = listener.local_addr().unwrap_or(address);
    tracing::info!(address = %bound, "serving /healthz, /readyz and /metrics");
    let pages = probes::router(process.metrics.clone(), process.readiness.clone(), process.shutdown.clone());
    tokio::spawn(async move { axum::serve(listener, pages).await });
    Ok(())
}

/// Runs `body` until it returns, which it must do within `grace` after the shutdown.
async fn until_shutdown(
    body: impl Future<Output = anyhow::Result<()>>,
    shutdown: CancellationToken,
    grace: Duration,
) -> anyhow::Result<()> {
    let mut body = std::pin::pin!(body);
    tokio::select! {
        biased;
        result = &mut body => {
            // Other tasks, like the one that writes Events, end with it.
            shutdown.cancel();
            return result;
        }
        () = shutdown.cancelled() => (),
    }
    match tokio::time::timeout(grace, body).await {
        Ok(result) => result,
        Err(_) => anyhow::bail!("the work did not end within {} s of the shutdown signal", grace.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_the_work_up_to_its_limit() {
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let orderly = async move {
            token.cancelled().await;
            tokio::time::sleep(Duration::from_secs(20)).await;
            Ok(())
        };
        shutdown.cancel();
        assert!(until_shutdown(orderly, shutdown.clone(), SHUTDOWN_LIMIT).await.is_ok());
        let error = until_shutdown(std::future::pending(), shutdown, SHUTDOWN_LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("25 s"), "{error}");
    }

    #[tokio::test]
    async fn shutdown_begins_when_the_work_ends() {
        let shutdown = CancellationToken::new();
        let failed = until_shutdown(async { anyhow::bail!("no") }, shutdown.clone(), SHUTDOWN_LIMIT).await;
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert!(shutdown.is_cancelled());
    }
}
