//! The reconcile of a Server for everything that takes one short write: acknowledgements, gates, and the object's end.

use std::time::Duration;

use berth_core::{
    api::{Approval, ApprovalStatus, Report, Server},
    approvals::{self, GateSettlement},
    protocol::{GuardedPatch, StatusWrite},
};
use berth_runtime::{ApiError, requeue_after, written};
use kube::{Api, api::Patch, runtime::controller::Action};

use super::{approvals_of_set, object, plan::NextAction, reconciler::ServerReconciler, retry};

/// After a write that met a changed Server: usually the cache shows the change before, and the Server is reconciled then.
const AFTER_STALE_WRITE: Duration = Duration::from_secs(1);
/// After a write, whose change brings the Server up again as soon as the cache shows it. It never does if etcd was restored since to
/// the very version that the cache shows; only then this is needed.
const AFTER_WRITE: Duration = Duration::from_mins(5);
/// While a task of the Server runs: its report normally acknowledges the declaration, but may be refused or never come.
const WHILE_TASK_RUNS: Duration = Duration::from_secs(5);
/// While the Server's set is not, or not yet, in the generation that an Approval names: Servers are not reconciled when
/// their set changes.
const WHILE_SET_DIFFERS: Duration = Duration::from_secs(30);

impl ServerReconciler {
    /// Reconciles a Server.
    ///
    /// # Errors
    /// When a call of the API server fails.
    pub async fn reconcile(&self, server: &Server) -> Result<Action, ApiError> {
        let runs_task = self.running.contains(server);
        let action = self.next_action(server, runs_task);
        if action.is_write()
            && let Some(wait) = self.ctx.turns.wait(server)
        {
            return Ok(Action::requeue(wait));
        }
        match action {
            NextAction::DeleteObject => object::delete(&self.ctx, server).await.map(after_write),
            NextAction::RemoveFinalizer => object::remove_finalizer(&self.ctx, server).await.map(after_write),
            NextAction::Acknowledge => {
                let write = StatusWrite::new(server).acknowledge();
                requeue_if_stale(self.ctx.write_status(server, write).await.map(drop))
            }
            NextAction::SettleGate(settlement) => self.settle_gate(server, settlement).await,
            NextAction::ReadSet => self.settle_gate_by_set(server, runs_task).await,
            NextAction::RequeueAt(at) => Ok(Action::requeue(requeue_after(at, self.ctx.clock.now()))),
            NextAction::AwaitChange if runs_task => Ok(Action::requeue(WHILE_TASK_RUNS)),
            NextAction::AwaitChange => self.retry_for_changed_class(server).await,
            // The controller of tasks does these: see `run_tasks`.
            NextAction::ClaimFirstTask | NextAction::RunTask(_) => Ok(Action::await_change()),
        }
    }

    async fn settle_gate_by_set(&self, server: &Server, runs_task: bool) -> Result<Action, ApiError> {
        let approvals = self.approvals();
        let approvals = approvals.iter().map(AsRef::as_ref);
        let now = self.ctx.clock.now();
        match approvals_of_set::settlement_by_current_set(&self.ctx.client, server, approvals, now).await? {
            Some(settlement) if !self.enter(server, &settlement).await? => Ok(Action::requeue(AFTER_STALE_WRITE)),
            Some(settlement) => self.settle_gate(server, settlement).await,
            None if runs_task => Ok(Action::requeue(WHILE_TASK_RUNS)),
            None => Ok(Action::requeue(WHILE_SET_DIFFERS)),
        }
    }

    /// Enters the Server in the Approval that settles its gate, if that is limited to some Servers. Says whether the gate may be
    /// reported on: not if the Approval has changed since the cache has shown it, or covers no more Servers.
    async fn enter(&self, server: &Server, settlement: &GateSettlement) -> Result<bool, ApiError> {
        let Some(name) = &settlement.enter_in else { return Ok(true) };
        let approvals = self.approvals();
        let found = approvals.iter().find(|a| a.name() == name && a.namespace() == server.namespace());
        let Some((approval, servers)) =
            found.and_then(|approval| Some((approval, approvals::entered(approval, server, self.ctx.clock.now())?)))
        else {
            return Ok(false);
        };
        let status = ApprovalStatus { servers };
        let patch = GuardedPatch::of_version(&approval.metadata).add(&["status"], &status).build();
        let api: Api<Approval> = Api::namespaced(self.ctx.client.clone(), server.namespace());
        let result = api.patch_status(name, &self.ctx.patch_params(), &Patch::Json::<()>(patch)).await;
        written(result.map_err(ApiError::doing(format!("enter Server {} in Approval {name}", server.name()))))
    }

    async fn settle_gate(&self, server: &Server, settlement: GateSettlement) -> Result<Action, ApiError> {
        let task_id = settlement.task_id;
        let report = Report {
            task_id,
            holder: self.ctx.holder.clone(),
            outcome: settlement.outcome,
            message: settlement.message,
            retry_after_seconds: None,
            successors: Vec::new(),
        };
        let written = self.ctx.write_status(server, StatusWrite::new(server).report(report)).await;
        requeue_if_stale(written.map(|newer| self.ctx.publish_if_failed(&newer, task_id)))
    }

    /// Requests another attempt at a failed task if the Server's class has changed since the task began.
    async fn retry_for_changed_class(&self, server: &Server) -> Result<Action, ApiError> {
        let class = self.classes.get(&server.spec.machine.class_name);
        if let Some(request) = class.and_then(|class| retry::after_class_change(server, &class)) {
            tracing::info!(server = server.name(), reason = request.reason, "requesting another attempt");
            return object::request_retry(&self.ctx, server, &request).await.map(after_write);
        }
        Ok(Action::await_change())
    }
}

/// A write that met a changed Server is made again, also if the cache has shown that change before, and no other follows.
fn after_write(is_written: bool) -> Action {
    Action::requeue(if is_written { AFTER_WRITE } else { AFTER_STALE_WRITE })
}

fn requeue_if_stale(written: Result<(), ApiError>) -> Result<Action, ApiError> {
    match written {
        Ok(()) => Ok(Action::requeue(AFTER_WRITE)),
        Err(error) if error.is_stale() => Ok(Action::requeue(AFTER_STALE_WRITE)),
        Err(error) => Err(error),
    }
}
