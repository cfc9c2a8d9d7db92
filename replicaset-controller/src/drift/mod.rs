//! Drift: machines that are not as they were read any more, because somebody removed or changed a package.
//!
//! Every Server at rest has its machine looked at once an interval: one round trip, without a lock, and no write as long
//! as nothing differs. What differs is remembered here, in memory, and not written at once: the fact takes the Server out
//! of traffic, and who changed all machines of a set at a stroke must not so bring it down. The set's reconciler enters the
//! Server in the set's ledger within the budget, and then has the drift reported; the machine is read again for that. What
//! a restart forgets the next check finds again.

pub mod due;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_core::{
    api::{EnvironmentFact, Server, VMReplicaSet},
    protocol::StatusWrite,
};
use berth_runtime::{CallError, Context, EventType, ServerCache, WriteError, reference};
use futures::{
    Stream, StreamExt,
    channel::mpsc,
    future::{BoxFuture, FutureExt as _},
    stream,
};
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tokio::{sync::Semaphore, time::sleep};

use crate::{
    set::{drifted::Drifts, members},
    work::{self, Tools, install::declared::difference},
};

/// Machines that are looked at at the same time.
const ROOM: usize = 32;
/// How soon a report that failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Reads what is installed on a Server's machine; an error is in words.
pub type Look = Arc<dyn Fn(Arc<Server>) -> BoxFuture<'static, Result<EnvironmentFact, String>> + Send + Sync>;

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The fact is written: the Server is on its way through Initializing.
    Written,
    /// Nothing differs any more, or the Server is no longer one whose machine is to be looked at.
    Gone,
    /// The machine could not be read, or the Server changed meanwhile: nothing is written.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    result: &'static str,
}

/// Looks for drift, and reports it when it is told to. Clones are the same.
#[derive(Clone)]
pub struct Drift(Arc<Inner>);

struct Inner {
    ctx: Context,
    servers: ServerCache,
    look: Look,
    interval: Duration,
    room: Semaphore,
    /// What differs, in words, by the Servers' UIDs.
    found: Mutex<HashMap<String, String>>,
    /// UIDs of the Servers that are being looked at or reported.
    busy: Mutex<HashSet<String>>,
    wake: mpsc::UnboundedSender<ObjectRef<VMReplicaSet>>,
    woken: Mutex<Option<mpsc::UnboundedReceiver<ObjectRef<VMReplicaSet>>>>,
    checks: Family<Of, Counter>,
    drifted: Gauge,
}

impl fmt::Debug for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drift").field("interval", &self.0.interval).finish_non_exhaustive()
    }
}

impl Drift {
    /// Looks at the machines of these Servers once an interval; zero is never.
    #[must_use]
    pub fn new(ctx: &Context, tools: Tools, servers: &ServerCache, interval: Duration) -> Self {
        let look: Look = Arc::new(move |server| {
            let tools = tools.clone();
            async move { work::install::look(&tools, &server).await }.boxed()
        });
        Self::with(ctx, look, servers, interval)
    }

    /// The same with another way to look at machines.
    #[must_use]
    pub fn with(ctx: &Context, look: Look, servers: &ServerCache, interval: Duration) -> Self {
        let (wake, woken) = mpsc::unbounded();
        let (checks, drifted) = (Family::<Of, Counter>::default(), Gauge::default());
        ctx.metrics.register(|r| {
            r.register("drift_checks", "Looks at what is installed on machines, by result", checks.clone());
            r.register("drifted_servers", "Servers whose machines differ and are not reported yet", drifted.clone());
        });
        Self(Arc::new(Inner {
            ctx: ctx.clone(),
            servers: servers.clone(),
            look,
            interval,
            room: Semaphore::new(ROOM),
            found: Mutex::default(),
            busy: Mutex::default(),
            wake,
            woken: Mutex::new(Some(woken)),
            checks,
            drifted,
        }))
    }

