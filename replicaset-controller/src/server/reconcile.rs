//! One look at a Server for everything that is a short write: acknowledgements, gates, and the object's end.

use std::time::Duration;

use berth_core::{
    api::{Report, Server},
    protocol::StatusWrite,
};
use berth_runtime::{CallError as Error, WriteError, until};
use kube::{ResourceExt as _, runtime::controller::Action};

use super::{
    Servers,
    gates::{self, Verdict},
    object,
    plan::Step,
    retry,
};

/// How soon a write that met an outdated Server is tried again, should the cache not learn of anything newer.
const STALE: Duration = Duration::from_secs(1);
/// How soon to look again at a Server whose task will acknowledge its declaration.
const AT_WORK: Duration = Duration::from_secs(5);
/// How soon to look again at a Server's set that is not (yet) what Approvals were given for.
const SET: Duration = Duration::from_secs(30);

impl Servers {
    /// Looks at a Server.
    pub async fn reconcile(&self, server: &Server) -> Result<Action, Error> {
        let at_work = self.is_at_work(server);
        match self.next(server, at_work) {
            Step::Delete => object::delete(&self.ctx, server).await.map(|()| Action::await_change()),
            Step::Release => object::release(&self.ctx, server).await.map(|()| Action::await_change()),
            Step::Acknowledge => self.write(server, StatusWrite::new(server).acknowledge()).await,
            Step::Gate(verdict) => self.pass_on(server, verdict).await,
            Step::AskSet => self.ask_set(server, if at_work { AT_WORK } else { SET }).await,
            Step::Wait(at) => Ok(Action::requeue(until(at, self.ctx.clock.now()))),
            Step::Rest if at_work => Ok(Action::requeue(AT_WORK)),
            Step::Rest => self.retry_for_class(server).await,
            Step::Begin | Step::Work(_) => Ok(Action::await_change()),
        }
    }

    async fn ask_set(&self, server: &Server, again: Duration) -> Result<Action, Error> {
        let approvals = self.approvals.store().state();
        match gates::verdict_of_set(&self.ctx.client, server, approvals.iter().map(AsRef::as_ref)).await? {
            Some(verdict) => self.pass_on(server, verdict).await,
            // What was decided may be about what the set is going to be, and nobody tells a Server of its set.
            None => Ok(Action::requeue(again)),
        }
    }

    async fn pass_on(&self, server: &Server, verdict: Verdict) -> Result<Action, Error> {
        let report = Report {
            task_id: verdict.task_id,
            holder: self.ctx.holder.clone(),
            outcome: verdict.outcome,
            message: verdict.message,
            retry_after_seconds: None,
        };
        self.write(server, StatusWrite::new(server).report(report)).await
    }

    /// Tries again what failed, if the Server's class has changed since then.
    async fn retry_for_class(&self, server: &Server) -> Result<Action, Error> {
        let class = self.classes.get(&server.spec.machine.class_name);
        if let Some(request) = class.and_then(|class| retry::wanted(server, &class)) {
            tracing::info!(server = server.name_any(), reason = request.reason, "trying again");
            object::retry(&self.ctx, server, &request).await?;
        }
        Ok(Action::await_change())
    }

    pub(super) async fn write(&self, server: &Server, write: StatusWrite) -> Result<Action, Error> {
        match self.ctx.write(server, write).await {
            Ok(after) => {
                self.report_failures(server, &after);
                Ok(Action::await_change())
            }
            Err(WriteError::Stale { .. }) => Ok(Action::requeue(STALE)),
            Err(error) => Err(error.into()),
        }
    }
}
