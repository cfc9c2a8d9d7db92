//! One look at a VMReplicaSet.
//!
//! What the cache shows decides whether there may be anything to do. What is done is decided on the set and its Servers
//! as read from the API server, in this order, and guarded by the set's `resourceVersion`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use berth_core::{
    api::{Server, VMReplicaSet},
    budget::{self, Axis, Budget, Roll},
};
use berth_runtime::{CallError as Error, Context, EventType, reference, until};
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt as _, runtime::controller::Action};
use tokio::time::Instant;

use super::{
    environment,
    live::{Created, Live},
    scale::{self, Scale},
    status::{self, Ledgers},
};

/// The status is written at most this often while things change.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How old a look at the set may be when a Server is created because of it.
const FRESH: Duration = Duration::from_secs(2);
/// How many calls of one kind run at once.
const CALLS: usize = 16;

/// Reconciles VMReplicaSets.
pub struct Sets {
    ctx: Context,
    max_creating: usize,
    memory: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of a set; nothing is lost with it.
#[derive(Default)]
struct Memory {
    status_written: Option<Instant>,
    /// Names that belong to somebody else's Servers.
    taken: BTreeSet<String>,
}

/// What is to be done.
struct Plan<'a> {
    scale: Scale,
    roll: Roll<'a>,
}

impl Plan<'_> {
    fn is_done(&self) -> bool {
        self.scale.is_done() && self.roll.touch.is_empty()
    }

    fn ledgers(&self) -> Ledgers {
        Ledgers { creating: self.scale.creating.clone(), disturbed: self.roll.ledger.clone() }
    }
}

impl Sets {
    /// With never more than `max_creating` Servers being created at once in a set.
    #[must_use]
    pub fn new(ctx: Context, max_creating: usize) -> Self {
        Self { ctx, max_creating, memory: Mutex::default() }
    }

    /// Looks at a set, whose Servers the cache shows to be these.
    pub async fn reconcile(&self, set: &VMReplicaSet, servers: &[&Server]) -> Result<Action, Error> {
        if set.metadata.deletion_timestamp.is_some() {
            self.memory().remove(&uid(set));
            return Ok(Action::await_change());
        }
        let live = Live::new(&self.ctx, &set.namespace().unwrap_or_default());
        let now = self.ctx.clock.now();
        let plan = self.plan(set, servers, now);
        if !plan.is_done() && self.act(&live, set).await? {
            // The status follows when the cache has seen what was done; asked for all the same, should it have been
            // nothing that a cache could see.
            return Ok(Action::requeue(STATUS_INTERVAL));
        }
        self.report(&live, set, servers, plan.ledgers(), now).await
    }

