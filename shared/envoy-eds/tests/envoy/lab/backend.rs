//! A small HTTP server that says who it is.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::State, routing::get};
use tokio::{net::TcpListener, sync::watch};

#[derive(Clone)]
struct Answers {
    name: String,
    requests: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
    released: watch::Receiver<bool>,
}

/// A server: `/` answers its name, `/slow` does so after [`Backend::release`], `/health` is not counted.
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
    release: watch::Sender<bool>,
}

impl Backend {
    /// A server at 127.0.1.`host`, called `web-<host>`.
    pub(crate) async fn start(host: u8) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 1, host), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (release, released) = watch::channel(false);
        let name = format!("web-{host}");
        let answers = Answers { name: name.clone(), requests: Arc::default(), waiting: Arc::default(), released };
        let (requests, waiting) = (answers.requests.clone(), answers.waiting.clone());
        let router = Router::new()
            .route("/", get(at_once))
            .route("/slow", get(slowly))
            .route("/health", get(async || "fine"))
            .with_state(answers);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { name, address, requests, waiting, release }
    }

    /// The requests that have arrived.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// The slow requests that wait for [`Backend::release`].
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Answers the slow requests.
    pub(crate) fn release(&self) {
        self.release.send_replace(true);
    }

    /// Slow requests are slow again.
    pub(crate) fn hold(&self) {
        self.release.send_replace(false);
    }
}

async fn at_once(State(answers): State<Answers>) -> String {
    answers.requests.fetch_add(1, Ordering::SeqCst);
    answers.name
}

async fn slowly(State(mut answers): State<Answers>) -> String {
    answers.requests.fetch_add(1, Ordering::SeqCst);
    answers.waiting.fetch_add(1, Ordering::SeqCst);
    // The sender is gone when the test is over.
    let _ = answers.released.wait_for(|released| *released).await;
    answers.waiting.fetch_sub(1, Ordering::SeqCst);
    answers.name
}
