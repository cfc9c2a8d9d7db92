//! A server under load: this program again, as a process of its own.

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
    metrics::Metrics,
    router::{Limits, Webhook, router},
    serve::{Ending, serve as serve_tls},
    tls::{Bundle, acceptor},
};

use crate::Result;

/// Starts this program as a server.
pub(crate) const ARGUMENT: &str = "--serve";

/// What is served.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// The webhook.
    Webhook,
    /// A handler that sends the body back.
    Echo,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Echo => "echo",
        }
    }

    fn router(self) -> Router {
        match self {
            Self::Webhook => {
                let metrics = Metrics::register(&mut Registry::default());
                let (ids, limits) = (Identities::default(), Limits::default());
                router(Arc::new(Webhook { ids, clock: Box::new(Timestamp::now), limits, metrics }))
            }
            Self::Echo => Router::new().route("/mutate", post(async |body: Bytes| body)),
        }
    }
}

/// A running server; it ends with this value, or with this process.
pub(crate) struct Subject {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The authority that signed its certificate.
    pub(crate) ca_pem: String,
}

impl Subject {
    /// Starts it and waits until it listens.
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, kind.name()])
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

    /// CPU time that it has used, in user and system mode.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        // Linux counts these in hundredths of a second on every architecture that it shows them to programs.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit(')').next().ok_or("no fields")?.split_whitespace().skip(11).take(2);
        let ticks = fields.map(str::parse::<f64>).sum::<std::result::Result<f64, _>>()?;
        Ok(ticks / 100.0)
    }

    /// Its resident memory.
    pub(crate) fn resident_megabytes(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kibibytes: f64 = line.split_whitespace().next().ok_or("no value")?.parse()?;
        Ok(kibibytes / 1024.0)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // The end of its standard input ends it; this is for the case that it hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until standard input ends. Says first where, and which authority to trust.
pub(crate) fn serve(name: &str) -> Result<()> {
    let kinds = [Kind::Webhook, Kind::Echo];
    let kind = kinds.into_iter().find(|kind| kind.name() == name).ok_or("no such server")?;
    let bundle = Bundle::generate(&["localhost".to_owned()], Timestamp::now())?;
    let tls = acceptor(bundle.tls_crt.as_bytes(), bundle.tls_key.as_bytes())?;
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
    let ending = Ending { delay: Duration::ZERO, drain: Duration::from_secs(1) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve_tls(listener, tls, kind.router(), ending, shutdown))?;
    Ok(())
}
