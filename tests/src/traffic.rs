//! An open-loop client: it sends at a constant rate, whatever becomes of the requests, and knows what became of each.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// What requests for the newest version have.
const CANARY: HeaderName = HeaderName::from_static("x-canary");
/// The time between two requests: a hundred each second.
const PERIOD: Duration = Duration::from_millis(10);
/// Every hundredth request takes this long.
const LONG: Duration = Duration::from_millis(1500);
const LONG_EVERY: u64 = 100;
/// The limit of one request, which is never reached unless something is wrong.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A request that did not succeed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its number.
    pub id: u64,
    /// Since the client began.
    pub after: Duration,
    /// A status, or why there was none.
    pub why: String,
}

/// What became of all requests.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// How often each text was answered.
    pub texts: BTreeMap<String, u64>,
    /// The requests that did not succeed.
    pub failures: Vec<Failure>,
}

impl Answers {
    /// The requests that were answered.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.texts.values().sum()
    }
}

/// A client that sends until it is stopped.
#[derive(Debug)]
pub struct Client {
    answers: Arc<Mutex<Answers>>,
    stop: CancellationToken,
    sending: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Begins to send requests to this address. Half of them use a new connection.
    #[must_use]
    pub fn start(address: SocketAddr) -> Self {
        Self::start_with(address, HeaderMap::new())
    }

    /// The same, with the header `x-canary` in each request.
    #[must_use]
    pub fn start_for_canary(address: SocketAddr) -> Self {
        Self::start_with(address, HeaderMap::from_iter([(CANARY, HeaderValue::from_static("yes"))]))
    }

    fn start_with(address: SocketAddr, headers: HeaderMap) -> Self {
        let (answers, stop) = (Arc::default(), CancellationToken::new());
        let sending = tokio::spawn(send(address, headers, Arc::clone(&answers), stop.clone()));
        Self { answers, stop, sending }
    }

    /// What is known so far.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.answers.lock().clone()
    }

    /// Stops, and waits for the requests that are under way.
    pub async fn stop(self) -> Answers {
        self.stop.cancel();
        if let Err(error) = self.sending.await {
            let failure = Failure { id: 0, after: Duration::ZERO, why: format!("the client ended: {error}") };
            self.answers.lock().failures.push(failure);
        }
        self.answers.lock().clone()
    }
}

async fn send(address: SocketAddr, headers: HeaderMap, answers: Arc<Mutex<Answers>>, stop: CancellationToken) {
    let client = |idle: usize| {
        let client = reqwest::Client::builder().no_proxy().timeout(TIME_LIMIT).pool_max_idle_per_host(idle);
        client.default_headers(headers.clone()).build()
    };
    let (Ok(reusing), Ok(connecting)) = (client(64), client(0)) else { return };
    let (begun, mut requests) = (Instant::now(), JoinSet::new());
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for id in 1u64.. {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        let client = if id % 2 == 0 { reusing.clone() } else { connecting.clone() };
        let wait = if id % LONG_EVERY == 0 { LONG.as_millis() } else { 0 };
        let url = format!("http://{address}/?id={id}&wait={wait}");
        let answers = Arc::clone(&answers);
        requests.spawn(async move {
            let after = begun.elapsed();
            match ask(&client, &url).await {
                Ok(text) => *answers.lock().texts.entry(text).or_default() += 1,
                Err(why) => answers.lock().failures.push(Failure { id, after, why }),
            }
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<String, String> {
    let response = client.get(url).send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let text = response.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() { Ok(text.trim().to_owned()) } else { Err(format!("{status}: {}", text.trim())) }
}
