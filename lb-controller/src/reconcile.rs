//! Carries out the traffic plan of one Server.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Server, Task, TaskKind},
    lifecycle::HoldCause,
    protocol::{StatusWrite, TaskResult},
};
use berth_runtime::{
    ApiError, Context, EventType, Expectations, ReconcileError, reference, requeue_after, resource_version,
};
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Api,
    api::{ListParams, PartialObjectMeta},
    runtime::controller::Action,
};

use crate::{
    balancer::{BalancerError, Responsible},
    balancers::{BalancerFailure, Balancers},
    kept::{Kept, KeptServers},
    member::{Member, Registration, ServerRef},
    orphans::suspect,
    plan::{ReportOrder, Seen, TrafficPlan, TrafficReport, plan},
    subsets::Subsets,
};

/// Reports that one reconcile writes before other Servers have their turn: a task with two reports (draining, held) and the
/// task after it need three.
const MAX_REPORTS: usize = 4;
/// When to reconcile a Server again whose load balancer has acted on a newer decision: by then the cache shows that version.
const SUPERSEDED_REQUEUE_AFTER: Duration = Duration::from_secs(2);

/// When to look again at a Server that a panic floor keeps in traffic. Changes of its backends bring it up at once; this is for
/// what they do not show, such as a changed threshold or another Server that will not come back.
const KEPT_REQUEUE_AFTER: Duration = Duration::from_secs(30);

/// When to try again what waits for somebody.
const BLOCKED_REQUEUE_AFTER: Duration = Duration::from_secs(5);

/// How often load balancers are asked whether requests are under way.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// Why the reconcile of a Server's traffic failed.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The Server's status could not be written.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A load balancer does not show what it should.
    #[error(transparent)]
    Balancer(#[from] BalancerFailure),
}

impl ReconcileError for TrafficError {
    fn is_terminal(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_terminal())
    }
}

/// Reconciles the traffic of Servers.
pub struct TrafficReconciler {
    ctx: Context,
    balancers: Balancers,
    expectations: Expectations,
    kept: Arc<KeptServers>,
    subsets: Subsets,
    /// Takes Servers that may be gone and still be shown.
    suspects: UnboundedSender<ServerRef>,
}

impl TrafficReconciler {
    /// A reconciler with these load balancers. It sends Servers that may be gone and still be shown to `suspects`.
    #[must_use]
    pub fn new(
        ctx: &Context,
        balancers: &Balancers,
        kept: &Arc<KeptServers>,
        subsets: &Subsets,
        suspects: UnboundedSender<ServerRef>,
    ) -> Self {
        let (ctx, balancers, kept, subsets) = (ctx.clone(), balancers.clone(), Arc::clone(kept), subsets.clone());
        Self { ctx, balancers, expectations: Expectations::default(), kept, subsets, suspects }
    }

