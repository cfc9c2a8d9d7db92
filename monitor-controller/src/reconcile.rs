//! Reconciles one Server: probes it as it is declared, and writes what is due.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Outcome, Server},
    protocol::{Fact, StatusWrite},
};
use berth_runtime::{ApiError, Context, Expectations, requeue_after};
use kube::runtime::controller::Action;

use crate::{
    plan::{DueWrite, plan},
    prober::Prober,
};

/// Writes of one reconcile before other Servers get their turn. A write carries one report, and more than two tasks are rarely
/// open at once.
const MAX_WRITES: usize = 4;

/// Reconciles the health, reachability and monitoring of Servers.
pub(crate) struct Monitor {
    ctx: Context,
    prober: Prober,
    expectations: Expectations,
}

impl Monitor {
    pub(crate) fn new(ctx: &Context, prober: Prober) -> Self {
        Self { ctx: ctx.clone(), prober, expectations: Expectations::default() }
    }

    /// Probes the Server as it is declared now, and writes what is due.
    ///
    /// # Errors
    /// When a write fails.
    pub(crate) async fn reconcile(&self, cached: Arc<Server>) -> Result<Action, ApiError> {
        if let Some(wait) = self.expectations.wait(&cached) {
            return Ok(Action::requeue(wait));
        }
        let mut server = cached;
        for write in 0..MAX_WRITES {
            self.prober.update(&server);
            let now = self.ctx.clock.now();
            let due = plan(&server, &self.prober.observation(server.uid()), now);
            if due.is_empty() {
                return Ok(due
                    .requeue_at
                    .map_or_else(Action::await_change, |at| Action::requeue(requeue_after(at, now))));
            }
            if write == 0
                && let Some(wait) = self.ctx.turns.wait(&*server)
            {
                return Ok(Action::requeue(wait));
            }
            server = Arc::new(self.write(&server, &due).await?);
            if due.report.is_some_and(|report| report.result.outcome == Outcome::Running) {
                self.prober.failure_reported(server.uid(), now);
            }
        }
        Ok(Action::requeue(Duration::ZERO))
    }

    /// No longer probes a Server that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.prober.forget(uid);
        self.expectations.forget(uid);
    }

    async fn write(&self, server: &Server, due: &DueWrite) -> Result<Server, ApiError> {
        let write = StatusWrite::new(server).facts(&due.facts);
        for fact in &due.facts {
            log_fact(server, fact);
        }
        let written = match &due.report {
            Some(report) => self.ctx.write_result(server, write, report.task_id, &report.result).await?,
            None => self.ctx.write_status(server, write).await?,
        };
        self.expectations.expect(&written);
        Ok(written)
    }
}

fn log_fact(server: &Server, fact: &Fact) {
    let (server, namespace) = (server.name(), server.namespace());
    match fact {
        Fact::Reachability(fact) => {
            tracing::info!(server, namespace, reachable = fact.reachable, message = %fact.message, "reachability");
        }
        Fact::Health(fact) => {
            tracing::info!(server, namespace, state = ?fact.state, message = %fact.message, "health");
        }
        _ => {}
    }
}
