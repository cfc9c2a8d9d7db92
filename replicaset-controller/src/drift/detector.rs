//! Checks machines for drift.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use berth_core::api::{Server, VMReplicaSet};
use berth_runtime::{Context, Copies, EventType, ServerCache, TurnOrder as _, reference};
use futures::{
    Stream, StreamExt as _,
    channel::mpsc,
    future::{BoxFuture, FutureExt as _},
    stream,
};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::{sync::Semaphore, time::sleep};

use super::{
    drifted_servers::DriftedServers,
    reading::MachineReading,
    schedule::{is_due, poll_interval, should_check},
};
use crate::{in_progress::InProgress, server::tasks::TaskContext};

/// Machines that are read at once. A read takes about a second at most, so that this suffices for ten thousand Servers per
/// interval; it bounds the connections to machines that do not answer.
const PARALLEL_CHECKS: usize = 32;

/// Reads what is installed and deployed on a Server's machine; the error is for people.
pub type MachineReader = Arc<dyn Fn(Arc<Server>) -> BoxFuture<'static, Result<MachineReading, String>> + Send + Sync>;

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    /// `matches`, `drifted` or `failed`.
    result: &'static str,
}

/// Checks machines for drift, and reports it when it is asked to. Clones share what was found.
#[derive(Clone)]
pub struct DriftDetector(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) ctx: Context,
    pub(super) servers: ServerCache,
    pub(super) read: MachineReader,
    interval: Duration,
    parallel_checks: Semaphore,
    pub(super) drifted: DriftedServers,
    /// The Servers that are being checked or reported.
    pub(super) in_progress: InProgress,
    sender: mpsc::UnboundedSender<ObjectRef<VMReplicaSet>>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<ObjectRef<VMReplicaSet>>>>,
    checks: Family<CheckLabels, Counter>,
    /// The copies of this controller that share the checks; none if this one does all of them.
    copies: OnceLock<Copies>,
}

impl fmt::Debug for DriftDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriftDetector").field("interval", &self.0.interval).finish_non_exhaustive()
    }
}

impl DriftDetector {
    /// Checks the machines of these Servers once per interval; zero means never.
    #[must_use]
    pub fn new(ctx: &Context, tasks: TaskContext, servers: &ServerCache, interval: Duration) -> Self {
        let read: MachineReader = Arc::new(move |server| {
            let tasks = tasks.clone();
            async move { MachineReading::read(&tasks, &server).await }.boxed()
        });
        Self::with_reader(ctx, read, servers, interval)
    }

    /// The same with another way to read machines.
    #[must_use]
    pub fn with_reader(ctx: &Context, read: MachineReader, servers: &ServerCache, interval: Duration) -> Self {
        let (sender, receiver) = mpsc::unbounded();
        let (checks, drifted) = (Family::<CheckLabels, Counter>::default(), DriftedServers::default());
        ctx.metrics.register(|r| {
            r.register("drift_checks", "Checks of machines for drift, by result", checks.clone());
            let help = "Servers whose machines have drifted and that are not reported yet";
            r.register("drifted_servers", help, drifted.count.clone());
        });
        Self(Arc::new(Inner {
            ctx: ctx.clone(),
            servers: servers.clone(),
            read,
            interval,
            parallel_checks: Semaphore::new(PARALLEL_CHECKS),
            drifted,
            in_progress: InProgress::default(),
            sender,
            receiver: Mutex::new(Some(receiver)),
            checks,
            copies: OnceLock::new(),
        }))
    }

    /// Shares the checks among the copies of this controller: each Server is checked by one of them. When a copy dies, the others
    /// take over its Servers once its Lease has expired, and a Server whose time came in between is checked an interval later.
    #[must_use]
    pub fn shared_among(self, copies: &Copies) -> Self {
        // They are set once, before anything is checked.
        let _ = self.0.copies.set(copies.clone());
        self
    }

    /// How the Server's machine differs, for people, if a check has found drift that is still to be reported.
    #[must_use]
    pub fn difference(&self, server: &Server) -> Option<String> {
        self.0.drifted.difference(server).filter(|_| should_check(server))
    }

