//! The plan: the tasks that a Server still needs in a state, in steps. Tasks whose result is true already are left out.

use super::declared;
use crate::{
    api::{GatePoint, MonitoringPhase, Server, State, Task, TaskKind},
    digest,
};

/// A task that a Server needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Kind of the task.
    pub kind: TaskKind,
    /// For a gate: the task that it holds up.
    pub gate: Option<GatePoint>,
    /// Number of the step, from 1. Tasks of one step may run at the same time.
    pub step: i32,
    /// Digest of the part of the declaration that the task carries out.
    pub digest: String,
}

impl Planned {
    /// Whether the task does what is planned, for the same part of the declaration.
    pub(super) fn is_done_by(&self, task: &Task) -> bool {
        task.kind == self.kind && task.gate == self.gate && task.digest == self.digest
    }
}

/// The tasks that the Server still needs in this state.
#[must_use]
pub fn plan(server: &Server, state: State) -> Vec<Planned> {
    let mut plan = PlanBuilder { server, tasks: Vec::new(), step: 0 };
    match state {
        State::Initializing => initializing(&mut plan),
        State::Deploying => deploying(&mut plan),
        State::Ready => ready(&mut plan),
        State::Unknown => unknown(&mut plan),
        State::Offline => offline(&mut plan),
    }
    plan.tasks
}

fn initializing(plan: &mut PlanBuilder<'_>) {
    plan.step(&[(TaskKind::HoldTraffic, plan.server.may_receive_traffic())]);
    plan.gated(GatePoint::CreateMachine, &[(TaskKind::CreateMachine, !plan.server.machine_runs())]);
    plan.gated(
        GatePoint::InstallPackages,
        &[
            (TaskKind::InstallPackages, !plan.server.environment_matches()),
            (TaskKind::RegisterBackend, plan.server.needs_registration()),
        ],
    );
}

fn deploying(plan: &mut PlanBuilder<'_>) {
    let receives_traffic = plan.server.may_receive_traffic();
    let needs_deployment = !plan.server.app_matches();
    let needs_proof = plan.server.spec.health_check.is_some() && (needs_deployment || !plan.server.health_is_proven());
    if needs_deployment {
        plan.step(&[(TaskKind::HoldTraffic, receives_traffic)]);
        plan.gated(GatePoint::DeployApp, &[(TaskKind::DeployApp, true)]);
        plan.step(&[(TaskKind::CheckHealth, needs_proof)]);
    } else {
        // A panic floor may keep the Server in traffic until it is healthy again, so the proof must not wait for the hold.
        plan.step(&[(TaskKind::HoldTraffic, receives_traffic), (TaskKind::CheckHealth, needs_proof)]);
    }
}

fn ready(plan: &mut PlanBuilder<'_>) {
    let needs_release = plan.server.declared_traffic().is_some() && !plan.server.is_serving();
    let is_outdated = !plan.server.monitoring_matches();
    let needs_target = is_outdated && plan.server.spec.monitoring.is_some();
    plan.gated(
        GatePoint::ReleaseTraffic,
        &[
            (TaskKind::ReleaseTraffic, needs_release),
            (TaskKind::BindMonitoring, needs_target),
            (TaskKind::UnbindMonitoring, is_outdated && !needs_target),
        ],
    );
}

fn unknown(plan: &mut PlanBuilder<'_>) {
    let status = plan.server.known_status();
    let bound = status.monitoring.as_ref().is_some_and(|m| m.phase == MonitoringPhase::Bound);
    plan.step(&[(TaskKind::HoldTraffic, plan.server.may_receive_traffic()), (TaskKind::PauseMonitoring, bound)]);
    let unreachable = plan.server.machine_unreachable();
    plan.step(&[(TaskKind::RebootMachine, unreachable && plan.server.reboot_is_requested())]);
    plan.step(&[(TaskKind::AwaitRecovery, unreachable)]);
}

fn offline(plan: &mut PlanBuilder<'_>) {
    let status = plan.server.known_status();
    if !plan.server.is_retired() {
        plan.gate(GatePoint::DestroyMachine);
    }
    plan.step(&[(TaskKind::HoldTraffic, plan.server.may_receive_traffic())]);
    plan.step(&[
        (TaskKind::RemoveBackend, status.traffic.is_some()),
        (TaskKind::UnbindMonitoring, status.monitoring.is_some()),
    ]);
    plan.step(&[(TaskKind::DestroyMachine, plan.server.machine_may_exist())]);
}

struct PlanBuilder<'a> {
    server: &'a Server,
    tasks: Vec<Planned>,
    step: i32,
}

impl PlanBuilder<'_> {
    /// Adds a step with those of the tasks that are needed.
    fn step(&mut self, tasks: &[(TaskKind, bool)]) {
        if !tasks.iter().any(|(_, needed)| *needed) {
            return;
        }
        self.step += 1;
        for (kind, _) in tasks.iter().filter(|(_, needed)| *needed) {
            let digest = digest_for(self.server, *kind);
            self.tasks.push(Planned { kind: *kind, gate: None, step: self.step, digest });
        }
    }

    /// Adds a step, with the declared gate in front of it if the task that the gate holds up is needed. All tasks of the step
    /// wait for the gate.
    fn gated(&mut self, point: GatePoint, tasks: &[(TaskKind, bool)]) {
        if tasks.iter().any(|(kind, needed)| *needed && *kind == point.task()) {
            self.gate(point);
        }
        self.step(tasks);
    }

    /// Adds a step with a gate, if one is declared before this task.
    fn gate(&mut self, point: GatePoint) {
        if !self.server.spec.gates.iter().any(|gate| gate.before == point) {
            return;
        }
        self.step += 1;
        let digest = digest_for(self.server, point.task());
        self.tasks.push(Planned { kind: TaskKind::Gate, gate: Some(point), step: self.step, digest });
    }
}

/// Digest of the part of the declaration that tasks of this kind carry out.
fn digest_for(server: &Server, kind: TaskKind) -> String {
    let (spec, status) = (&server.spec, server.known_status());
    match kind {
        TaskKind::CreateMachine => digest::short(&declared::field("machine", &spec.machine)),
        TaskKind::InstallPackages => digest::short(&(declared::field("packages", &spec.packages), spec.prune_packages)),
        TaskKind::DeployApp => digest::short(&declared::field("app", &spec.app)),
        TaskKind::CheckHealth => digest::short(&(declared::field("healthCheck", &spec.health_check), status.epoch)),
        TaskKind::RegisterBackend | TaskKind::ReleaseTraffic => {
            digest::short(&declared::field("traffic", &spec.traffic))
        }
        TaskKind::BindMonitoring => digest::short(&declared::field("monitoring", &spec.monitoring)),
        TaskKind::RebootMachine => digest::short(&spec.reboot.as_ref().map(|request| &request.id)),
        TaskKind::Gate
        | TaskKind::HoldTraffic
        | TaskKind::PauseMonitoring
        | TaskKind::AwaitRecovery
        | TaskKind::RemoveBackend
        | TaskKind::UnbindMonitoring
        | TaskKind::DestroyMachine => String::new(),
    }
}
