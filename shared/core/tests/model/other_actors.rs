//! The controllers that need no lock: lb-controller and monitor-controller.

use berth_core::{
    api::{
        Executor, HealthState, MachinePhase, MonitoringPhase, Outcome, Server, ServerStatus, State, Task, TaskKind,
        TaskPhase, TrafficPhase,
    },
    lifecycle::{current_tasks, is_open, open_tasks},
};

use crate::{
    Berth, Mutation,
    apiserver::{Answer, Write},
    machine_actors::written_by,
    world::{Endpoint, Seen, Shot, World},
};

/// What the load balancer is to show, and what is to be reported when.
struct Plan {
    target: Option<TrafficPhase>,
    report: Option<(i64, Option<TrafficPhase>)>,
    /// The report comes first: from then on the Server counts as taking traffic.
    report_first: bool,
    /// Traffic is being taken away.
    fence: bool,
}

impl Berth {
    /// The next step of lb-controller: a write that is under way, a new one, or a report.
    pub(crate) fn lb_step(&self, world: &mut World, who: usize) {
        if let Some(shot) = world.actors[who].shot.take() {
            return shoot(world, &shot);
        }
        if world.object.is_none() && world.endpoint.is_some() {
            // A stray: the Server itself was asked for.
            world.actors[who].shot = Some(Shot { target: None, decided: world.rv, slice: world.slice });
            return;
        }
        let Some(cache) = world.actors[who].cache.clone() else { return };
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
        if plan.report_first && shows(world, &plan, cache.rv) != Shows::Older {
            self.traffic_report(world, who, &plan);
            return;
        }
        match shows(world, &plan, cache.rv) {
            Shows::This => self.traffic_report(world, who, &plan),
            Shows::Newer => {}
            Shows::Older => {
                if world.endpoint.is_none() && !confirmed(world, &plan) {
                    return;
                }
                let shot = Shot { target: plan.target, decided: cache.rv, slice: world.slice };
                world.actors[who].shot = Some(shot);
            }
        }
    }

    fn traffic_report(&self, world: &mut World, who: usize, plan: &Plan) {
        let Some((task, fact)) = plan.report else { return };
        let report = Some((task, Outcome::Succeeded));
        let write = Write { traffic: Some(fact), report, ..written_by(world, who) };
        let cache = world.actors[who].cache.clone().unwrap();
        self.write(world, who, &cache, &write);
    }

