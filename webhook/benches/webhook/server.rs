//! A server under load: this program, started again as a process of its own.

use axum::{Router, body::Bytes, routing::post};
use berth_core::identity::Identities;
use k8s_openapi::jiff::Timestamp;
use prometheus_client::registry::Registry;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use webhook::{
    body::RequestLimits,
    connections::ConnectionLimits,
    metrics::WebhookMetrics,
    router::{Webhook, router},
    serve::{ShutdownTimes, serve as serve_tls},
    tls::{Bundle, reloadable_config},
};

use crate::BenchResult;

/// The argument that starts this program as a server.
pub(crate) const ARGUMENT: &str = "--serve";

/// The handler that a server runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BenchHandler {
    /// The webhook's handler.
    Webhook,
    /// A handler that sends the body back.
    Echo,
}

impl BenchHandler {
    fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Echo => "echo",
        }
    }

    fn router(self) -> Router {
        match self {
            Self::Webhook => {
                let metrics = WebhookMetrics::register(&mut Registry::default());
                let (ids, limits) = (Identities::default(), RequestLimits::default());
                router(Arc::new(Webhook { ids, clock: Box::new(Timestamp::now), limits, metrics }))
            }
            Self::Echo => Router::new().route("/mutate", post(async |body: Bytes| body)),
        }
    }
}

/// A running server. It ends when this value is dropped, or with this process.
pub(crate) struct BenchServer {
    child: Child,
    /// The address that it listens on.
    pub(crate) address: SocketAddr,
    /// The certificate of the authority that issued its certificate, as PEM.
    pub(crate) ca_pem: String,
}

impl BenchServer {
    /// Starts a server and waits until it listens.
    pub(crate) fn start(handler: BenchHandler) -> BenchResult<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, handler.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut address = String::new();
        lines.read_line(&mut address)?;
        let mut ca_pem = String::new();
        while !ca_pem.contains("END CERTIFICATE") && lines.read_line(&mut ca_pem)? > 0 {}
        Ok(Self { child, address: address.trim().parse()?, ca_pem })
    }

    /// CPU time that the server has used, in user and system mode, in seconds.
    pub(crate) fn cpu_seconds(&self) -> BenchResult<f64> {
        // Linux reports these in hundredths of a second (USER_HZ) on every architecture.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit(')').next().ok_or("no fields")?.split_whitespace().skip(11).take(2);
        let ticks = fields.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / 100.0)
    }

    /// Resident memory of the server, in MiB.
    pub(crate) fn resident_megabytes(&self) -> BenchResult<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kibibytes: f64 = line.split_whitespace().next().ok_or("no value")?.parse()?;
        Ok(kibibytes / 1024.0)
    }
}

impl Drop for BenchServer {
    fn drop(&mut self) {
        // The server ends with its standard input; killing it helps when it hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until standard input ends. Prints first the address, then the certificate of the authority to trust.
pub(crate) fn serve(name: &str) -> BenchResult<()> {
    let handlers = [BenchHandler::Webhook, BenchHandler::Echo];
    let handler = handlers.into_iter().find(|handler| handler.name() == name).ok_or("no such server")?;
    let bundle = Bundle::generate(&["localhost".to_owned()], Timestamp::now())?;
    let tls = reloadable_config(bundle.tls_crt.as_bytes(), bundle.tls_key.as_bytes(), None)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    {
        let mut out = std::io::stdout().lock();
        write!(out, "{}\n{}", listener.local_addr()?, bundle.ca_crt)?;
        out.flush()?;
    }
    let shutdown = CancellationToken::new();
    let end = shutdown.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.cancel();
    });
    let times = ShutdownTimes { delay: Duration::ZERO, drain_timeout: Duration::from_secs(1) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve_tls(listener, tls, handler.router(), ConnectionLimits::default(), times, shutdown))?;
    Ok(())
}
