//! Probes every Server at its times, with a bound on how many at once.
//!
//! One task keeps the agenda and starts what is due; what a probe found goes into the Server's lane, and only when that
//! changes a verdict (or what a failure says) the Server is put before the controller again. A fleet at rest so costs
//! nothing but its probes.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_core::api::Server;
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Now,
    facts::Observed,
    lane::{Change, Entry},
    metrics::{Kind, ProbeMetrics},
    schedule::{Agenda, Grid},
    verdict::Finding,
};

/// A Server's UID and which of its probes.
type Key = (Arc<str>, Kind);

/// The prober's handle.
#[derive(Clone)]
pub struct Prober {
    entries: Arc<Mutex<HashMap<Arc<str>, Entry>>>,
    orders: mpsc::UnboundedSender<Order>,
    now: Now,
}

/// What the agenda is to change.
struct Order {
    key: Key,
    change: Change,
}

/// A probe that has come back.
struct Done {
    key: Key,
    generation: u64,
    due: Duration,
    grid: Grid,
    finding: Finding,
}

/// The task that probes; see [`Prober::new`].
pub struct Work {
    prober: Prober,
    orders: mpsc::UnboundedReceiver<Order>,
    news: UnboundedSender<ObjectRef<Server>>,
    slots: Arc<Semaphore>,
    metrics: Arc<ProbeMetrics>,
    origin: Instant,
    agenda: Agenda<Key>,
    grids: HashMap<Key, Grid>,
}

impl Prober {
    /// A prober that has at most `concurrency` probes under way, and its work, which has to be run. Servers about
    /// which a verdict has changed are sent to `news`.
    #[must_use]
    pub fn new(
        concurrency: usize,
        news: UnboundedSender<ObjectRef<Server>>,
        metrics: Arc<ProbeMetrics>,
        now: Now,
    ) -> (Self, Work) {
        let (sender, orders) = mpsc::unbounded_channel();
        let prober = Self { entries: Arc::default(), orders: sender, now };
        let work = Work {
            prober: prober.clone(),
            orders,
            news,
            slots: Arc::new(Semaphore::new(concurrency.max(1))),
            metrics,
            origin: Instant::now(),
            agenda: Agenda::default(),
            grids: HashMap::new(),
        };
        (prober, work)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Probes the Server as it is declared now. What was found before counts as long as the question is the same.
    pub fn watch(&self, server: &Server) {
        let Some(uid) = server.metadata.uid.as_deref() else { return };
        let mut entries = self.entries();
        let known = entries.get_key_value(uid).map(|(key, _)| Arc::clone(key));
        let key = known.unwrap_or_else(|| Arc::from(uid));
        let entry = entries.entry(Arc::clone(&key)).or_insert_with(|| Entry::new(server));
        for (kind, change) in entry.follow(server) {
            self.order((Arc::clone(&key), kind), change);
        }
        if entry.is_idle() {
            entries.remove(uid);
        }
    }

    /// No longer probes the Server.
    pub fn forget(&self, uid: &str) {
        if let Some((key, _)) = self.entries().remove_entry(uid) {
            for kind in Kind::ALL {
                self.order((Arc::clone(&key), kind), Change::Stop);
            }
        }
    }

    /// No longer probes Servers other than these.
    pub fn retain(&self, is_known: impl Fn(&str) -> bool) {
        let gone: Vec<_> = self.entries().keys().filter(|uid| !is_known(uid)).cloned().collect();
        for uid in gone {
            self.forget(&uid);
        }
    }

    fn order(&self, key: Key, change: Change) {
        // At shutdown the work ends first, and then no order matters any more.
        let _ = self.orders.send(Order { key, change });
    }

    /// What was found of the Server.
    #[must_use]
    pub fn observed(&self, uid: &str) -> Observed {
        let now = (self.now)();
        self.entries().get_mut(uid).map(|entry| entry.observed(now)).unwrap_or_default()
    }

    /// Remembers when news of the Server's failing health was reported.
    pub fn reported(&self, uid: &str, now: Timestamp) {
        if let Some(entry) = self.entries().get_mut(uid) {
            entry.reported = Some(now);
        }
    }
}

impl Work {
    /// Probes until the token is cancelled.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (sender, mut done) = mpsc::unbounded_channel();
        loop {
            let next = self.agenda.next_due().map(|due| self.origin + due);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep_until(next) => self.start_due(&sender),
                Some(order) = self.orders.recv() => self.obey(order),
                Some(done) = done.recv() => self.finish(done),
            }
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn obey(&mut self, Order { key, change }: Order) {
        match change {
            Change::Ask { period, at_once } => {
                let (now, grid) = (self.now(), Grid::new(period, phase(&key.0, key.1)));
                self.grids.insert(key.clone(), grid);
                self.agenda.enter(key, if at_once { now } else { grid.after(now) });
            }
            Change::Stop => {
                self.grids.remove(&key);
                self.agenda.strike(&key);
            }
        }
        self.metrics.set_targets(self.grids.len());
    }

    fn start_due(&mut self, sender: &mpsc::UnboundedSender<Done>) {
        let now = self.now();
        while let Some((key, due)) = self.agenda.pop(now) {
            let Some(grid) = self.grids.get(&key).copied() else { continue };
            self.start(key, due, grid, sender.clone());
        }
    }

    fn start(&self, key: Key, due: Duration, grid: Grid, sender: mpsc::UnboundedSender<Done>) {
        let entries = self.prober.entries();
        let Some((aim, generation)) = entries.get(&key.0).and_then(|entry| entry.lane(key.1).question()) else {
            return;
        };
        drop(entries);
        let (slots, metrics, origin) = (Arc::clone(&self.slots), Arc::clone(&self.metrics), self.origin);
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_slot) = slots.acquire_owned().await else { return };
            let started = origin.elapsed();
            metrics.started(key.1, started.saturating_sub(due));
            let finding = aim.probe().await;
            metrics.finished(key.1, finding == Finding::Good, origin.elapsed().saturating_sub(started));
            // At shutdown nobody listens any more.
            let _ = sender.send(Done { key, generation, due, grid, finding });
        });
    }

    /// Takes a finding in and enters the next time. A finding of an earlier question is dropped: its key was entered
    /// anew when the question changed.
    fn finish(&mut self, Done { key, generation, due, grid, finding }: Done) {
        let (wall, now) = ((self.prober.now)(), self.now());
        let mut entries = self.prober.entries();
        let Some(entry) = entries.get_mut(&key.0) else { return };
        if !entry.lane(key.1).is_current(generation) {
            return;
        }
        let changed = entry.observe(key.1, &finding, wall);
        let early = entry.look_again(key.1, wall).map(|wait| now + wait);
        let server = changed.then(|| entry.server.clone());
        drop(entries);
        self.metrics.missed(grid.between(due, now));
        let next = grid.after(now);
        self.agenda.enter(key, early.map_or(next, |early| early.min(next)));
        if let Some(server) = server {
            // At shutdown the controller has ended first.
            let _ = self.news.unbounded_send(server);
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Fixed by the Server: it keeps its place in the period over restarts, and thousands of Servers spread evenly.
fn phase(uid: &str, kind: Kind) -> u64 {
    let mut hasher = DefaultHasher::new();
    (uid, kind).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