    /// The sets to reconcile because the drift of one of their Servers was found, was reported, or is gone. Only the first
    /// caller gets them.
    pub fn notifications(&self) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
        stream::iter(self.0.receiver.lock().take()).flatten()
    }

    /// Checks machines until shutdown.
    pub async fn run(&self) {
        let inner = &self.0;
        if inner.interval.is_zero() {
            return;
        }
        let mut last = inner.ctx.clock.now();
        while inner.unless_shutdown(sleep(poll_interval(inner.interval))).await.is_some() {
            let now = inner.ctx.clock.now();
            self.begin_checks(last, now);
            last = now;
        }
    }

    /// Begins the checks that are due after `from` and not after `to`.
    fn begin_checks(&self, from: Timestamp, to: Timestamp) {
        let inner = &self.0;
        let servers = inner.servers.store().state();
        // A task that changes a machine finds the drift itself.
        inner.drifted.retain(servers.iter().filter(|server| should_check(server)).map(|server| server.uid()));
        let is_mine = |server: &Server| inner.copies.get().is_none_or(|copies| copies.is_mine(server.uid()));
        let is_due =
            |server: &Server| is_due(server.uid(), inner.interval, from, to) && should_check(server) && is_mine(server);
        for server in servers.into_iter().filter(|server| is_due(server)) {
            let Some(in_progress) = inner.in_progress.begin(&server) else { continue };
            let this = self.clone();
            tokio::spawn(async move {
                let is_drifted = this.0.unless_shutdown(this.0.check(&server)).await == Some(true);
                drop(in_progress);
                // There is no budget for a Server without a set.
                if is_drifted && server.owner().is_none() {
                    this.report_in_background(&server);
                }
            });
        }
    }
}

impl Inner {
    /// Checks one machine. Says whether it has drifted.
    async fn check(&self, server: &Arc<Server>) -> bool {
        let Ok(_permit) = self.parallel_checks.acquire().await else { return false };
        let read = (self.read)(server.clone()).await;
        // What was read says nothing about a Server that has another declaration by now, or that a task changes.
        let current = self.current(server).filter(|now| should_check(now) && now.spec == server.spec);
        let Some(current) = current else { return false };
        let result = match read.as_ref().map(|reading| reading.difference(&current)) {
            Ok(Some(difference)) => {
                self.remember(&current, &difference);
                "drifted"
            }
            Ok(None) => {
                if self.drifted.remove(&current) {
                    self.notify_set(&current);
                }
                "matches"
            }
            Err(error) => {
                let (server, namespace) = (current.name(), current.namespace());
                tracing::debug!(server, namespace, error, "the machine cannot be checked for drift");
                "failed"
            }
        };
        self.checks.get_or_create(&CheckLabels { result }).inc();
        result == "drifted"
    }

    fn remember(&self, server: &Server, difference: &str) {
        if self.drifted.insert(server, difference) {
            tracing::warn!(server = server.name(), namespace = server.namespace(), difference, "drifted");
            let note =
                format!("the machine is no longer as it was read: {difference}; it is repaired within the budget");
            self.ctx.events.publish(&reference(server), EventType::Warning, "Drifted", note);
        }
        self.notify_set(server);
    }

    /// This very Server as it is now.
    pub(super) fn current(&self, server: &Server) -> Option<Arc<Server>> {
        let current = self.servers.get(Some(server.namespace()), server.name())?;
        current.is_same_object(server).then_some(current)
    }

    pub(super) fn notify_set(&self, server: &Server) {
        if let Some(owner) = server.owner() {
            let set = ObjectRef::new(&owner.name).within(server.namespace());
            // Sending fails only when nobody reconciles sets.
            let _ = self.sender.unbounded_send(set);
        }
    }

    pub(super) async fn unless_shutdown<T>(&self, work: impl Future<Output = T> + Send) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.ctx.shutdown.cancelled() => None,
        }
    }
}