    /// What differs on the Server's machine, in words, if a check has found that and it is still to be reported.
    #[must_use]
    pub fn drifted(&self, server: &Server) -> Option<String> {
        let words = self.0.found().get(server.metadata.uid.as_deref()?).cloned()?;
        due::is_to_be_checked(server).then_some(words)
    }

    /// The sets that have something to look at: a Server of theirs drifted, or a drift has gone. To be taken once.
    pub fn changes(&self) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
        let woken = lock(&self.0.woken).take();
        stream::iter(woken).flatten()
    }

    /// Looks at machines until shutdown.
    pub async fn run(&self) {
        let inner = &self.0;
        if inner.interval.is_zero() {
            return;
        }
        let mut last = inner.ctx.clock.now();
        while inner.unless_shutdown(sleep(due::pause(inner.interval))).await.is_some() {
            let now = inner.ctx.clock.now();
            self.begin_checks(last, now);
            last = now;
        }
    }

    /// Begins the checks that are due after `from` and not after `to`.
    fn begin_checks(&self, from: Timestamp, to: Timestamp) {
        let inner = &self.0;
        let all = inner.servers.store().state();
        inner.forget_others(&all);
        let is_due = |server: &Server| due::is_due(uid(server), inner.interval, from, to);
        for server in all.into_iter().filter(|server| is_due(server) && due::is_to_be_checked(server)) {
            let Some(busy) = Busy::begin(inner, &server) else { continue };
            let this = self.clone();
            tokio::spawn(async move {
                let drifted = this.0.unless_shutdown(this.0.check(&server)).await.flatten();
                drop(busy);
                // Nobody's budget is to be kept.
                if drifted.is_some() && members::owner(&server).is_none() {
                    this.report_soon(&server);
                }
            });
        }
    }

    /// Reports a drift in the background, one at a time of each Server; its set is woken at the end.
    pub fn report_soon(&self, server: &Server) {
        let Some(busy) = Busy::begin(&self.0, server) else { return };
        let (this, server) = (self.clone(), Arc::new(server.clone()));
        tokio::spawn(async move {
            let inner = &this.0;
            let report = async {
                match this.report(&server).await {
                    Ok(Reported::Written | Reported::Gone) => {}
                    // Its set would only have it reported at once again.
                    Ok(Reported::Unknown) => sleep(RETRY).await,
                    Err(error) => {
                        tracing::warn!(server = server.name_any(), namespace = server.namespace(), %error, "drift is not reported");
                        sleep(RETRY).await;
                    }
                }
            };
            if inner.unless_shutdown(report).await.is_some() {
                drop(busy);
                inner.wake(&server);
            }
        });
    }

    /// Reads the machine again and writes what is there, if it still differs; otherwise the drift is forgotten.
    ///
    /// A drift that is reported is forgotten only when the cache shows the Server as it is then.
    pub async fn report(&self, server: &Server) -> Result<Reported, CallError> {
        let inner = &self.0;
        let Some(current) = inner.current(server).filter(|current| due::is_to_be_checked(current)) else {
            inner.forget(server);
            return Ok(Reported::Gone);
        };
        let fact = match (inner.look)(current.clone()).await {
            Ok(fact) => fact,
            Err(error) => {
                tracing::warn!(
                    server = current.name_any(),
                    namespace = current.namespace(),
                    error,
                    "drift is not reported"
                );
                return Ok(Reported::Unknown);
            }
        };
        if difference(&current, &fact).is_none() {
            inner.forget(server);
            return Ok(Reported::Gone);
        }
        // Somebody may have begun to work on the machine since it was read.
        let write = StatusWrite::new(&current).environment(fact).if_unchanged();
        match inner.ctx.write(&current, write).await {
            Ok(after) => {
                inner.servers.caught_up(&after).await;
                inner.forget(server);
                Ok(Reported::Written)
            }
            Err(WriteError::Stale { .. }) => Ok(Reported::Unknown),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drifts for Drift {
    fn is_drifted(&self, server: &Server) -> bool {
        self.drifted(server).is_some()
    }

    fn report(&self, server: &Server) {
        self.report_soon(server);
    }
}

impl Inner {
    /// Looks at a machine, remembers what differs, and wakes its set when that is news.
    async fn check(&self, server: &Arc<Server>) -> Option<String> {
        let _room = self.room.acquire().await.ok()?;
        let looked = (self.look)(server.clone()).await;
        // What was declared or is at work since then is another story.
        let current = self.current(server).filter(|now| due::is_to_be_checked(now) && now.spec == server.spec)?;
        let fact = match looked {
            Ok(fact) => fact,
            Err(error) => {
                tracing::debug!(
                    server = server.name_any(),
                    namespace = server.namespace(),
                    error,
                    "no check for drift"
                );
                self.count("failed");
                return None;
            }
        };
        match difference(&current, &fact) {
            Some(words) => {
                self.count("drifted");
                self.remember(&current, &words);
                self.wake(&current);
                Some(words)
            }
            None => {
                self.count("right");
                if self.forget(&current) {
                    self.wake(&current);
                }
                None
            }
        }
    }

    fn remember(&self, server: &Server, words: &str) {
        let before = self.found().insert(uid(server).to_owned(), words.to_owned());
        if before.as_deref() != Some(words) {
            tracing::warn!(server = server.name_any(), namespace = server.namespace(), words, "drifted");
            let note = format!("the machine is no longer as it was read: {words}; it is repaired within the budget");
            self.ctx.events.publish(&reference(server), EventType::Warning, "Drifted", note);
        }
        self.gauge();
    }

    fn forget(&self, server: &Server) -> bool {
        let known = self.found().remove(uid(server)).is_some();
        self.gauge();
        known
    }

    /// Forgets Servers that are gone, or no longer at rest: who works on a machine finds out by itself.
    fn forget_others(&self, all: &[Arc<Server>]) {
        if self.found().is_empty() {
            return;
        }
        let at_rest: HashSet<&str> = all.iter().filter(|s| due::is_to_be_checked(s)).map(|s| uid(s)).collect();
        self.found().retain(|uid, _| at_rest.contains(uid.as_str()));
        self.gauge();
    }

    /// This very Server, as it is now.
    fn current(&self, server: &Server) -> Option<Arc<Server>> {
        let now = self.servers.get(server.metadata.namespace.as_deref(), server.metadata.name.as_deref()?)?;
        (now.metadata.uid == server.metadata.uid).then_some(now)
    }

    fn wake(&self, server: &Server) {
        if let Some(owner) = members::owner(server) {
            let set = ObjectRef::new(&owner.name).within(server.metadata.namespace.as_deref().unwrap_or_default());
            // Who does not listen has no sets.
            let _ = self.wake.unbounded_send(set);
        }
    }

    async fn unless_shutdown<T>(&self, work: impl Future<Output = T> + Send) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.ctx.shutdown.cancelled() => None,
        }
    }

    fn count(&self, result: &'static str) {
        self.checks.get_or_create(&Of { result }).inc();
    }

    fn gauge(&self) {
        self.drifted.set(i64::try_from(self.found().len()).unwrap_or(i64::MAX));
    }

    fn found(&self) -> MutexGuard<'_, HashMap<String, String>> {
        lock(&self.found)
    }
}

/// A Server is being looked at or reported for as long as this lives.
struct Busy {
    inner: Arc<Inner>,
    uid: String,
}

impl Busy {
    /// Nothing if it already is.
    fn begin(inner: &Arc<Inner>, server: &Server) -> Option<Self> {
        let uid = uid(server).to_owned();
        lock(&inner.busy).insert(uid.clone()).then(|| Self { inner: inner.clone(), uid })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.inner.busy).remove(&self.uid);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can leave them half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn uid(server: &Server) -> &str {
    server.metadata.uid.as_deref().unwrap_or_default()
}
