//! A server of artifacts on 127.0.0.1.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_LENGTH},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};

use crate::archive::sha256;

/// In how many parts a file is sent that takes its time.
const PARTS: u32 = 20;

/// A served file, as a manifest declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Where machines download it.
    pub url: String,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

#[derive(Debug, Default)]
struct Files {
    content: BTreeMap<String, Bytes>,
    requests: BTreeMap<String, u64>,
    /// How long each download takes; at once without an entry.
    times: BTreeMap<String, Duration>,
}

/// Serves files from memory over HTTP until it is dropped.
#[derive(Debug)]
pub struct Artifacts {
    address: SocketAddr,
    files: Arc<Mutex<Files>>,
    server: JoinHandle<()>,
}

impl Artifacts {
    /// Starts the server on this port of 127.0.0.1; port 0 stands for a free one.
    ///
    /// # Errors
    /// When the port is in use.
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

    /// Serves `bytes` under this name; they replace an earlier file.
    #[expect(clippy::must_use_candidate, reason = "a caller that replaces a file knows its address")]
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Artifact {
        let sha256 = sha256(&bytes);
        self.files.lock().content.insert(name.to_owned(), bytes.into());
        Artifact { url: self.url(name), sha256 }
    }

    /// From now on each download of this name takes so long, evenly.
    pub fn slow_down(&self, name: &str, time: Duration) {
        self.files.lock().times.insert(name.to_owned(), time);
    }

    /// Removes the file of this name; requests are answered with 404.
    pub fn remove(&self, name: &str) {
        self.files.lock().content.remove(name);
    }

    /// The number of requests for this name, whether it was found or not.
    #[must_use]
    pub fn requests(&self, name: &str) -> u64 {
        self.files.lock().requests.get(name).copied().unwrap_or(0)
    }

    /// The URL of this name, whether it is served or not.
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

async fn serve(State(files): State<Arc<Mutex<Files>>>, Path(name): Path<String>) -> Response {
    let mut files = files.lock();
    *files.requests.entry(name.clone()).or_default() += 1;
    match (files.content.get(&name), files.times.get(&name)) {
        (Some(bytes), Some(time)) => slowly(bytes.clone(), *time),
        (Some(bytes), None) => bytes.clone().into_response(),
        (None, _) => (StatusCode::NOT_FOUND, format!("no artifact {name}\n")).into_response(),
    }
}

/// An answer that takes so long.
fn slowly(bytes: Bytes, time: Duration) -> Response {
    let length = bytes.len();
    let part = length.div_ceil(PARTS as usize).max(1);
    let starts = stream::iter((0..length).step_by(part));
    let parts = starts.then(move |start| {
        let part = bytes.slice(start..(start + part).min(length));
        async move {
            sleep(time / PARTS).await;
            Ok::<_, Infallible>(part)
        }
    });
    ([(CONTENT_LENGTH, length)], Body::from_stream(parts)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_served_counted_replaced_and_removed() {
        let artifacts = Artifacts::start(0).await.unwrap();
        let get = async |url: &str| {
            // reqwest needs a crypto provider also without TLS.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let answer = reqwest::get(url).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let one = artifacts.put("one", b"abc".to_vec());
        assert_eq!(one.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(get(&one.url).await, (200, "abc".to_owned()));
        artifacts.put("one", b"def".to_vec());
        assert_eq!(get(&one.url).await, (200, "def".to_owned()));
        artifacts.slow_down("one", Duration::from_millis(100));
        let start = std::time::Instant::now();
        assert_eq!(get(&one.url).await, (200, "def".to_owned()));
        assert!(start.elapsed() >= Duration::from_millis(10), "{:?}", start.elapsed());
        artifacts.remove("one");
        assert_eq!(get(&one.url).await.0, 404);
        assert_eq!(artifacts.requests("one"), 4);
        assert_eq!(artifacts.requests("two"), 0);
        let taken = Artifacts::start(artifacts.address.port()).await.unwrap_err();
        assert!(format!("{taken:#}").contains("in use"), "{taken:#}");
    }
}
