//! The plan: what a Server in a state still needs, in steps. What is already true is left out.

use super::facts;
use crate::{
    api::{GatePoint, Server, State, TaskKind},
    digest,
};

/// A task that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What is to be done.
    pub kind: TaskKind,
    /// What a gate stands before.
    pub gate: Option<GatePoint>,
    /// Tasks of one step may run together.
    pub step: i32,
    /// Digest of the part of the declaration that it carries out.
    pub digest: String,
}

/// What the Server needs in this state.
#[must_use]
pub fn plan(server: &Server, state: State) -> Vec<Planned> {
    let mut plan = Plan { server, tasks: Vec::new(), step: 0 };
    match state {
        State::Initializing => initializing(&mut plan),
        State::Deploying => deploying(&mut plan),
        State::Ready => ready(&mut plan),
        State::Unknown => unknown(&mut plan),
        State::Offline => offline(&mut plan),
    }
    plan.tasks
}

fn initializing(plan: &mut Plan<'_>) {
    let status = facts::status(plan.server);
    plan.step(&[(TaskKind::HoldTraffic, facts::takes_traffic(status))]);
    plan.gated(GatePoint::CreateMachine, &[(TaskKind::CreateMachine, !facts::machine_runs(status))]);
    plan.gated(
        GatePoint::InstallPackages,
        &[
            (TaskKind::InstallPackages, !facts::environment_right(plan.server)),
            (TaskKind::RegisterBackend, !facts::registered(plan.server)),
        ],
    );
}

fn deploying(plan: &mut Plan<'_>) {
    let status = facts::status(plan.server);
    plan.step(&[(TaskKind::HoldTraffic, facts::takes_traffic(status))]);
    let deploys = !facts::app_right(plan.server);
    plan.gated(GatePoint::DeployApp, &[(TaskKind::DeployApp, deploys)]);
    let unproven = plan.server.spec.health_check.is_some() && (deploys || !facts::health_proven(plan.server));
    plan.step(&[(TaskKind::CheckHealth, unproven)]);
}

fn ready(plan: &mut Plan<'_>) {
    let status = facts::status(plan.server);
    let releases = facts::declared_traffic(plan.server).is_some() && !facts::serves(status);
    let unmonitored = !facts::monitored(plan.server);
    let binds = unmonitored && plan.server.spec.monitoring.is_some();
    plan.gated(
        GatePoint::ReleaseTraffic,
        &[
            (TaskKind::ReleaseTraffic, releases),
            (TaskKind::BindMonitoring, binds),
            (TaskKind::UnbindMonitoring, unmonitored && !binds),
        ],
    );
}

fn unknown(plan: &mut Plan<'_>) {
    let status = facts::status(plan.server);
    let bound = status.monitoring.as_ref().is_some_and(|m| m.phase == crate::api::MonitoringPhase::Bound);
    plan.step(&[(TaskKind::HoldTraffic, facts::takes_traffic(status)), (TaskKind::PauseMonitoring, bound)]);
    let unreachable = facts::unreachable(plan.server);
    plan.step(&[(TaskKind::RebootMachine, unreachable && facts::reboot_asked_for(plan.server))]);
    plan.step(&[(TaskKind::AwaitRecovery, unreachable)]);
}

fn offline(plan: &mut Plan<'_>) {
    let status = facts::status(plan.server);
    let left = !facts::is_retired(plan.server);
    if left {
        plan.gate(GatePoint::DestroyMachine);
    }
    plan.step(&[(TaskKind::HoldTraffic, facts::takes_traffic(status))]);
    plan.step(&[
        (TaskKind::RemoveBackend, status.traffic.is_some()),
        (TaskKind::UnbindMonitoring, status.monitoring.is_some()),
    ]);
    plan.step(&[(TaskKind::DestroyMachine, facts::machine_may_exist(status))]);
}

struct Plan<'a> {
    server: &'a Server,
    tasks: Vec<Planned>,
    step: i32,
}

impl Plan<'_> {
    /// A step of those tasks that are needed.
    fn step(&mut self, tasks: &[(TaskKind, bool)]) {
        if !tasks.iter().any(|(_, needed)| *needed) {
            return;
        }
        self.step += 1;
        for (kind, _) in tasks.iter().filter(|(_, needed)| *needed) {
            let digest = part(self.server, *kind);
            self.tasks.push(Planned { kind: *kind, gate: None, step: self.step, digest });
        }
    }

    /// A step whose first task has a gate before it, where one is declared. The others of the step wait behind it too.
    fn gated(&mut self, point: GatePoint, tasks: &[(TaskKind, bool)]) {
        if tasks.iter().any(|(kind, needed)| *needed && *kind == point.task()) {
            self.gate(point);
        }
        self.step(tasks);
    }

    fn gate(&mut self, point: GatePoint) {
        if !self.server.spec.gates.iter().any(|gate| gate.before == point) {
            return;
        }
        self.step += 1;
        let digest = part(self.server, point.task());
        self.tasks.push(Planned { kind: TaskKind::Gate, gate: Some(point), step: self.step, digest });
    }
}

/// Digest of the part of the declaration that a task carries out.
fn part(server: &Server, kind: TaskKind) -> String {
    let (spec, status) = (&server.spec, facts::status(server));
    match kind {
        TaskKind::CreateMachine => digest::short(&spec.machine),
        TaskKind::InstallPackages => digest::short(&(&spec.packages, spec.prune_packages)),
        TaskKind::DeployApp => digest::short(&spec.app),
        TaskKind::CheckHealth => digest::short(&(&spec.health_check, status.epoch)),
        TaskKind::RegisterBackend | TaskKind::ReleaseTraffic => digest::short(&spec.traffic),
        TaskKind::BindMonitoring => digest::short(&spec.monitoring),
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
