//! Does for one Server what its plan says.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Outcome, Server, Task, TaskKind},
    protocol::StatusWrite,
};
use berth_runtime::{Context, EventType, Recent, ReconcileError, WriteError, reference, resource_version};
use kube::{ResourceExt, runtime::controller::Action};

use crate::{
    balancer::{BalancerError, LoadBalancer, Member},
    plan::{Fact, Order, Plan, Step, plan},
    slices::EndpointSlices,
};

/// Writes after which a reconcile gives others their turn. A task and the one after it need two.
const STEPS: usize = 4;
/// When to look again at a Server whose load balancer was acted upon by a newer decision.
const LATER: Duration = Duration::from_secs(2);

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Server's status could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A load balancer does not show what it should.
    #[error(transparent)]
    Balancer(#[from] BalancerError),
}

impl ReconcileError for Error {
    fn is_terminal(&self) -> bool {
        matches!(self, Self::Write(error) if error.is_terminal())
    }
}

/// Traffic of Servers.
pub struct Traffic {
    ctx: Context,
    slices: Arc<EndpointSlices>,
    balancers: Vec<Arc<dyn LoadBalancer>>,
    recent: Recent,
}

impl Traffic {
    /// With EndpointSlices as the load balancer.
    #[must_use]
    pub fn new(ctx: &Context, slices: &Arc<EndpointSlices>) -> Self {
        let balancers: Vec<Arc<dyn LoadBalancer>> = vec![slices.clone()];
        Self { ctx: ctx.clone(), slices: slices.clone(), balancers, recent: Recent::default() }
    }

    /// Makes the load balancers show what they should, and reports what is due.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn reconcile(&self, server: Arc<Server>) -> Result<Action, Error> {
        if self.recent.is_behind(&server) {
            return Ok(Action::await_change());
        }
        let mut server = server;
        for _ in 0..STEPS {
            let Plan { target, step, again } = plan(&server, self.ctx.clock.now());
            if let Some(step) = step.as_ref().filter(|step| step.order == Order::BeforeTraffic) {
                server = Arc::new(self.report(&server, step).await?);
                continue;
            }
            let fence = step.as_ref().is_some_and(|step| step.kind == TaskKind::HoldTraffic);
            let member = Member {
                namespace: server.namespace().unwrap_or_default(),
                name: server.name_any(),
                uid: server.uid().unwrap_or_default(),
                version: resource_version(&*server),
                target,
                fence,
            };
            match (self.show(&member).await, step) {
                (Ok(()), None) => return Ok(self.look_again(again)),
                (Ok(()), Some(step)) => {
                    self.warn(&server, &step, &member).await;
                    server = Arc::new(self.report(&server, &step).await?);
                }
                (Err(BalancerError::Superseded), _) => return Ok(Action::requeue(LATER)),
                (Err(error @ BalancerError::Refused { .. }), Some(step)) => {
                    let step =
                        Step { outcome: Outcome::Retry, message: error.to_string(), fact: Fact::Unchanged, ..step };
                    server = Arc::new(self.report(&server, &step).await?);
                }
                (Err(error), _) => return Err(self.complain(&server, error)),
            }
        }
        Ok(Action::requeue(Duration::ZERO))
    }

    /// The Server is gone.
    pub fn forget(&self, uid: &str) {
        self.recent.forget(uid);
    }

    async fn show(&self, member: &Member) -> Result<(), BalancerError> {
        for balancer in &self.balancers {
            if member.fence || !balancer.shows(member) {
                tracing::debug!(
                    server = %member.name, namespace = %member.namespace, balancer = balancer.name(),
                    phase = ?member.phase(), "changing traffic"
                );
                balancer.apply(member).await?;
            }
        }
        Ok(())
    }

    async fn report(&self, server: &Server, step: &Step) -> Result<Server, WriteError> {
        let write = match &step.fact {
            Fact::Unchanged => StatusWrite::new(server),
            Fact::Known(fact) => StatusWrite::new(server).traffic(Some(fact.clone())),
            Fact::Unknown => StatusWrite::new(server).traffic(None),
        };
        let Some(task) = task(server, step.task) else {
            return Err(WriteError::Stale { message: format!("there is no task {}", step.task) });
        };
        let report = self.ctx.report(task, step.outcome, step.message.clone());
        let written = self.ctx.write(server, write.report(report)).await?;
        self.recent.wrote(&written);
        tracing::info!(
            server = %server.name_any(), namespace = ?server.namespace(), task = step.task, kind = %step.kind,
            outcome = ?step.outcome, message = %step.message, "reported"
        );
        Ok(written)
    }

    /// Says what a person should know about a step that is about to be reported.
    async fn warn(&self, server: &Server, step: &Step, member: &Member) {
        let publish = |reason: &str, note: String| {
            self.ctx.events.publish(&reference(server), EventType::Warning, reason, note);
        };
        if step.outcome == Outcome::Failed {
            publish("TaskFailed", format!("{}: {}", step.kind, step.message));
        }
        let Some(target) = member.target.as_ref().filter(|_| step.kind == TaskKind::RegisterBackend) else { return };
        match self.slices.missing_services(&member.namespace, target).await {
            Ok(missing) => {
                for name in missing {
                    let note = format!(
                        "spec.traffic.services: Service {name:?} does not exist: create it, without a selector"
                    );
                    publish("ServiceMissing", note);
                }
            }
            Err(error) => tracing::debug!(%error, "cannot tell whether the Services exist"),
        }
    }

    fn complain(&self, server: &Server, error: BalancerError) -> Error {
        if let BalancerError::Refused { .. } = error {
            self.ctx.events.publish(&reference(server), EventType::Warning, "TrafficRefused", error.to_string());
        }
        error.into()
    }

    fn look_again(&self, again: Option<k8s_openapi::jiff::Timestamp>) -> Action {
        match again {
            Some(time) => {
                let wait = time.duration_since(self.ctx.clock.now());
                Action::requeue(Duration::try_from(wait).unwrap_or(Duration::ZERO))
            }
            None => Action::await_change(),
        }
    }
}

fn task(server: &Server, id: i64) -> Option<&Task> {
    server.status.as_ref()?.tasks.iter().find(|task| task.id == id)
}
