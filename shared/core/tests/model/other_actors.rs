//! The controllers that need no lock: lb-controller and monitor-controller.

use berth_core::{
    api::{
        Executor, HealthState, MachinePhase, MonitoringPhase, Outcome, Server, ServerStatus, State, TaskKind,
        TrafficPhase,
    },
    lifecycle::HoldCause,
};

use crate::{
    Berth, Mutation,
    apiserver::{Answer, Write},
    machine_actors::written_by,
    world::{BalancerWrite, Endpoint, Snapshot, World},
};

/// The phase that the endpoint should have, and the report that belongs to it: the task, if there is one already, and the fact.
struct Plan {
    target: Option<TrafficPhase>,
    report: Option<(Option<i64>, Option<TrafficPhase>)>,
    /// The report comes before the endpoint is written: from then on the Server counts as serving.
    report_first: bool,
    /// The endpoint must carry this decision even if its phase is right already, so that no older decision can overwrite it.
    fence: bool,
}

impl Berth {
    /// The next step of lb-controller: to complete its write to the load balancer, to begin one, or to report.
    pub(crate) fn lb_step(&self, world: &mut World, index: usize) {
        if let Some(balancer_write) = world.actors[index].balancer_write.take() {
            return apply_balancer_write(world, &balancer_write);
        }
        if world.object.is_none() && world.endpoint.is_some() {
            // An endpoint without its Server: the controller has read that the Server does not exist.
            world.actors[index].balancer_write =
                Some(BalancerWrite { target: None, decided: world.rv, slice: world.slice });
            return;
        }
        let Some(cache) = world.actors[index].cache.clone() else { return };
        let server = &cache.version.server;
        let Some(status) = &server.status else { return };
        let mut plan = plan(server, status);
        if self.mutation == Mutation::ReleaseFirst && plan.report_first {
            plan.target = Some(TrafficPhase::Serving);
            plan.report_first = false;
        }
        if self.mutation == Mutation::NoFence {
            plan.fence = false;
        }
        if world.floor && self.is_kept(world, server, &plan) {
            return;
        }
        if plan.report_first && compare_endpoint(world, &plan, cache.rv) != Comparison::Outdated {
            self.traffic_report(world, index, &plan);
            return;
        }
        match compare_endpoint(world, &plan, cache.rv) {
            Comparison::AsPlanned => self.traffic_report(world, index, &plan),
            Comparison::DecidedLater => {}
            Comparison::Outdated => {
                if world.endpoint.is_none() && plan.target != Some(TrafficPhase::Held) && !confirmed(world, &plan) {
                    return;
                }
                let balancer_write = BalancerWrite { target: plan.target, decided: cache.rv, slice: world.slice };
                world.actors[index].balancer_write = Some(balancer_write);
            }
        }
    }

    /// Whether the panic floor keeps the Server in traffic.
    fn is_kept(&self, world: &World, server: &Server, plan: &Plan) -> bool {
        let is_serving = |phase| phase == TrafficPhase::Serving;
        let has_fact =
            server.status.as_ref().and_then(|s| s.traffic.as_ref()).is_some_and(|fact| is_serving(fact.phase));
        let leaves =
            world.endpoint.as_ref().is_some_and(|e| is_serving(e.phase)) && !plan.target.is_some_and(is_serving);
        let is_subject = server.hold_cause() != HoldCause::Deliberate || self.mutation == Mutation::FloorForAll;
        has_fact && leaves && is_subject
    }

    fn traffic_report(&self, world: &mut World, index: usize, plan: &Plan) {
        let Some((task, fact)) = plan.report else { return };
        let report = task.map(|task| (task, Outcome::Succeeded));
        let write = Write { traffic: Some(fact), report, ..written_by(world, index) };
        let cache = world.actors[index].cache.clone().unwrap();
        self.write(world, index, &cache, &write);
    }

    /// The next step of monitor-controller: to write what its probes say now, with a report.
    pub(crate) fn monitor_step(&self, world: &mut World, index: usize) {
        let Some(cache) = world.actors[index].cache.clone() else { return };
        let server = &cache.version.server;
        let Some(status) = &server.status else { return };
        let known = status.machine.as_ref().is_some_and(|m| m.phase == MachinePhase::Running);
        let machine = world.machines.first().filter(|machine| machine.alive);
        let reachable = machine.is_some();
        let healthy = machine.is_some_and(|machine| machine.code > 0) && !world.unhealthy;
        let mut write = written_by(world, index);
        let said = status.reachability.as_ref().is_none_or(|fact| fact.reachable);
        if known && status.state != Some(State::Offline) && reachable != said {
            write.reachable = Some(reachable);
        }
        let proven = status.health.as_ref().filter(|h| Some(h.epoch) == status.epoch).map(|h| h.state);
        if known && status.epoch.is_some() {
            write.healthy = match (healthy, proven) {
                (true, Some(HealthState::Healthy)) => None,
                (true, _) => server.wants_health_proof().then_some(true),
                (false, Some(HealthState::Healthy)) => Some(false),
                (false, _) => None,
            };
        }
        for task in server.open_tasks(Executor::MonitorController) {
            match task.kind {
                TaskKind::CheckHealth if known && healthy => write.healthy = Some(true),
                TaskKind::AwaitRecovery if reachable => {}
                TaskKind::BindMonitoring => write.monitoring = Some(Some(MonitoringPhase::Bound)),
                TaskKind::PauseMonitoring => write.monitoring = Some(Some(MonitoringPhase::Paused)),
                TaskKind::UnbindMonitoring => write.monitoring = Some(None),
                _ => continue,
            }
            write.report = Some((task.id, Outcome::Succeeded));
            break;
        }
        if write != written_by(world, index) {
            self.write(world, index, &cache, &write);
        }
    }
}