    /// Makes the load balancers show what they should, and writes the reports that are due.
    ///
    /// # Errors
    /// See [`TrafficError`].
    pub async fn reconcile(&self, server: Arc<Server>) -> Result<Action, TrafficError> {
        if let Some(wait) = self.expectations.wait(&server) {
            return Ok(Action::requeue(wait));
        }
        match self.balancers.responsible(&server) {
            Responsible::Another => return Ok(Action::await_change()),
            Responsible::This => {}
            Responsible::Any => {
                if let Some(wait) = self.leave_to_another(&server) {
                    return Ok(Action::requeue(wait));
                }
            }
        }
        let mut server = server;
        for _ in 0..MAX_REPORTS {
            let TrafficPlan { desired, report, requeue_at, idle_from, held_for } = self.plan(&server);
            if let Some(report) = report.as_ref().filter(|report| report.order == ReportOrder::BeforeTraffic) {
                server = Arc::new(self.write_report(&server, report).await?);
                continue;
            }
            let member = member(&server, desired, report.as_ref(), held_for);
            let applied = self.apply(&server, &member).await;
            match &applied {
                Err(BalancerFailure { cause: BalancerError::Kept(kept), .. }) => {
                    return self.keep(&server, &member, kept, report).await;
                }
                Err(BalancerFailure { cause: BalancerError::Blocked(reason), .. }) => {
                    return self.wait_for(&server, reason, report).await;
                }
                _ => {}
            }
            if applied.is_ok() {
                self.kept.let_go(&member.server.uid);
            }
            match (applied, report) {
                (Ok(()), None) => {
                    return Ok(self.requeue(requeue_at, idle_from, &member));
                }
                (Ok(()), Some(report)) => {
                    if matches!(report.kind, TaskKind::RegisterBackend | TaskKind::ReleaseTraffic) {
                        self.publish_problems(&server, &member).await;
                    }
                    let written = self.write_report(&server, &report).await;
                    if written.is_err() {
                        // It may be gone, and its deletion may have been seen before it was added.
                        suspect(&self.suspects, member.server);
                    }
                    server = Arc::new(written?);
                }
                (Err(BalancerFailure { cause: BalancerError::Superseded, .. }), _) => {
                    return Ok(Action::requeue(SUPERSEDED_REQUEUE_AFTER));
                }
                (Err(failure @ BalancerFailure { cause: BalancerError::Refused { .. }, .. }), Some(report))
                    if report.task.is_some() =>
                {
                    let retry = TrafficReport { result: TaskResult::retry(failure.to_string()), ..report };
                    server = Arc::new(self.write_report(&server, &retry).await?);
                }
                (Err(failure), _) => return Err(self.publish_refusal(&server, failure)),
            }
        }
        Ok(Action::requeue(Duration::ZERO))
    }

    /// The plan, with what the load balancers say about requests under way.
    fn plan(&self, server: &Server) -> TrafficPlan {
        let (now, belongs) = (self.ctx.clock.now(), self.subsets.of(server));
        let planned = plan(server, Seen { now, is_idle: false, belongs });
        if planned.idle_from.is_none_or(|from| from > now) {
            return planned;
        }
        let draining = member(server, planned.desired.clone(), None, None);
        if self.balancers.is_idle(&draining) { plan(server, Seen { now, is_idle: true, belongs }) } else { planned }
    }

    /// When to look at the Server again. While it drains, load balancers that count requests are asked each second.
    fn requeue(&self, at: Option<Timestamp>, idle_from: Option<Timestamp>, member: &Member) -> Action {
        let now = self.ctx.clock.now();
        let counts = member.desired.as_ref().is_some_and(|desired| desired.services.is_empty());
        let asked = idle_from.filter(|_| counts).map(|from| from.max(now.saturating_add(ASK_AGAIN).unwrap_or(from)));
        let next = at.into_iter().chain(asked).min();
        next.map_or_else(Action::await_change, |next| Action::requeue(requeue_after(next, now)))
    }

    /// Makes the load balancers show the member. A load balancer that has acted on a newer decision may have it from an etcd that was
    /// restored since: then no newer version of the Server will come, and the one that is there counts.
    async fn apply(&self, server: &Server, member: &Member) -> Result<(), BalancerFailure> {
        let applied = self.balancers.apply(member).await;
        let Err(BalancerFailure { cause: BalancerError::Superseded, .. }) = applied else { return applied };
        match self.newest_until(server).await {
            Ok(Some(revision)) if revision > member.version => {
                self.balancers.apply(&Member { version: revision, ..member.clone() }).await
            }
            Ok(_) => applied,
            Err(error) => {
                tracing::warn!(server = server.name(), %error, "cannot find out whether there is a newer version of the Server");
                applied
            }
        }
    }

    /// A revision of the API server up to which this version of the Server is its newest; none if there is a newer one. Versions that
    /// load balancers have recorded are of a later decision only beyond this revision.
    async fn newest_until(&self, server: &Server) -> Result<Option<u64>, ApiError> {
        let api: Api<Server> = Api::namespaced(self.ctx.client.clone(), server.namespace());
        let this = ListParams::default().fields(&format!("metadata.name={}", server.name()));
        let list = api.list_metadata(&this).await;
        let list = list.map_err(ApiError::doing(format!("read the version of Server {}", server.name())))?;
        let is_this = |found: &PartialObjectMeta<Server>| {
            found.metadata.uid == server.metadata.uid
                && found.metadata.resource_version == server.metadata.resource_version
        };
        let is_newest = list.items.iter().any(is_this);
        Ok(list.metadata.resource_version.and_then(|revision| revision.parse().ok()).filter(|_| is_newest))
    }

