//! Rules that the controllers follow between two decisions. They are here, and not in the controllers, so that the model checker
//! runs the same rules as the programs.

use k8s_openapi::jiff::Timestamp;

use super::plan::plan;
use crate::api::{Executor, GatePoint, Server, ServerStatus, State, Task, TaskKind, TaskPhase, TrafficPhase};

/// Rules of replicaset-controller.
impl Server {
    /// Whether the webhook has not decided yet on the newest declaration or on a request for deletion. A deletion does not pass
    /// through the admission of updates, so a status write has to ask for the decision.
    #[must_use]
    pub fn needs_decision(&self) -> bool {
        let Some(status) = &self.status else { return true };
        status.observed_generation != self.metadata.generation
            || self.is_being_deleted() && status.state != Some(State::Offline)
    }

    /// Whether the first decision will be to create the machine now: then the write that asks for the decision can also claim
    /// CreateMachine.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        let is_gated = self.spec.gates.iter().any(|gate| gate.before == GatePoint::CreateMachine);
        let is_kept = self.spec.force.is_some() || self.spec.retain.is_some();
        self.status.is_none() && !self.must_retire() && !is_kept && !is_gated
    }

    /// Whether the Server is retired and nothing is left to do about it: its object may be deleted. What failed and was done later
    /// stays in the list of tasks, and does not count.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let Some(status) = &self.status else { return false };
        status.state == Some(State::Offline)
            && self.must_retire()
            && self.is_retired()
            && status.current_tasks().all(|task| task.phase.is_finished())
            && self.blocking_failures().is_empty()
    }
}

/// Rules of the controllers that carry out tasks under the lock.
impl Server {
    /// The task of this kind that can be claimed by the same write that reports the task `finished` as succeeded: it belongs to
    /// the same executor, may begin now, and no other unfinished task comes before it.
    #[must_use]
    pub fn claimable_with_report(
        &self,
        finished: i64,
        kind: TaskKind,
        executor: Executor,
        now: Timestamp,
    ) -> Option<&Task> {
        let tasks = || self.known_status().current_tasks();
        let next = tasks().find(|task| task.kind == kind && task.phase == TaskPhase::Pending)?;
        let is_blocked = tasks().any(|t| t.step < next.step && t.id != finished && !t.phase.is_finished());
        let may_begin = next.earliest_begin().is_none_or(|at| at <= now);
        (kind.needs_lock() && next.executor() == executor && !is_blocked && may_begin).then_some(next)
    }
}

/// Rules of lb-controller.
impl Server {
    /// Whether a deletion was requested on which the webhook has not decided yet, and whose first task is going to be to hold the
    /// traffic of the Server. Then the write that says that it drains, or is removed, also asks for the decision, which finds the task
    /// begun, or not needed.
    #[must_use]
    pub fn may_hold_before_decision(&self) -> bool {
        let serves = |status: &ServerStatus| {
            let fact = status.traffic.as_ref();
            status.state != Some(State::Offline)
                && fact.is_some_and(|fact| fact.phase == TrafficPhase::Serving && fact.address.is_some())
        };
        self.is_being_deleted()
            && self.status.as_ref().is_some_and(serves)
            && plan(self, State::Offline).first().is_some_and(|first| first.kind == TaskKind::HoldTraffic)
    }

    /// The traffic phase that the load balancers should have for the Server while lb-controller has no task: that of the fact,
    /// but never traffic to a Server that must not receive any. None when no load balancer should know the Server.
    #[must_use]
    pub fn promised_traffic(&self) -> Option<TrafficPhase> {
        let fact = self.known_status().traffic.as_ref()?;
        Some(match fact.phase {
            TrafficPhase::Serving if self.may_serve() => TrafficPhase::Serving,
            TrafficPhase::Serving | TrafficPhase::Draining if self.state() == Some(State::Unknown) => {
                TrafficPhase::Held
            }
            TrafficPhase::Serving => TrafficPhase::Draining,
            other => other,
        })
    }

    /// Whether the Server may receive traffic: while it is Ready. A Server that is being retired keeps its traffic while a gate
    /// holds up HoldTraffic, because everything stays as it is until a person agrees to the retirement.
    fn may_serve(&self) -> bool {
        let is_gated =
            |task: &Task| task.kind == TaskKind::HoldTraffic && !task.phase.is_finished() && !self.is_open(task);
        match self.state() {
            Some(State::Ready) => true,
            Some(State::Offline) => self.known_status().current_tasks().any(is_gated),
            _ => false,
        }
    }
}

/// Rules of monitor-controller.
impl Server {
    /// Whether health should be proven now. It is proven only when a CheckHealth task asks for it: until then the probes may be
    /// answered by code that is about to be replaced. It is also proven after a CheckHealth task has failed, and for a Server
    /// that a person forced to be Ready without a proof.
    #[must_use]
    pub fn wants_health_proof(&self) -> bool {
        let asks =
            |task: &Task| task.kind == TaskKind::CheckHealth && (task.phase == TaskPhase::Failed || self.is_open(task));
        self.state() == Some(State::Ready) || self.known_status().current_tasks().any(asks)
    }
}