    /// The next step of monitor-controller: what its probes say now, and a report.
    pub(crate) fn monitor_step(&self, world: &mut World, who: usize) {
        let Some(cache) = world.actors[who].cache.clone() else { return };
        let server = &cache.version.server;
        let Some(status) = &server.status else { return };
        let known = status.machine.as_ref().is_some_and(|m| m.phase == MachinePhase::Running);
        let machine = world.machines.first().filter(|machine| machine.alive);
        let reachable = machine.is_some();
        let healthy = machine.is_some_and(|machine| machine.code > 0) && !world.sick;
        let mut write = written_by(world, who);
        let said = status.reachability.as_ref().is_none_or(|fact| fact.reachable);
        if known && status.state != Some(State::Offline) && reachable != said {
            write.reachable = Some(reachable);
        }
        let proven = status.health.as_ref().filter(|h| Some(h.epoch) == status.epoch).map(|h| h.state);
        if known && status.epoch.is_some() {
            write.healthy = match (healthy, proven) {
                (true, Some(HealthState::Healthy)) => None,
                (true, _) => proof_wanted(server, status).then_some(true),
                (false, Some(HealthState::Healthy)) => Some(false),
                (false, _) => None,
            };
        }
        for task in open_tasks(server, Executor::MonitorController) {
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
        if write != written_by(world, who) {
            self.write(world, who, &cache, &write);
        }
    }
}

fn proof_wanted(server: &Server, status: &ServerStatus) -> bool {
    status.state == Some(State::Ready)
        || current_tasks(status).any(|task| {
            task.kind == TaskKind::CheckHealth && (task.phase == TaskPhase::Failed || is_open(server, task))
        })
}

fn plan(server: &Server, status: &ServerStatus) -> Plan {
    let fact = status.traffic.as_ref().map(|fact| fact.phase);
    let rest = Plan { target: at_rest(server, status, fact), report: None, report_first: false, fence: false };
    let Some(task) = open_tasks(server, Executor::LbController).min_by_key(|task| task.step) else { return rest };
    let ready = status.state == Some(State::Ready);
    let addressed = status.machine.as_ref().is_some_and(|machine| machine.address.is_some());
    let held = Some(TrafficPhase::Held);
    match task.kind {
        TaskKind::HoldTraffic => {
            Plan { target: fact.and(held), report: Some((task.id, fact.and(held))), fence: true, ..rest }
        }
        TaskKind::RegisterBackend if addressed => Plan { target: held, report: Some((task.id, held)), ..rest },
        TaskKind::ReleaseTraffic if ready && addressed => {
            Plan { report: Some((task.id, Some(TrafficPhase::Serving))), report_first: true, ..rest }
        }
        TaskKind::RemoveBackend => Plan { target: None, report: Some((task.id, None)), fence: true, ..rest },
        _ => rest,
    }
}

fn at_rest(server: &Server, status: &ServerStatus, fact: Option<TrafficPhase>) -> Option<TrafficPhase> {
    match fact? {
        TrafficPhase::Serving if may_serve(server, status) => Some(TrafficPhase::Serving),
        TrafficPhase::Serving | TrafficPhase::Draining if status.state == Some(State::Unknown) => {
            Some(TrafficPhase::Held)
        }
        TrafficPhase::Serving => Some(TrafficPhase::Draining),
        other => Some(other),
    }
}

fn may_serve(server: &Server, status: &ServerStatus) -> bool {
    let waits = |task: &Task| task.kind == TaskKind::HoldTraffic && !task.phase.is_finished() && !is_open(server, task);
    let kept_by_a_gate = || status.state == Some(State::Offline) && current_tasks(status).any(waits);
    status.state == Some(State::Ready) || kept_by_a_gate()
}

#[derive(PartialEq)]
enum Shows {
    This,
    /// Something that was decided later.
    Newer,
    Older,
}

fn shows(world: &World, plan: &Plan, decided: u32) -> Shows {
    match (&world.endpoint, plan.target) {
        (None, None) => Shows::This,
        (Some(endpoint), target) if endpoint.decided > decided => {
            if Some(endpoint.phase) == target {
                Shows::This
            } else {
                Shows::Newer
            }
        }
        (Some(endpoint), Some(target)) if endpoint.phase == target && (!plan.fence || endpoint.decided == decided) => {
            Shows::This
        }
        _ => Shows::Older,
    }
}

/// An endpoint that does not exist keeps no version, so the Server itself is asked whether to make one.
fn confirmed(world: &World, plan: &Plan) -> bool {
    let Some(server) = world.server() else { return false };
    let Some(status) = &server.status else { return false };
    self::plan(server, status).target == plan.target
}

/// The write arrives: it counts only if the slice is still the one that was looked at.
fn shoot(world: &mut World, shot: &Shot) {
    if shot.slice != world.slice {
        return;
    }
    world.slice += 1;
    world.endpoint = shot.target.map(|phase| Endpoint { phase, decided: shot.decided });
    let serves = shot.target == Some(TrafficPhase::Serving);
    let status = world.server().and_then(|server| server.status.as_ref());
    let fact = status.and_then(|status| status.traffic.as_ref()).map(|fact| fact.phase);
    if serves && !matches!(fact, Some(TrafficPhase::Serving | TrafficPhase::Draining)) {
        world.break_guarantee(2, "traffic was let through without anybody being bound to take it away again");
    }
}

impl Berth {
    /// A status write; whoever made it knows the outcome, unless the answer is lost.
    pub(crate) fn write(&self, world: &mut World, who: usize, seen: &Seen, write: &Write) -> Answer {
        let answer = crate::apiserver::write(world, &self.memo, self.mutation, seen, write);
        if let Answer::Written(newer) = &answer {
            let cache = &mut world.actors[who].cache;
            if cache.as_ref().is_none_or(|cache| cache.rv <= newer.rv) {
                *cache = Some(newer.clone());
            }
        }
        answer
    }
}
