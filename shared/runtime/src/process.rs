//! The life of a process: start, run until told to end, end in order.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use berth_core::api::Executor;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Arguments, CommonArgs, Context, ContextParts, Metrics, Readiness, SystemClock, client, logs, probes};

/// How long work may take to end after a signal. Kubernetes kills after 30 s.
const GRACE: Duration = Duration::from_secs(25);

/// How long the rest may take after the work.
const LAST: Duration = Duration::from_secs(2);

/// What every process has.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// What has to be there before it is ready.
    pub readiness: Readiness,
    /// Cancelled when it is to end.
    pub shutdown: CancellationToken,
    /// What has to be finished before it ends, within two seconds after the rest.
    pub tasks: TaskTracker,
}

impl Process {
    /// What a controller works with. Connects to nothing yet.
    ///
    /// # Errors
    /// When it is not said where the API server is, or the kubeconfig cannot be used.
    pub async fn context(&self, executor: Executor, args: &CommonArgs) -> anyhow::Result<Context> {
        let call = Duration::from_secs(u64::from(args.call_timeout));
        let parts = ContextParts {
            client: client::build(args.kubeconfig.as_deref(), call).await?,
            executor,
            instance: args.instance.clone(),
            identities: args.identities(),
            clock: Arc::new(SystemClock),
            lock_duration: Duration::from_secs(u64::from(args.lock_seconds.unsigned_abs())),
            concurrency: args.concurrency,
        };
        Ok(Context::new(self, parts))
    }
}

/// The `main` of a binary: reads the arguments, starts logs and pages, and runs `body` until it ends or SIGTERM or
/// SIGINT comes. Then `body` has 25 s to end by itself. Fails when `body` does, or when it does not end in time.
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
    // Fails only when a provider is installed already, which is then the one that this workspace is built with.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")?;
    let result = runtime.block_on(async {
        let process = Process { shutdown: on_signal()?, ..Process::default() };
        serve(args.common(), &process).await?;
        let result = until_shutdown(body(args, process.clone()), process.shutdown, GRACE).await;
        process.tasks.close();
        // What is left after that, as an Event that nobody takes, is given up.
        let _ = tokio::time::timeout(LAST, process.tasks.wait()).await;
        result
    });
    runtime.shutdown_timeout(LAST);
    result
}

/// Cancelled by SIGTERM and SIGINT.
fn on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        tracing::info!("shutting down");
        token.cancel();
    });
    Ok(shutdown)
}

/// Serves the pages for as long as the process lives.
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

/// Runs `body` to its end, which has to come in time after the shutdown.
async fn until_shutdown(
    body: impl Future<Output = anyhow::Result<()>>,
    shutdown: CancellationToken,
    grace: Duration,
) -> anyhow::Result<()> {
    let mut body = std::pin::pin!(body);
    tokio::select! {
        result = &mut body => {
            // Whatever else runs (as the writing of Events) ends with it.
            shutdown.cancel();
            return result;
        }
        () = shutdown.cancelled() => (),
    }
    match tokio::time::timeout(grace, body).await {
        Ok(result) => result,
        Err(_) => anyhow::bail!("work did not end within {} s of the signal to end", grace.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_the_work_but_not_for_ever() {
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let orderly = async move {
            token.cancelled().await;
            tokio::time::sleep(Duration::from_secs(20)).await;
            Ok(())
        };
        shutdown.cancel();
        assert!(until_shutdown(orderly, shutdown.clone(), GRACE).await.is_ok());
        let error = until_shutdown(std::future::pending(), shutdown, GRACE).await.unwrap_err();
        assert!(error.to_string().contains("25 s"), "{error}");
    }

    #[tokio::test]
    async fn work_that_ends_ends_the_rest() {
        let shutdown = CancellationToken::new();
        let failed = until_shutdown(async { anyhow::bail!("no") }, shutdown.clone(), GRACE).await;
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert!(shutdown.is_cancelled());
    }
}
