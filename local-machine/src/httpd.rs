//! A small HTTP server for static files, with which the example applications run.

use std::{
    fs::File,
    io::Write as _,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tower_http::services::ServeDir;

/// Arguments of the HTTP server.
#[derive(Clone, Debug, clap::Args)]
pub struct HttpdOptions {
    /// IP address to listen on.
    #[arg(long)]
    pub address: IpAddr,
    /// TCP port to listen on.
    #[arg(long)]
    pub port: u16,
    /// Folder with the files.
    #[arg(long)]
    pub root: PathBuf,
    /// Delay every response by this many milliseconds.
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Append a line for every request that arrives: milliseconds since 1970, and the request's path and query.
    #[arg(long)]
    pub access_log: Option<PathBuf>,
}

/// The longest time for which a request may ask to be delayed.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// How long the request wants to be delayed: `?wait=1500`, in milliseconds.
fn wanted_delay(request: &Request) -> Duration {
    let pairs = request.uri().query().unwrap_or_default().split('&');
    let wait = pairs.filter_map(|pair| pair.strip_prefix("wait=")).find_map(|ms| ms.parse().ok());
    Duration::from_millis(wait.unwrap_or(0)).min(MAX_WAIT)
}

/// Writes a line for a request. A log that cannot be written must not fail the request.
fn log(file: &Mutex<File>, request: &Request) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let line = format!("{now} {}\n", request.uri());
    if let Err(error) = file.lock().write_all(line.as_bytes()) {
        eprintln!("cannot write the access log: {error}");
    }
}

/// Serves until the process ends.
pub async fn serve(options: HttpdOptions) -> Result<()> {
    let delay = Duration::from_millis(options.delay_ms);
    let access_log = options.access_log.as_ref().map(|path| {
        let opened = File::options().create(true).append(true).open(path);
        opened.with_context(|| format!("cannot open {}", path.display()))
    });
    let access_log = Arc::new(access_log.transpose()?.map(Mutex::new));
    let late = middleware::from_fn(move |request: Request, next: Next| {
        let access_log = Arc::clone(&access_log);
        async move {
            if let Some(file) = access_log.as_ref() {
                log(file, &request);
            }
            tokio::time::sleep(delay + wanted_delay(&request)).await;
            next.run(request).await
        }
    });
    let router = Router::new().fallback_service(ServeDir::new(&options.root)).layer(late);
    let listener = TcpListener::bind((options.address, options.port))
        .await
        .with_context(|| format!("cannot listen on {}:{}", options.address, options.port))?;
    axum::serve(listener, router).await.context("the server ended")
}
