//! A small server of static files, the example application's run time.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
};
use tokio::net::TcpListener;
use tower_http::services::ServeDir;

/// What to serve and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// IP address to listen on.
    #[arg(long)]
    pub address: IpAddr,
    /// TCP port to listen on.
    #[arg(long)]
    pub port: u16,
    /// Folder with the files.
    #[arg(long)]
    pub root: PathBuf,
    /// Answer every request this many milliseconds late.
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
}

/// Serves until the process ends.
pub async fn serve(options: Options) -> Result<()> {
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
