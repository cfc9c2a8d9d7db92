//! One look at a VMReplicaSet.
//!
//! What the cache shows decides whether there may be anything to do. What is done is decided on the set and its Servers
//! as read from the API server, in this order, and guarded by the set's `resourceVersion`.

mod fail_over;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_core::{
    api::{Server, VMReplicaSet, VMReplicaSetStatus},
    budget,
};
use berth_runtime::{CallError as Error, Context, EventType, reference, until};
use futures::{StreamExt as _, TryStreamExt as _, stream, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt as _, runtime::controller::Action};
use tokio::time::Instant;

use super::{
    births::Births,
    drifted::{self, Drifts},
    failover,
    live::{Created, Listed, Live},
    machines::{Machines, NoMachines},
    plan::{self, Facts, Ledgers, Limits, Plan},
    status,
};

/// The status, which has the ledgers, is written at most this often while things change. The first change is written at
/// once.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a write is tried again that met a set which somebody else has written.
const CONFLICT: Duration = Duration::from_millis(100);
/// How old a look at the set may be when a Server is created because of it.
const FRESH: Duration = Duration::from_millis(250);
/// How many calls of one kind run at once, other than creations.
const CALLS: usize = 16;

/// Reconciles VMReplicaSets.
pub struct Sets {
    ctx: Context,
    limits: Limits,
    machines: Arc<dyn Machines>,
    drifts: Arc<dyn Drifts>,
    memory: Mutex<HashMap<String, Memory>>,
    births: Births,
}

/// What is remembered of a set; nothing is lost with it.
#[derive(Default)]
struct Memory {
    /// Before this, nothing is written.
    next_write: Option<Instant>,
    /// Names that belong to somebody else's Servers.
    taken: BTreeSet<String>,
    drift: drifted::Seen,
    /// Servers of which the provider did not say what became of their machines: why not, and until when that counts.
    silent: HashMap<String, (String, Timestamp)>,
}

/// What is known before the set and its Servers are read.
struct Known {
    taken: BTreeSet<String>,
    drift: drifted::Known,
    silent: failover::Silent,
    /// When there is something to look at again because of drift, or of a provider that did not answer.
    wake: Option<Timestamp>,
}

impl Sets {
    /// Keeps to these limits, asks `machines` whether machines can be had, and has repaired what `drifts` has found.
    #[must_use]
    pub fn new(ctx: Context, limits: Limits, machines: Arc<dyn Machines>, drifts: Arc<dyn Drifts>) -> Self {
        Self { ctx, limits, machines, drifts, memory: Mutex::default(), births: Births::default() }
    }

    /// Of which sets Servers are being created.
    #[must_use]
    pub fn births(&self) -> Births {
        self.births.clone()
    }

    /// Looks at a set, whose Servers the cache shows to be these.
    pub async fn reconcile(&self, set: &VMReplicaSet, servers: &[&Server]) -> Result<Action, Error> {
        if set.metadata.deletion_timestamp.is_some() {
            self.memory().remove(&uid(set));
            return Ok(Action::await_change());
        }
        let now = self.ctx.clock.now();
        let known = self.known(set, servers, now);
        let (plan, no_machines) = self.plan(set, servers, &known, now).await;
        let wanted = status::status(set, servers, &plan, now);
        let is_written = set.status.as_ref() == Some(&wanted);
        if plan.is_done() && is_written {
            let look_again = no_machines.map(|problem| problem.look_again());
            let changes = status::next_change(set, servers, now).into_iter().chain(plan.wake).chain(known.wake).min();
            let wait = look_again.into_iter().chain(changes.map(|at| until(at, now))).min();
            return Ok(wait.map_or_else(Action::await_change, Action::requeue));
        }
        if let Some(wait) = self.wait(set) {
            return Ok(Action::requeue(wait));
        }
        let live = Live::new(&self.ctx, &set.namespace().unwrap_or_default());
        // Ledgers are never written because of what a cache shows, not even what has left them.
        let wait = if plan.is_done() && plan.ledgers == Ledgers::of(set) {
            self.write(&live, set, &wanted).await?
        } else {
            self.act(&live, set, servers, &known).await?
        };
        Ok(wait.map_or_else(Action::await_change, Action::requeue))
    }

