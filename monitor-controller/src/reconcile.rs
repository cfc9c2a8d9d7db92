//! Writes for one Server what is due.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Outcome, Server, Task},
    protocol::StatusWrite,
};
use berth_runtime::{Context, EventType, Recent, WriteError, reference};
use kube::{ResourceExt, runtime::controller::Action};

use crate::{
    facts::{Due, Note, due},
    prober::Prober,
};

/// Writes after which a reconcile gives others their turn.
const STEPS: usize = 4;

/// Health and monitoring of Servers.
pub struct Monitor {
    ctx: Context,
    prober: Prober,
    recent: Recent,
}

impl Monitor {
    /// With this prober.
    #[must_use]
    pub fn new(ctx: &Context, prober: Prober) -> Self {
        Self { ctx: ctx.clone(), prober, recent: Recent::default() }
    }

    /// Probes the Server as it is now, and writes what is due.
    ///
    /// # Errors
    /// When the write fails; a refused or outdated one waits for the cache.
    pub async fn reconcile(&self, server: Arc<Server>) -> Result<Action, WriteError> {
        if self.recent.is_behind(&server) {
            return Ok(Action::await_change());
        }
        let uid = server.uid().unwrap_or_default();
        let mut server = server;
        for _ in 0..STEPS {
            self.prober.watch(&server);
            let now = self.ctx.clock.now();
            let due = due(&server, &self.prober.observed(&uid), now);
            if due.is_empty() {
                let wait = due.again.map(|time| time.duration_since(now));
                return Ok(match wait {
                    Some(wait) => Action::requeue(Duration::try_from(wait).unwrap_or(Duration::ZERO)),
                    None => Action::await_change(),
                });
            }
            server = Arc::new(self.write(&server, &due).await?);
            if due.note.is_some_and(|note| note.outcome == Outcome::Running) {
                self.prober.reported(&uid, now);
            }
        }
        Ok(Action::requeue(Duration::ZERO))
    }

    /// The Server is gone.
    pub fn forget(&self, uid: &str) {
        self.prober.forget(uid);
        self.recent.forget(uid);
    }

    async fn write(&self, server: &Server, due: &Due) -> Result<Server, WriteError> {
        let mut write = StatusWrite::new(server);
        if let Some(fact) = &due.reachability {
            tracing::info!(server = %server.name_any(), reachable = fact.reachable, message = %fact.message, "reachability");
            write = write.reachability(fact.clone());
        }
        if let Some(fact) = &due.health {
            tracing::info!(server = %server.name_any(), state = ?fact.state, message = %fact.message, "health");
            write = write.health(fact.clone());
        }
        if let Some(fact) = &due.monitoring {
            write = write.monitoring(fact.clone());
        }
        if let Some(note) = &due.note {
            let Some(task) = task(server, note.task) else {
                return Err(WriteError::Stale { message: format!("there is no task {}", note.task) });
            };
            write = write.report(self.ctx.report(task, note.outcome, note.message.clone()));
        }
        let written = self.ctx.write(server, write).await?;
        self.recent.wrote(&written);
        if let Some(note) = &due.note {
            self.tell(server, note);
        }
        Ok(written)
    }

    fn tell(&self, server: &Server, note: &Note) {
        tracing::info!(
            server = %server.name_any(), namespace = ?server.namespace(), task = note.task, kind = %note.kind,
            outcome = ?note.outcome, message = %note.message, "reported"
        );
        if note.outcome == Outcome::Failed {
            let text = format!("{}: {}", note.kind, note.message);
            self.ctx.events.publish(&reference(server), EventType::Warning, "TaskFailed", text);
        }
    }
}

fn task(server: &Server, id: i64) -> Option<&Task> {
    server.status.as_ref()?.tasks.iter().find(|task| task.id == id)
}