    /// How long what there is to do about the Server is left to the copy whose turn it is.
    fn leave_to_another(&self, server: &Server) -> Option<Duration> {
        if self.ctx.turns.is_mine(server) {
            return None;
        }
        let TrafficPlan { desired, report, held_for, .. } = self.plan(server);
        let has_to_act = report.is_some() || !self.balancers.show(&member(server, desired, report.as_ref(), held_for));
        if has_to_act { self.ctx.turns.wait(server) } else { None }
    }

    /// Forgets a Server that is gone.
    pub fn forget(&self, uid: &str) {
        self.kept.let_go(uid);
        self.expectations.forget(uid);
    }

    /// The panic floor keeps the Server in traffic: its task says so, once.
    async fn keep(
        &self,
        server: &Server,
        member: &Member,
        kept: &Kept,
        report: Option<TrafficReport>,
    ) -> Result<Action, TrafficError> {
        self.kept.keep(&member.server, kept);
        let is_said = |task: &Task| task.message.starts_with(&kept.title());
        if let Some(report) = report.filter(|report| has_task(server, report, |task| !is_said(task))) {
            self.publish_problems(server, member).await;
            self.publish(server, "KeptInTraffic", kept.to_string());
            let waiting = TrafficReport { result: TaskResult::waiting(kept.to_string()), ..report };
            self.write_report(server, &waiting).await?;
        }
        Ok(Action::requeue(KEPT_REQUEUE_AFTER))
    }

    /// The task waits for somebody, and says so, once.
    async fn wait_for(
        &self,
        server: &Server,
        reason: &str,
        report: Option<TrafficReport>,
    ) -> Result<Action, TrafficError> {
        if let Some(report) = report.filter(|report| has_task(server, report, |task| task.message != reason)) {
            self.publish(server, "TrafficBlocked", reason.to_owned());
            let waiting = TrafficReport { result: TaskResult::waiting(reason), ..report };
            self.write_report(server, &waiting).await?;
        }
        Ok(Action::requeue(BLOCKED_REQUEUE_AFTER))
    }

    async fn write_report(&self, server: &Server, report: &TrafficReport) -> Result<Server, ApiError> {
        let write = StatusWrite::new(server);
        let written = match report.task {
            Some(task) => self.ctx.write_result(server, write, task, &report.result).await?,
            None => self.ctx.write_status(server, write.facts(&report.result.facts)).await?,
        };
        self.expectations.expect(&written);
        Ok(written)
    }

    /// Publishes what keeps a registration from having any effect.
    async fn publish_problems(&self, server: &Server, member: &Member) {
        for problem in self.balancers.problems(member).await {
            self.publish(server, problem.reason, problem.message);
        }
    }

    fn publish_refusal(&self, server: &Server, failure: BalancerFailure) -> TrafficError {
        if let BalancerError::Refused { .. } = failure.cause {
            self.publish(server, "TrafficRefused", failure.to_string());
        }
        failure.into()
    }

    fn publish(&self, server: &Server, reason: &str, note: String) {
        self.ctx.events.publish(&reference(server), EventType::Warning, reason, note);
    }
}

/// Whether the report is on a task of the Server of which this holds.
fn has_task(server: &Server, report: &TrafficReport, holds: impl FnOnce(&Task) -> bool) -> bool {
    report.task.and_then(|task| server.task(task)).is_some_and(holds)
}

/// What load balancers should show of the Server.
fn member(
    server: &Server,
    desired: Option<Registration>,
    report: Option<&TrafficReport>,
    held_for: Option<HoldCause>,
) -> Member {
    Member {
        server: ServerRef::of(server),
        version: resource_version(server),
        desired,
        must_record_version: report.is_some_and(|report| report.kind == TaskKind::HoldTraffic),
        held_for,
    }
}