    fn known(&self, set: &VMReplicaSet, servers: &[&Server], now: Timestamp) -> Known {
        let mut memory = self.memory();
        let memory = memory.entry(uid(set)).or_default();
        let drift = memory.drift.look(set, servers, now, |server| self.drifts.is_drifted(server));
        memory.silent.retain(|_, (_, until)| *until > now);
        let silent = memory.silent.iter().map(|(name, (why, _))| (name.clone(), why.clone())).collect();
        let wake = memory.drift.wake(&drift).into_iter().chain(memory.silent.values().map(|(_, until)| *until)).min();
        Known { taken: memory.taken.clone(), wake, drift, silent }
    }

    /// The plan, and why it does without machines, if it would need some.
    async fn plan<'a>(
        &self,
        set: &VMReplicaSet,
        servers: &[&'a Server],
        known: &Known,
        now: Timestamp,
    ) -> (Plan<'a>, Option<NoMachines>) {
        let Known { taken, drift, silent, .. } = known;
        let facts = Facts { now, taken, limits: self.limits, no_machines: None, drift, silent };
        let plan = plan::plan(set, servers, facts);
        if !plan.needs_machines() {
            return (plan, None);
        }
        match self.machines.usable(&set.spec.template.spec.machine.class_name).await {
            Ok(()) => (plan, None),
            Err(problem) => {
                let plan = plan::plan(set, servers, Facts { no_machines: Some(&problem), ..facts });
                (plan, Some(problem))
            }
        }
    }

    /// Decides anew on what the API server has, enters it, and does it. Says when to look again.
    async fn act(
        &self,
        live: &Live<'_>,
        known_set: &VMReplicaSet,
        cached: &[&Server],
        known: &Known,
    ) -> Result<Option<Duration>, Error> {
        let Some(set) = live.set(known_set).await? else { return Ok(None) };
        let seen = Instant::now();
        let servers = live.servers(&set, cached).await?;
        let servers: Vec<&Server> = servers.iter().map(Listed::server).collect();
        let now = self.ctx.clock.now();
        let (plan, _) = self.plan(&set, &servers, known, now).await;
        let wanted = status::status(&set, &servers, &plan, now);
        if plan.ledgers == Ledgers::of(&set) {
            // Without a write nothing has shown yet that the ledger was still this one when the Servers were listed: a name
            // of it may have been given to another Server since.
            let still = live.set(&set).await?;
            if still.is_none_or(|newer| newer.metadata.resource_version != set.metadata.resource_version) {
                self.pause_writes(&set, CONFLICT);
                return Ok(Some(CONFLICT));
            }
            self.pause_writes(&set, STATUS_INTERVAL);
        } else if let Some(again) = self.write(live, &set, &wanted).await? {
            return Ok(Some(again));
        }
        self.fail_over(live, &set, &servers, &plan.failover).await?;
        self.carry_out(live, &set, &plan, seen).await?;
        // The status follows when the cache has seen what was done; asked for all the same, should it have been nothing
        // that a cache could see.
        Ok(Some(STATUS_INTERVAL))
    }

    async fn carry_out(
        &self,
        live: &Live<'_>,
        set: &VMReplicaSet,
        plan: &Plan<'_>,
        seen: Instant,
    ) -> Result<(), Error> {
        let is_early = |server: &Server| plan.is_slow && !budget::is_ready(server);
        all(plan.retire.iter().map(|server| live.delete(server, false)).collect()).await?;
        all(plan.replace.iter().map(|server| live.delete(server, is_early(server))).collect()).await?;
        all(plan.touch.iter().map(|server| live.touch(set, server, is_early(server))).collect()).await?;
        for server in &plan.repair {
            let now = self.ctx.clock.now();
            self.memory().entry(uid(set)).or_default().drift.ask(&server.name_any(), now);
            self.drifts.report(server);
        }
        self.create(live, set, &plan.create, seen).await
    }

