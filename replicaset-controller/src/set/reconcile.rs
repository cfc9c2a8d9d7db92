//! The reconcile of a VMReplicaSet: observe, plan, write what is going to be done, do it.
//!
//! The cache decides only whether there may be anything to do. What is done is planned on the set and its Servers as read from
//! the API server, in this order, and guarded by the set's `resourceVersion`.

use std::{sync::Arc, time::Duration};

use berth_core::api::{Server, VMReplicaSet, VMReplicaSetStatus};
use berth_runtime::{ApiError, Context, EventType, ListedServer, reference, requeue_after};
use futures::Stream;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::{controller::Action, reflector::ObjectRef};
use tokio::time::Instant;

use super::{
    apply::Applier,
    creation_batch::{BatchGuard, CreationBatches},
    drift_repair::DriftReports,
    held_servers::HeldGauge,
    inquiries::Inquiries,
    machines::{MachineSource, NoMachines},
    observe::{Observed, SetMemories},
    plan::{Plan, PlanInput, SetLedgers, SetLimits, plan},
    status::{news, next_change, status},
    writes::SetWrites,
    zone_index::ZoneIndex,
};
use crate::{class_use::ClassRooms, sight::BlindMonitors};

/// The status, which holds the ledgers, is written at most this often while things change: often enough for people to watch.
/// The first change is written at once.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a write is tried again after somebody else has written the set: the cache needs a moment to show it.
const CONFLICT: Duration = Duration::from_millis(100);
/// How often one reconcile acts while its creations are late: once to create, once to remove what was given up meanwhile, and a few
/// times more if others write the set as well.
const MOST_ROUNDS: u32 = 6;

/// Reconciles VMReplicaSets.
pub struct SetReconciler {
    ctx: Context,
    limits: SetLimits,
    machines: Arc<dyn MachineSource>,
    drifts: Arc<dyn DriftReports>,
    memories: SetMemories,
    batches: CreationBatches,
    inquiries: Inquiries,
    zones: Arc<ZoneIndex>,
    held: HeldGauge,
    monitors: BlindMonitors,
    rooms: Option<ClassRooms>,
}

impl SetReconciler {
    /// Keeps to these limits, asks `machines` whether machines can be created, and has the drift repaired that `drifts` found.
    #[must_use]
    pub fn new(
        ctx: Context,
        limits: SetLimits,
        machines: Arc<dyn MachineSource>,
        drifts: Arc<dyn DriftReports>,
    ) -> Self {
        let (memories, batches) = (SetMemories::default(), CreationBatches::default());
        let (inquiries, held) = (Inquiries::new(&ctx, machines.clone()), HeldGauge::register(&ctx.metrics));
        let zones = Arc::new(ZoneIndex::new(limits.zone_brake));
        Self {
            ctx,
            limits,
            machines,
            drifts,
            memories,
            batches,
            inquiries,
            zones,
            held,
            monitors: BlindMonitors::default(),
            rooms: None,
        }
    }

    /// Says in the status of sets when one of these monitors is blind.
    #[must_use]
    pub fn telling(self, monitors: BlindMonitors) -> Self {
        Self { monitors, ..self }
    }

    /// Creates no more Servers of a class than it allows.
    #[must_use]
    pub fn with_rooms(mut self, rooms: ClassRooms) -> Self {
        self.rooms = Some(rooms);
        self
    }

    /// The batches of Servers that this process creates.
    #[must_use]
    pub fn batches(&self) -> CreationBatches {
        self.batches.clone()
    }

    /// The failure domains of all Servers. The caller keeps it up to date, and complete before the first reconcile: a set must
    /// not take a fault of all for its own.
    #[must_use]
    pub fn zones(&self) -> Arc<ZoneIndex> {
        self.zones.clone()
    }

    /// The sets to reconcile because something was heard of an unreachable machine. Only the first caller gets them.
    pub fn answers(&self) -> impl Stream<Item = ObjectRef<VMReplicaSet>> + Send + use<> {
        self.inquiries.notifications()
    }

    /// Reconciles a set whose Servers, by the cache, are these.
    ///
    /// # Errors
    /// When a call to the API server fails.
    pub async fn reconcile(&self, set: &VMReplicaSet, servers: &[&Server]) -> Result<Action, ApiError> {
        if set.metadata.deletion_timestamp.is_some() {
            self.memories.forget(set);
            self.inquiries.forget(set);
            return Ok(Action::await_change());
        }
        let now = self.ctx.clock.now();
        let observed = self.memories.observe(set, servers, &*self.drifts, now);
        let (plan, no_machines) = self.plan(set, servers, &observed, now).await;
        self.memories.note_held(set, &plan.failover.held, &self.held);
        let asked = servers.iter().copied().filter(|server| plan.failover.ask.iter().any(|name| name == server.name()));
        self.inquiries.ask(set, asked);
        let wanted = self.status(set, servers, &plan, now);
        if plan.has_no_action() && set.status.as_ref() == Some(&wanted) {
            let changes = next_change(set, servers, now).into_iter().chain(plan.requeue_at).chain(observed.requeue_at);
            let changes = changes.min().map(|at| requeue_after(at, now));
            let class = no_machines.map(|problem| problem.requeue_after());
            return Ok(class.into_iter().chain(changes).min().map_or_else(Action::await_change, Action::requeue));
        }
        if let Some(wait) = self.ctx.turns.wait(set) {
            return Ok(Action::requeue(wait));
        }
        if let Some(wait) = self.memories.write_allowed_in(set) {
            return Ok(Action::requeue(wait));
        }
        let writes = SetWrites::new(&self.ctx, set.namespace());
        // Ledgers are never written because of what a cache shows, not even what leaves them.
        let requeue_after = if plan.has_no_action() && plan.ledgers == SetLedgers::of(set) {
            self.write_status(&writes, set, &wanted).await?
        } else {
            self.act(&writes, set, servers, &observed).await?
        };
        Ok(requeue_after.map_or_else(Action::await_change, Action::requeue))
    }

