//! A server of artifacts on loopback.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::archive::sha256;

/// A file that is served: what a manifest says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Where machines fetch it.
    pub url: String,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

#[derive(Debug, Default)]
struct Files {
    content: BTreeMap<String, Bytes>,
    requests: BTreeMap<String, u64>,
}

/// Serves files from memory over HTTP until it is dropped.
#[derive(Debug)]
pub struct Artifacts {
    address: SocketAddr,
    files: Arc<Mutex<Files>>,
    server: JoinHandle<()>,
}

impl Artifacts {
    /// Starts the server on this port of 127.0.0.1; on a free one for port 0.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("serve artifacts at 127.0.0.1:{port}: end the program that uses this port"))?;
        let address = listener.local_addr()?;
        let files = Arc::new(Mutex::new(Files::default()));
        let router = Router::new().route("/{name}", get(serve)).with_state(Arc::clone(&files));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the server of artifacts ended");
            }
        });
        Ok(Self { address, files, server })
    }

    /// Serves `bytes` under this name, in place of what had it.
    #[expect(clippy::must_use_candidate, reason = "whoever replaces a file knows its address")]
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Artifact {
        let sha256 = sha256(&bytes);
        lock(&self.files).content.insert(name.to_owned(), bytes.into());
        Artifact { url: self.url(name), sha256 }
    }

    /// Answers 404 under this name from now on.
    pub fn remove(&self, name: &str) {
        lock(&self.files).content.remove(name);
    }

    /// How often this name was asked for, found or not.
    #[must_use]
    pub fn requests(&self, name: &str) -> u64 {
        lock(&self.files).requests.get(name).copied().unwrap_or(0)
    }

    /// The address of a name, served or not.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }
}

impl Drop for Artifacts {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(State(files): State<Arc<Mutex<Files>>>, Path(name): Path<String>) -> Response {
    let mut files = lock(&files);
    *files.requests.entry(name.clone()).or_default() += 1;
    match files.content.get(&name) {
        Some(bytes) => bytes.clone().into_response(),
        None => (StatusCode::NOT_FOUND, format!("no artifact {name}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_served_counted_replaced_and_removed() {
        let artifacts = Artifacts::start(0).await.unwrap();
        let get = async |url: &str| {
            // reqwest wants a provider also where it speaks no TLS.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let answer = reqwest::get(url).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let one = artifacts.put("one", b"abc".to_vec());
        assert_eq!(one.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(get(&one.url).await, (200, "abc".to_owned()));
        artifacts.put("one", b"def".to_vec());
        assert_eq!(get(&one.url).await, (200, "def".to_owned()));
        artifacts.remove("one");
        assert_eq!(get(&one.url).await.0, 404);
        assert_eq!(artifacts.requests("one"), 3);
        assert_eq!(artifacts.requests("two"), 0);
        let taken = Artifacts::start(artifacts.address.port()).await.unwrap_err();
        assert!(format!("{taken:#}").contains("in use"), "{taken:#}");
    }
}
