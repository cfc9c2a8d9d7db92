//! Follows one class: reads its processes, says which Servers need a look, and hands changes to [`batch`](super::batch).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use berth_core::api::{BalancerClass, Server};
use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver, future::join_all};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    driver::{Driver, Entry, EntryKey},
    first, floor, in_use, named,
    shared::Shared,
    status::StatusWriter,
    view::View,
};
use crate::{
    balancer::BalancerError,
    member::{Member, ServerRef},
    panic_floor::FloorMember,
    plan,
};

/// How often all processes are read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long changes are collected, to make them together.
const BATCH_WINDOW: Duration = Duration::from_millis(20);

/// A change that somebody waits for.
pub(super) struct Submission {
    pub(super) member: Member,
    pub(super) since: Instant,
    pub(super) result: oneshot::Sender<Result<(), BalancerError>>,
}

/// Follows one class.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) class: Arc<BalancerClass>,
    pub(super) driver: Arc<dyn Driver>,
    /// What the processes show: also for those who ask without waiting.
    pub(super) view: Arc<Mutex<View>>,
    /// By UID, the version of the Server that the last change was decided on.
    pub(super) decided: BTreeMap<String, u64>,
    /// The Servers that were found to need a look, with what the processes should have shown: a look is asked for once.
    pub(super) suspects: BTreeMap<ServerRef, BTreeMap<EntryKey, Entry>>,
    pub(super) status: StatusWriter,
    /// Whether the class was marked as in use, as far as this copy knows.
    pub(super) is_marked: bool,
}

impl Worker {
    /// Runs until it is stopped.
    pub(super) async fn run(mut self, submissions: UnboundedReceiver<Submission>, stop: CancellationToken) {
        self.follow(submissions, stop).await;
        self.shared.metrics.forget(self.class.name());
    }