    /// The status that the set should have.
    fn status(&self, set: &VMReplicaSet, servers: &[&Server], plan: &Plan<'_>, now: Timestamp) -> VMReplicaSetStatus {
        self.monitors.tell(set, status(set, servers, plan, now), now)
    }

    /// The plan, and why it does without machines, if it would need some.
    async fn plan<'a>(
        &self,
        set: &VMReplicaSet,
        servers: &[&'a Server],
        observed: &Observed,
        now: Timestamp,
    ) -> (Plan<'a>, Option<NoMachines>) {
        let (answers, domains) = (self.inquiries.known(set, servers), self.zones.of(servers));
        let input = PlanInput {
            set,
            servers,
            now,
            limits: self.limits,
            foreign_names: &observed.foreign_names,
            no_machines: None,
            drift: &observed.drift,
            answers: &answers,
            domains: &domains,
        };
        let with_machines = plan(input);
        if !with_machines.needs_machines() {
            return (with_machines, None);
        }
        let problem = match self.machines.check(set).await {
            Ok(()) => self.rooms.as_ref().and_then(|rooms| rooms.lack(set, with_machines.create.len())),
            Err(problem) => Some(problem),
        };
        match problem {
            None => (with_machines, None),
            Some(problem) => (plan(PlanInput { no_machines: Some(&problem), ..input }), Some(problem)),
        }
    }

    /// Acts until no Server was created whose name may have been given up meanwhile: a surplus Server is removed before it
    /// begins. Says when to reconcile again.
    async fn act(
        &self,
        writes: &SetWrites<'_>,
        cached_set: &VMReplicaSet,
        cached: &[&Server],
        observed: &Observed,
    ) -> Result<Option<Duration>, ApiError> {
        let mut batch = None;
        for _ in 0..MOST_ROUNDS {
            let (requeue_after, doubtful) = self.act_once(writes, cached_set, cached, observed).await?;
            let has_conflict = requeue_after == Some(CONFLICT);
            match (doubtful, &batch) {
                (Some(doubtful), _) => batch = Some(doubtful),
                // The set has changed again; its new Servers wait.
                (None, Some(_)) if has_conflict => {}
                (None, _) => return Ok(requeue_after),
            }
        }
        drop(batch);
        Ok(Some(CONFLICT))
    }

    /// Plans again on what the API server has, writes the ledgers, and acts. Says when to reconcile again, and returns the batch
    /// if it has to act again before the batch ends.
    async fn act_once(
        &self,
        writes: &SetWrites<'_>,
        cached_set: &VMReplicaSet,
        cached: &[&Server],
        observed: &Observed,
    ) -> Result<(Option<Duration>, Option<BatchGuard>), ApiError> {
        let Some(set) = writes.api.get_again(cached_set).await? else { return Ok((None, None)) };
        let read_at = Instant::now();
        let servers = writes.api.list_servers(&set, cached).await?;
        let servers: Vec<&Server> = servers.iter().map(ListedServer::server).collect();
        let now = self.ctx.clock.now();
        let (plan, _) = self.plan(&set, &servers, observed, now).await;
        if let Some(requeue_after) = self.enter(writes, &set, &servers, &plan, now).await? {
            return Ok((Some(requeue_after), None));
        }
        let applier = Applier {
            ctx: &self.ctx,
            writes,
            set: &set,
            memories: &self.memories,
            machines: &*self.machines,
            inquiries: &self.inquiries,
            drifts: &*self.drifts,
            batches: &self.batches,
            max_creating: self.limits.creating,
        };
        let doubtful = applier.apply(&servers, &plan, read_at).await?;
        // The status follows when the cache has seen what was done; asked for anyway, in case the cache can see nothing of it.
        Ok((Some(STATUS_INTERVAL), doubtful))
    }

    /// Writes the ledgers of the plan, or makes sure that they are what the set already holds. Says when to try again if
    /// somebody else has written the set in the meantime.
    async fn enter(
        &self,
        writes: &SetWrites<'_>,
        set: &VMReplicaSet,
        servers: &[&Server],
        plan: &Plan<'_>,
        now: Timestamp,
    ) -> Result<Option<Duration>, ApiError> {
        if plan.ledgers != SetLedgers::of(set) {
            return self.write_status(writes, set, &self.status(set, servers, plan, now)).await;
        }
        // Without a write nothing has shown yet that the ledger was still this one when the Servers were listed: a name of it
        // may have been given to another Server since.
        if !writes.api.is_unchanged(set).await? {
            self.memories.pause_writes(set, CONFLICT);
            return Ok(Some(CONFLICT));
        }
        self.memories.pause_writes(set, STATUS_INTERVAL);
        Ok(None)
    }

    /// Writes the status. Says when to try again if somebody else has written the set in the meantime.
    async fn write_status(
        &self,
        writes: &SetWrites<'_>,
        set: &VMReplicaSet,
        wanted: &VMReplicaSetStatus,
    ) -> Result<Option<Duration>, ApiError> {
        self.memories.pause_writes(set, STATUS_INTERVAL);
        if !writes.api.swap_status(set, wanted).await? {
            self.memories.pause_writes(set, CONFLICT);
            return Ok(Some(CONFLICT));
        }
        for (reason, note) in news(set.status.as_ref(), wanted) {
            self.ctx.events.publish(&reference(set), EventType::Warning, &reason, note);
        }
        Ok(None)
    }
}