    fn plan<'a>(&self, set: &VMReplicaSet, servers: &[&'a Server], now: Timestamp) -> Plan<'a> {
        let taken = self.memory().get(&uid(set)).map(|m| m.taken.clone()).unwrap_or_default();
        let scale = scale::plan(set, servers, &taken, self.max_creating);
        let mut oldest_first = servers.to_vec();
        oldest_first.sort_by_cached_key(|s| (s.metadata.creation_timestamp.clone(), s.name_any()));
        let outdated = |server: &Server| environment::is_outdated(set, server);
        let hold = set.spec.paused;
        let roll =
            budget::roll(&oldest_first, &scale.disturbed, Budget::of(set), now, Axis::Environment, hold, outdated);
        Plan { scale, roll }
    }

    /// Decides anew on what the API server has, enters it, and does it. Says whether anything was done or tried.
    async fn act(&self, live: &Live<'_>, known: &VMReplicaSet) -> Result<bool, Error> {
        let Some(set) = live.set(known).await? else { return Ok(false) };
        let seen = Instant::now();
        let servers = live.servers(&set).await?;
        let servers: Vec<&Server> = servers.iter().collect();
        let plan = self.plan(&set, &servers, self.ctx.clock.now());
        if plan.is_done() {
            return Ok(false);
        }
        let status = set.status.clone().unwrap_or_default();
        let ledgers = plan.ledgers();
        let entered = ledgers == Ledgers { creating: status.creating, disturbed: status.disturbed };
        if !entered && !live.swap(&set, &ledgers).await? {
            return Ok(true);
        }
        self.retire(live, &servers, &plan.scale.delete).await?;
        self.touch(live, &set, &plan.roll.touch).await?;
        self.create(live, &set, &plan.scale.create, seen).await?;
        Ok(true)
    }

    async fn retire(&self, live: &Live<'_>, servers: &[&Server], names: &[String]) -> Result<(), Error> {
        let leaving: Vec<&&Server> = servers.iter().filter(|s| names.contains(&s.name_any())).collect();
        for batch in leaving.chunks(CALLS) {
            all(join_all(batch.iter().map(|server| live.delete(server))).await)?;
        }
        Ok(())
    }

    async fn touch(&self, live: &Live<'_>, set: &VMReplicaSet, servers: &[&Server]) -> Result<(), Error> {
        for batch in servers.chunks(CALLS) {
            all(join_all(batch.iter().map(|server| live.touch(set, server))).await)?;
        }
        Ok(())
    }

    /// Creates the Servers in batches that double as long as all goes well, so that what is wrong with one is not tried
    /// with all. A look at the set that has become old is taken anew, so that a name that has been given up since then
    /// is not used.
    async fn create(
        &self,
        live: &Live<'_>,
        set: &VMReplicaSet,
        names: &[String],
        mut seen: Instant,
    ) -> Result<(), Error> {
        let (mut left, mut size) = (names.to_vec(), 1);
        while !left.is_empty() {
            if seen.elapsed() > FRESH {
                let Some(newer) = live.set(set).await? else { return Ok(()) };
                let creating = newer.status.map(|s| s.creating).unwrap_or_default();
                left.retain(|name| creating.contains(name));
                seen = Instant::now();
            }
            let batch: Vec<String> = left.drain(..size.min(left.len())).collect();
            let created = join_all(batch.iter().map(|name| live.create(set, name))).await;
            for (name, created) in batch.iter().zip(created) {
                match created {
                    Ok(Created::Ours) => {}
                    Ok(Created::Taken) => self.remember_taken(set, name),
                    Err(error) => {
                        let note = error.to_string();
                        self.ctx.events.publish(&reference(set), EventType::Warning, "CreationFailed", note);
                        return Err(error);
                    }
                }
            }
            size = (size * 2).min(CALLS);
        }
        Ok(())
    }

    fn remember_taken(&self, set: &VMReplicaSet, name: &str) {
        let note = format!("the name {name} belongs to a Server that is not this set's: another ordinal is used");
        self.ctx.events.publish(&reference(set), EventType::Warning, "NameTaken", note);
        self.memory().entry(uid(set)).or_default().taken.insert(name.to_owned());
    }

    /// Writes the status if it differs, and says when to look again.
    async fn report(
        &self,
        live: &Live<'_>,
        set: &VMReplicaSet,
        servers: &[&Server],
        ledgers: Ledgers,
        now: Timestamp,
    ) -> Result<Action, Error> {
        let wanted = status::status(set, servers, ledgers, now);
        if set.status.as_ref() != Some(&wanted) {
            let last = self.memory().get(&uid(set)).and_then(|m| m.status_written);
            if let Some(wait) = last.and_then(|at| STATUS_INTERVAL.checked_sub(at.elapsed())).filter(|w| !w.is_zero()) {
                return Ok(Action::requeue(wait));
            }
            self.memory().entry(uid(set)).or_default().status_written = Some(Instant::now());
            if !live.write_status(set, &wanted).await? {
                return Ok(Action::requeue(STATUS_INTERVAL));
            }
        }
        Ok(match status::next_change(set, servers, now) {
            Some(at) => Action::requeue(until(at, now)),
            None => Action::await_change(),
        })
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid(set: &VMReplicaSet) -> String {
    set.uid().unwrap_or_default()
}

fn all(results: Vec<Result<(), Error>>) -> Result<(), Error> {
    results.into_iter().collect()
}
