//! Servers: what replicaset-controller does about each.

pub mod gates;
mod object;
pub mod plan;
mod reconcile;
pub mod retry;
mod work;

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use berth_core::api::{Approval, Server, Task, TaskPhase};
use berth_runtime::{Cache, Context, EventType, ServerCache, TaskRunner, reference};
use futures::Stream;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use prometheus_client::metrics::counter::Counter;

use crate::{iaas::Classes, set::births::Births, work::Tools};
use plan::{Own, Step};

/// Reconciles Servers.
pub struct Servers {
    ctx: Context,
    tools: Tools,
    runner: TaskRunner,
    cache: ServerCache,
    classes: Classes,
    approvals: Cache<Approval>,
    /// UIDs of the Servers that this process has a task of in hand.
    at_work: Mutex<HashSet<String>>,
    failed: Counter,
    births: Births,
}

impl Servers {
    /// With what these caches show.
    #[must_use]
    pub fn new(
        ctx: &Context,
        tools: Tools,
        cache: &ServerCache,
        classes: &Classes,
        approvals: &Cache<Approval>,
        births: Births,
    ) -> Self {
        let failed = Counter::default();
        let help = "Tasks that failed beyond their attempts, and gates that were refused";
        ctx.metrics.register(|r| r.register("tasks_failed", help, failed.clone()));
        Self {
            ctx: ctx.clone(),
            tools,
            runner: TaskRunner::new(ctx, cache),
            cache: cache.clone(),
            classes: classes.clone(),
            approvals: approvals.clone(),
            at_work: Mutex::default(),
            failed,
            births,
        }
    }

    /// The Servers that have waited for others of their set to be created, and need not wait any longer.
    pub fn ready_to_begin(&self) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
        self.births.ended()
    }

    /// Nothing is begun about a new Server while others of its set are being created: [`Self::ready_to_begin`] names it then.
    fn next(&self, server: &Server, at_work: bool) -> Step {
        if self.births.hold(server) {
            return Step::Rest;
        }
        let approvals = self.approvals.store().state();
        let own = Own { holder: &self.ctx.holder, at_work };
        plan::next(server, approvals.iter().map(AsRef::as_ref), own, self.ctx.clock.now())
    }

    fn is_at_work(&self, server: &Server) -> bool {
        self.lock().contains(&uid(server))
    }

    fn begin_work(&self, server: &Server) -> AtWork<'_> {
        let uid = uid(server);
        self.lock().insert(uid.clone());
        AtWork { servers: self, uid }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells people of tasks that a write has turned Failed.
    fn report_failures(&self, before: &Server, after: &Server) {
        for task in newly_failed(before, after) {
            self.failed.inc();
            let reason = if task.gate.is_some() { "GateRefused" } else { "TaskFailed" };
            let note = format!("{} (task {}): {}", task.kind, task.id, task.message);
            tracing::warn!(server = after.name_any(), namespace = after.namespace(), note, "{reason}");
            self.ctx.events.publish(&reference(after), EventType::Warning, reason, note);
        }
    }
}

/// A Server is at work for as long as this lives.
struct AtWork<'a> {
    servers: &'a Servers,
    uid: String,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.servers.lock().remove(&self.uid);
    }
}

fn uid(server: &Server) -> String {
    server.uid().unwrap_or_default()
}

fn newly_failed<'a>(before: &'a Server, after: &'a Server) -> impl Iterator<Item = &'a Task> {
    let tasks = |server: &'a Server| server.status.iter().flat_map(|s| &s.tasks);
    let failed = tasks(after).filter(|task| task.phase == TaskPhase::Failed);
    failed.filter(move |task| !tasks(before).any(|t| t.id == task.id && t.phase == TaskPhase::Failed))
}
