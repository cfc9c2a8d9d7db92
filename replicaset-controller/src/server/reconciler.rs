//! What the reconciles of Servers share.

use std::sync::Arc;

use berth_core::api::{Approval, Server};
use berth_iaas::Classes;
use berth_runtime::{Cache, Context, ServerCache, TaskRunner};
use futures::Stream;
use kube::runtime::reflector::ObjectRef;

use super::{
    plan::{NextAction, ThisInstance, next_action},
    tasks::TaskContext,
};
use crate::{in_progress::InProgress, set::creation_batch::CreationBatches};

/// Reconciles Servers.
pub struct ServerReconciler {
    pub(super) ctx: Context,
    pub(super) tasks: TaskContext,
    pub(super) runner: TaskRunner,
    pub(super) cache: ServerCache,
    pub(super) classes: Classes,
    approvals: Cache<Approval>,
    /// The Servers that this process carries out a task of.
    pub(super) running: InProgress,
    batches: CreationBatches,
}

impl ServerReconciler {
    /// A reconciler of the Servers in this cache.
    #[must_use]
    pub fn new(
        ctx: &Context,
        tasks: TaskContext,
        cache: &ServerCache,
        classes: &Classes,
        approvals: &Cache<Approval>,
        batches: CreationBatches,
    ) -> Self {
        Self {
            ctx: ctx.clone(),
            tasks,
            runner: TaskRunner::new(ctx, cache),
            cache: cache.clone(),
            classes: classes.clone(),
            approvals: approvals.clone(),
            running: InProgress::default(),
            batches,
        }
    }

    /// The Servers that waited for the end of their creation batch, once it has ended.
    pub fn finished_batches(&self) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
        self.batches.finished()
    }

    /// What to do next about the Server. Nothing is begun about a new Server while its creation batch is being created:
    /// [`Self::finished_batches`] names it afterwards.
    pub(super) fn next_action(&self, server: &Server, runs_task: bool) -> NextAction {
        if self.batches.must_wait(server) {
            return NextAction::AwaitChange;
        }
        let approvals = self.approvals();
        let instance = ThisInstance { holder: &self.ctx.holder, runs_task };
        next_action(server, &approvals.iter().map(AsRef::as_ref), instance, self.ctx.clock.now())
    }

    pub(super) fn approvals(&self) -> Vec<Arc<Approval>> {
        self.approvals.store().state()
    }
}
