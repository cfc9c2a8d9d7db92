//! A client with bounds: each request has a time limit, and a load has a rate, a number of requests in flight and an end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::eventually;

const TIME_LIMIT: Duration = Duration::from_secs(20);
const PER_SECOND: u32 = 200;
const IN_FLIGHT: usize = 64;
const LONGEST: Duration = Duration::from_mins(1);

/// Asks once, on a connection of its own. Returns the body of a good answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let asked = async {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path).header(header::HOST, "web").body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        connection.abort();
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}")) }
    };
    tokio::time::timeout(TIME_LIMIT, asked).await.unwrap_or_else(|_| Err(format!("no answer within {TIME_LIMIT:?}")))
}

/// Who answered, and what failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) by: BTreeMap<String, usize>,
    pub(crate) failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, answer: Result<String, String>) {
        match answer {
            Ok(name) => *self.by.entry(name).or_default() += 1,
            Err(error) => self.failures.push(error),
        }
    }

    /// The answers in all.
    pub(crate) fn answers(&self) -> usize {
        self.by.values().sum()
    }

    /// The share of one server among the answers, in percent.
    pub(crate) fn share(&self, name: &str) -> f64 {
        let count = |n: usize| f64::from(u32::try_from(n).unwrap());
        100.0 * count(self.by.get(name).copied().unwrap_or(0)) / count(self.answers().max(1))
    }
}

/// Sends so many requests, at most eight at once, and returns who answered.
pub(crate) async fn ask(address: SocketAddr, requests: usize) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let workers = (0..8).map(|worker| {
        let tally = tally.clone();
        let share = requests / 8 + usize::from(worker < requests % 8);
        tokio::spawn(async move {
            for _ in 0..share {
                let answer = get(address, "/").await;
                tally.lock().add(answer);
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }

    tally.lock().clone()
}

/// Requests that come at a fixed rate, however long the answers take.
pub(crate) struct Load {
    tally: Arc<Mutex<Tally>>,
    free: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Load {
    /// Begins.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let free = Arc::new(Semaphore::new(IN_FLIGHT));
        let task = tokio::spawn({
            let (tally, free) = (tally.clone(), free.clone());
            async move {
                let end = Instant::now() + LONGEST;
                let mut ticks = interval(Duration::from_secs(1) / PER_SECOND);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                while Instant::now() < end {
                    ticks.tick().await;
                    let Ok(place) = free.clone().try_acquire_owned() else {
                        continue;
                    };
                    let tally = tally.clone();
                    tokio::spawn(async move {
                        let answer = get(address, "/").await;
                        tally.lock().add(answer);
                        drop(place);
                    });
                }
            }
        });
        Self { tally, free, task }
    }

    /// Waits until so many more requests were answered.
    pub(crate) async fn more(&self, requests: usize) {
        let before = self.tally.lock().answers();
        eventually(format!("{requests} more answers"), async || {
            let tally = self.tally.lock();
            let now = tally.answers() - before;
            if now >= requests { Ok(()) } else { Err(format!("{now}, failed: {:?}", tally.failures.first())) }
        })
        .await;
    }

    /// Ends, waits for the requests in flight, and returns what came of all.
    pub(crate) async fn stop(self) -> Tally {
        self.task.abort();
        let all = u32::try_from(IN_FLIGHT).unwrap();
        drop(self.free.acquire_many(all).await.unwrap());

        self.tally.lock().clone()
    }
}
