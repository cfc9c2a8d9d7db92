//! A small HTTP server for static files, with which the example applications run.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
};
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
}

/// Serves until the process ends.
pub async fn serve(options: HttpdOptions) -> Result<()> {
    let delay = Duration::from_millis(options.delay_ms);
    let late = middleware::from_fn(move |request: Request, next: Next| async move {
        tokio::time::sleep(delay).await;
        next.run(request).await
    });
    let router = Router::new().fallback_service(ServeDir::new(&options.root)).layer(late);
    let listener = TcpListener::bind((options.address, options.port))
        .await
        .with_context(|| format!("cannot listen on {}:{}", options.address, options.port))?;
    axum::serve(listener, router).await.context("the server ended")
}