fn plan(server: &Server, status: &ServerStatus) -> Plan {
    let fact = status.traffic.as_ref().map(|fact| fact.phase);
    let rest = Plan { target: server.promised_traffic(), report: None, report_first: false, fence: false };
    let Some(task) = server.open_tasks(Executor::LbController).min_by_key(|task| task.step) else {
        if !server.may_hold_before_decision() {
            return rest;
        }
        let drain = server.spec.traffic.as_ref().and_then(|traffic| traffic.drain).unwrap_or_default();
        let shown = (drain.seconds > 0).then_some(TrafficPhase::Draining);
        return Plan { target: shown, report: Some((None, shown)), fence: true, ..rest };
    };
    let ready = status.state == Some(State::Ready);
    let addressed = status.machine.as_ref().is_some_and(|machine| machine.address.is_some());
    let held = Some(TrafficPhase::Held);
    match task.kind {
        TaskKind::HoldTraffic => {
            Plan { target: fact.and(held), report: Some((Some(task.id), fact.and(held))), fence: true, ..rest }
        }
        TaskKind::RegisterBackend if addressed => Plan { target: held, report: Some((Some(task.id), held)), ..rest },
        // Registered in the same step: the endpoint is there, without traffic, before the report.
        TaskKind::ReleaseTraffic if ready && addressed && fact.is_none() => {
            Plan { target: held, report: Some((Some(task.id), Some(TrafficPhase::Serving))), ..rest }
        }
        TaskKind::ReleaseTraffic if ready && addressed => {
            Plan { report: Some((Some(task.id), Some(TrafficPhase::Serving))), report_first: true, ..rest }
        }
        TaskKind::RemoveBackend => Plan { target: None, report: Some((Some(task.id), None)), fence: true, ..rest },
        _ => rest,
    }
}

#[derive(PartialEq)]
enum Comparison {
    AsPlanned,
    /// The endpoint was written for a later decision.
    DecidedLater,
    Outdated,
}

fn compare_endpoint(world: &World, plan: &Plan, decided: u32) -> Comparison {
    match (&world.endpoint, plan.target) {
        (None, None) => Comparison::AsPlanned,
        (Some(endpoint), target) if endpoint.decided > decided => {
            if Some(endpoint.phase) == target {
                Comparison::AsPlanned
            } else {
                Comparison::DecidedLater
            }
        }
        (Some(endpoint), Some(target)) if endpoint.phase == target && (!plan.fence || endpoint.decided == decided) => {
            Comparison::AsPlanned
        }
        _ => Comparison::Outdated,
    }
}

/// An endpoint that does not exist has no version to compare with, so the Server is read before one with traffic is created.
fn confirmed(world: &World, plan: &Plan) -> bool {
    let Some(server) = world.server() else { return false };
    let Some(status) = &server.status else { return false };
    self::plan(server, status).target == plan.target
}

/// The write arrives. It is refused if the slice has changed since it was read.
fn apply_balancer_write(world: &mut World, balancer_write: &BalancerWrite) {
    if balancer_write.slice != world.slice {
        return;
    }
    world.slice += 1;
    world.endpoint = balancer_write.target.map(|phase| Endpoint { phase, decided: balancer_write.decided });
    let serves = balancer_write.target == Some(TrafficPhase::Serving);
    let status = world.server().and_then(|server| server.status.as_ref());
    let fact = status.and_then(|status| status.traffic.as_ref()).map(|fact| fact.phase);
    if serves && !matches!(fact, Some(TrafficPhase::Serving | TrafficPhase::Draining)) {
        world.violate(2, "traffic was let through although no fact obliges lb-controller to take it away again");
    }
}

impl Berth {
    /// A status write. Its writer sees the new version at once, unless the answer is lost.
    pub(crate) fn write(&self, world: &mut World, index: usize, snapshot: &Snapshot, write: &Write) -> Answer {
        let answer = crate::apiserver::write(world, &self.memo, self.mutation, snapshot, write);
        if let Answer::Written(newer) = &answer {
            let cache = &mut world.actors[index].cache;
            if cache.as_ref().is_none_or(|cache| cache.rv <= newer.rv) {
                *cache = Some(newer.clone());
            }
        }
        answer
    }
}