    async fn follow(&mut self, mut submissions: UnboundedReceiver<Submission>, stop: CancellationToken) {
        if self.driver.is_asked() {
            let leader = self.shared.leader.clone();
            let entries = Box::pin(first::entries(&self.shared, self.class.name()));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.driver.begin(entries, Arc::new(move || leader.leads())) => {}
            }
        }
        let mut tick = interval(READ_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = tick.tick() => {
                    self.look().await;
                    continue;
                }
                first = submissions.next() => first,
            };
            let Some(first) = first else { return };
            sleep(BATCH_WINDOW).await;
            let mut batch = vec![first];
            while let Ok(next) = submissions.try_recv() {
                batch.push(next);
            }
            self.settle(batch).await;
        }
    }

    /// Reads all processes, and says which Servers need a look.
    async fn look(&mut self) {
        let servers = self.servers();
        self.read(&servers).await;
        let now = self.shared.ctx.clock.now();
        let view = self.view.lock().clone();
        self.shared.metrics.show(self.class.name(), &view);
        let wrong = self.wrong(&servers, &view);
        for (server, _) in wrong.iter().filter(|(server, wanted)| self.suspects.get(*server) != Some(*wanted)) {
            self.shared.observer.changed(server.clone());
        }
        self.suspects = wrong;
        let members = floor::members(self.class.name(), &servers, &view, &self.shared.subsets, now);
        self.look_at_kept(&servers, &members);
        let known: BTreeSet<&str> = servers.iter().map(|server| server.uid()).collect();
        self.decided.retain(|uid, _| known.contains(uid.as_str()));
        let class = self.declared();
        let stays = if in_use::is_being_deleted(&class) {
            in_use::stays(&servers, &view, self.driver.is_asked())
        } else {
            None
        };
        self.status.write(&self.shared.ctx, &class, &view, stays.as_deref()).await;
        if in_use::is_being_deleted(&class) && stays.is_none() {
            self.release(&class).await;
        } else if !servers.is_empty() || !view.servers().is_empty() {
            self.mark().await;
        }
    }

    /// The class as the cache has it.
    fn declared(&self) -> Arc<BalancerClass> {
        self.shared.classes.get(None, self.class.name()).unwrap_or_else(|| Arc::clone(&self.class))
    }

    /// Marks the class as in use, once. Traffic goes on without the mark: a class that is deleted without it leaves its entries.
    pub(super) async fn mark(&mut self) {
        let class = self.declared();
        self.is_marked |= in_use::is_marked(&class) || in_use::is_being_deleted(&class);
        if !self.is_marked && self.shared.leader.leads() {
            match in_use::mark(&self.shared.ctx, &class, true).await {
                Ok(written) => self.is_marked = written,
                Err(error) => tracing::warn!(%error, "the BalancerClass may be deleted although it is in use"),
            }
        }
    }

    /// Lets a class go that is to be deleted and has nothing left.
    async fn release(&self, class: &BalancerClass) {
        if !in_use::is_marked(class) || !self.shared.leader.leads() {
            return;
        }
        if let Err(error) = in_use::mark(&self.shared.ctx, class, false).await {
            tracing::warn!(%error, "the BalancerClass stays; trying again");
        }
    }

    /// Reads all processes at once. `servers` are those that name this class.
    pub(super) async fn read(&self, servers: &[Arc<Server>]) {
        let backends = self.backends(servers);
        let processes = self.driver.processes();
        let reads = processes.iter().map(|process| self.driver.read(process, &backends));
        let read = join_all(reads).await;
        let now = self.shared.ctx.clock.now();
        let weights = self.shared.weights(self.class.name(), servers, now);
        let mut view = self.view.lock();
        view.weights = weights;
        for (process, read) in processes.iter().zip(read) {
            view.record(process, read.map_err(|error| error.to_string()), now);
        }
        view.processes.retain(|name, _| processes.contains(name));
        view.ignore(self.class.spec.unreachable(), now);
    }

    /// The Servers that name this class, in their declaration or as a fact.
    pub(super) fn servers(&self) -> Vec<Arc<Server>> {
        let class = self.class.name();
        let servers = self.shared.servers.store().state().into_iter();
        servers.filter(|server| named::classes_of(server).any(|named| named == class)).collect()
    }

    /// The backends of this class that the Servers name.
    fn backends(&self, servers: &[Arc<Server>]) -> BTreeSet<String> {
        let class = self.class.name();
        let named = servers.iter().flat_map(|server| named::backends_of(server));
        named.filter(|backend| backend.class.as_deref() == Some(class)).filter_map(|b| b.name.clone()).collect()
    }

    /// The Servers of which the processes do not show what they should, and the owners of entries that nobody knows; with what should
    /// be shown of them.
    fn wrong(&self, servers: &[Arc<Server>], view: &View) -> BTreeMap<ServerRef, BTreeMap<EntryKey, Entry>> {
        let now = self.shared.ctx.clock.now();
        let mut owners = view.servers();
        let mut wrong = BTreeMap::new();
        for server in servers {
            let identity = ServerRef::of(server);
            owners.remove(&identity);
            let desired = plan::desired(server, now, self.shared.subsets.of(server));
            let wanted = view.wanted(self.class.name(), &identity, desired.as_ref());
            if !view.shows(&identity, &wanted) {
                wrong.insert(identity, wanted);
            }
        }
        wrong.extend(owners.into_iter().map(|owner| (owner, BTreeMap::new())));
        wrong
    }

    /// Looks again at Servers that a floor keeps, if more of their backend serve now, or less are needed.
    fn look_at_kept(&self, servers: &[Arc<Server>], members: &BTreeMap<String, BTreeMap<String, FloorMember>>) {
        let namespaces: BTreeSet<&str> = servers.iter().map(|server| server.namespace()).collect();
        for (backend, members) in members {
            let serving = members.values().filter(|member| member.serves).count();
            let title = floor::title(self.class.name(), backend);
            for (server, kept) in namespaces.iter().flat_map(|namespace| self.shared.kept.of(namespace, &title)) {
                if serving > kept.counts.serving || members.len() < kept.counts.registered {
                    self.shared.observer.changed(server);
                }
            }
        }
    }
}