    /// Creates the Servers: first one, and with every one that goes well one more at once, so that what is wrong with one
    /// is not tried with all. A look at the set that becomes old is taken anew meanwhile, so that a name that has been
    /// given up since then is not used.
    async fn create(
        &self,
        live: &Live<'_>,
        set: &VMReplicaSet,
        names: &[String],
        mut seen: Instant,
    ) -> Result<(), Error> {
        let mut left: VecDeque<&String> = names.iter().collect();
        let _under_way = self.births.of(set);
        let (mut window, mut calls, mut looks) = (1, FuturesUnordered::new(), FuturesUnordered::new());
        loop {
            if !left.is_empty() && looks.is_empty() && seen.elapsed() > FRESH / 2 {
                looks.push(async { (Instant::now(), live.creating(set).await) });
            }
            while calls.len() < window
                && seen.elapsed() <= FRESH
                && let Some(name) = left.pop_front()
            {
                calls.push(async move { (name, live.create(set, name).await) });
            }
            tokio::select! {
                biased;
                Some((asked, creating)) = looks.next(), if !left.is_empty() => {
                    let creating = creating?;
                    left.retain(|name| creating.contains(*name));
                    seen = asked;
                }
                Some((name, created)) = calls.next() => match created {
                    Ok(Created::Ours) => window = (window + 1).min(self.limits.creating),
                    Ok(Created::Taken) => self.remember_taken(set, name),
                    Err(error) => {
                        let note = error.to_string();
                        self.ctx.events.publish(&reference(set), EventType::Warning, "CreationFailed", note);
                        // Those that are under way may still become Servers; their names are entered.
                        calls.collect::<Vec<_>>().await;
                        return Err(error);
                    }
                },
                else => return Ok(()),
            }
        }
    }

    fn remember_taken(&self, set: &VMReplicaSet, name: &str) {
        let note = format!("the name {name} belongs to a Server that is not this set's: another ordinal is used");
        self.ctx.events.publish(&reference(set), EventType::Warning, "NameTaken", note);
        self.memory().entry(uid(set)).or_default().taken.insert(name.to_owned());
    }

    /// Writes the status. Says when to try again if somebody else has written it in the meantime.
    async fn write(
        &self,
        live: &Live<'_>,
        set: &VMReplicaSet,
        wanted: &VMReplicaSetStatus,
    ) -> Result<Option<Duration>, Error> {
        self.pause_writes(set, STATUS_INTERVAL);
        if !live.write_status(set, wanted).await? {
            self.pause_writes(set, CONFLICT);
            return Ok(Some(CONFLICT));
        }
        for (reason, note) in status::news(set.status.as_ref(), wanted) {
            self.ctx.events.publish(&reference(set), EventType::Warning, &reason, note);
        }
        Ok(None)
    }

    /// How long nothing may be written yet.
    fn wait(&self, set: &VMReplicaSet) -> Option<Duration> {
        let next = self.memory().get(&uid(set)).and_then(|m| m.next_write)?;
        Some(next.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    fn pause_writes(&self, set: &VMReplicaSet, pause: Duration) {
        self.memory().entry(uid(set)).or_default().next_write = Some(Instant::now() + pause);
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid(set: &VMReplicaSet) -> String {
    set.uid().unwrap_or_default()
}

/// Waits for the calls, a few of them at once; after the first failure no more are begun.
async fn all(calls: Vec<impl Future<Output = Result<(), Error>>>) -> Result<(), Error> {
    stream::iter(calls).buffer_unordered(CALLS).try_collect::<()>().await
}
