//! The API server and the webhook: guarded writes through the real rules.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use berth_core::{
    FINALIZER,
    api::{
        Claim, Executor, GatePoint, HealthFact, HealthState, MonitoringFact, MonitoringPhase, Outcome,
        ReachabilityFact, Report, Server, State, Task, TaskPhase, TrafficPhase,
    },
    identity::Identities,
    lifecycle::{RefusalReason, admit_status, current_tasks, decide, monitoring_digest},
    protocol::StatusWrite,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    Mutation,
    support::{self, Denied, LOCK, controller, machine, machine_phase, start},
    world::{Broken, Found, Seen, Version, World},
};

/// A status write, as what it says.
#[expect(clippy::option_option, reason = "a fact is left as it is, removed or set")]
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct Write {
    /// `<executor>/<instance>`.
    pub(crate) holder: String,
    /// Only while the writer holds the lock.
    pub(crate) as_holder: bool,
    pub(crate) acknowledge: bool,
    pub(crate) found: Option<Found>,
    pub(crate) traffic: Option<Option<TrafficPhase>>,
    pub(crate) reachable: Option<bool>,
    pub(crate) healthy: Option<bool>,
    pub(crate) monitoring: Option<Option<MonitoringPhase>>,
    pub(crate) report: Option<(i64, Outcome)>,
    /// Task, and whether it is taken (or given back).
    pub(crate) claim: Option<(i64, bool)>,
}

/// What a write came to.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Written(Seen),
    Refused,
    Stale,
}

/// What the webhook says of a write, and what that shows.
#[derive(Clone)]
pub(crate) enum Verdict {
    Written { version: Arc<Version>, broken: Option<Broken>, force_over: bool },
    Refused,
    Stale,
}

/// Writes that were judged before: object, what the writer had seen, and the write.
pub(crate) type Memo = Mutex<HashMap<(u64, u64, Write), Verdict>>;

/// A status write by somebody who has seen this.
pub(crate) fn write(world: &mut World, memo: &Memo, mutation: Mutation, seen: &Seen, write: &Write) -> Answer {
    let Some(object) = world.object.clone() else { return Answer::Stale };
    let key = (object.version.key, seen.version.key, write.clone());
    let known = memo.lock().unwrap().get(&key).cloned();
    let verdict = known.unwrap_or_else(|| {
        let verdict = judge(&object.version.server, &seen.version.server, write, mutation);
        memo.lock().unwrap().insert(key, verdict.clone());
        verdict
    });
    match verdict {
        Verdict::Refused => Answer::Refused,
        Verdict::Stale => Answer::Stale,
        Verdict::Written { version, broken, force_over } => {
            world.broken = world.broken.or(broken);
            world.force_over |= force_over;
            let seen = store(world, version);
            check_person(world);
            Answer::Written(seen)
        }
    }
}

/// Stores a version; one that changes nothing is no new one.
pub(crate) fn store(world: &mut World, version: Arc<Version>) -> Seen {
    match &world.object {
        Some(object) if object.version.key == version.key => object.clone(),
        _ => {
            world.rv += 1;
            let seen = Seen { version, rv: world.rv };
            world.object = Some(seen.clone());
            seen
        }
    }
}

fn judge(old: &Server, seen: &Server, write: &Write, mutation: Mutation) -> Verdict {
    let locked_by = old.status.as_ref().and_then(|s| s.lock.as_ref()).map(|lock| lock.holder.as_str());
    if write.as_holder && locked_by != Some(write.holder.as_str()) {
        return Verdict::Stale;
    }
    let executor = executor(&write.holder);
    let mut result = admit(old, seen, write, executor);
    match (mutation, &result) {
        (Mutation::IgnoreLock, Err(Denied::Refused(refusal))) if refusal.reason == RefusalReason::Locked => {
            let mut open = old.clone();
            open.status.as_mut().unwrap().lock = None;
            result = admit(&open, seen, write, executor);
        }
        (Mutation::CountTwice, Err(Denied::Refused(refusal))) if refusal.reason == RefusalReason::NotOpen => {
            result = admit(&reopened(old, write), seen, write, executor);
        }
        (Mutation::IgnoreForce, _) => {
            let mut free = old.clone();
            free.spec.force = None;
            result = admit(&free, seen, write, executor).map(|new| Server { spec: old.spec.clone(), ..new });
        }
        _ => {}
    }
    match result {
        Err(Denied::Stale) => Verdict::Stale,
        Err(Denied::Refused(_)) => Verdict::Refused,
        Ok(new) => Verdict::Written {
            broken: check_tasks(old, &new).or_else(|| check_release(old, &new)),
            force_over: facts_agree(&new),
            version: Version::new(new),
        },
    }
}

fn admit(old: &Server, seen: &Server, write: &Write, executor: Executor) -> Result<Server, Denied> {
    support::write_status(old, build(seen, write), &controller(executor), start())
}

/// The object as if the task that is reported on had not ended yet.
fn reopened(old: &Server, write: &Write) -> Server {
    let mut open = old.clone();
    let status = open.status.as_mut().unwrap();
    if let Some((id, _)) = write.report
        && let Some(task) = status.tasks.iter_mut().find(|task| task.id == id)
    {
        task.phase = TaskPhase::Running;
        let (renewed_at, acquired_at) = (Time(start()), Time(start()));
        status.lock = Some(berth_core::api::Lock {
            holder: write.holder.clone(),
            task_id: id,
            acquired_at,
            renewed_at,
            duration_seconds: LOCK,
        });
    }
    open
}

pub(crate) fn executor(holder: &str) -> Executor {
    let name = holder.split('/').next().unwrap_or_default();
    Executor::CONTROLLERS.into_iter().find(|executor| executor.name() == name).unwrap()
}

/// Guarantee 4: a result counts once, so what has ended stays as it ended; and one holder has the machine in hand.
fn check_tasks(old: &Server, new: &Server) -> Option<Broken> {
    let tasks = |server: &Server| server.status.clone().unwrap_or_default().tasks;
    let changed = tasks(old)
        .into_iter()
        .filter(|task| task.phase.is_finished())
        .any(|task| tasks(new).into_iter().any(|other| other.id == task.id && other != task));
    let status = new.status.as_ref()?;
    let running = status.tasks.iter().filter(|t| t.kind.needs_lock() && t.phase == TaskPhase::Running);
    let running: Vec<i64> = running.map(|task| task.id).collect();
    let held = status.lock.as_ref().map(|lock| lock.task_id);
    if changed {
        Some(Broken { guarantee: 4, how: "the result of a task was counted again" })
    } else if running.len() > 1 || running.first().is_some_and(|id| held != Some(*id)) {
        Some(Broken { guarantee: 4, how: "a task that touches the machine runs without the lock" })
    } else {
        None
    }
}

/// Guarantee 2: a Server begins to count as serving only while it is Ready, its gate is passed, and nobody is at the machine.
fn check_release(old: &Server, new: &Server) -> Option<Broken> {
    let serves = |server: &Server| {
        let fact = server.status.as_ref().and_then(|status| status.traffic.as_ref());
        fact.is_some_and(|fact| fact.phase == TrafficPhase::Serving)
    };
    if serves(old) || !serves(new) {
        return None;
    }
    let status = old.status.as_ref()?;
    let gated = old.spec.gates.iter().any(|gate| gate.before == GatePoint::ReleaseTraffic);
    let passed = |task: &Task| task.gate == Some(GatePoint::ReleaseTraffic) && task.phase == TaskPhase::Succeeded;
    let at_the_machine = status.lock.as_ref().is_some_and(|lock| lock.renewed_at.0 == start());
    if status.state != Some(State::Ready) {
        Some(Broken { guarantee: 2, how: "traffic was let through outside of Ready" })
    } else if gated && !current_tasks(status).any(passed) {
        Some(Broken { guarantee: 2, how: "traffic was let through before its gate was passed" })
    } else if at_the_machine {
        Some(Broken { guarantee: 2, how: "traffic was let through to a machine that somebody is at" })
    } else {
        None
    }
}

/// Whether the facts alone ask for the state that is forced.
fn facts_agree(server: &Server) -> bool {
    let Some(force) = &server.spec.force else { return false };
    let mut free = server.clone();
    free.spec.force = None;
    decide(&free).state == force.state
}

/// Guarantee 6: what a person wants stands.
fn check_person(world: &mut World) {
    let Some(server) = world.server() else { return };
    let Some(state) = server.status.as_ref().and_then(|status| status.state) else { return };
    let retired = server.spec.offline || server.metadata.deletion_timestamp.is_some();
    let forced = server.spec.force.as_ref().map(|force| force.state).filter(|_| !world.force_over);
    if retired && state != State::Offline {
        world.break_guarantee(6, "a retired Server came back");
    } else if !retired && forced.is_some_and(|forced| forced != state) {
        world.break_guarantee(6, "a force was undone");
    }
}

/// The finalizer goes, if the webhook lets it, and the object with it.
pub(crate) fn release_object(world: &mut World, mutation: Mutation) {
    let Some(object) = world.object.clone() else { return };
    let mut new = object.version.server.clone();
    new.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    let author = controller(Executor::ReplicasetController);
    let allowed = support::write_spec(&object.version.server, new, &author, start()).is_ok();
    if !allowed && mutation != Mutation::NoFinalizerGuard {
        return;
    }
    let status = object.version.server.status.clone().unwrap_or_default();
    if !world.machines.is_empty() {
        world.break_guarantee(5, "the object went before the machine");
    } else if world.endpoint.as_ref().is_some_and(|endpoint| endpoint.phase != TrafficPhase::Held) {
        // An endpoint without traffic, whose registration was under way, is cleared away afterwards.
        world.break_guarantee(5, "the object went before its traffic");
    } else if status.monitoring.is_some() {
        world.break_guarantee(5, "the object went before its monitoring");
    }
    world.object = None;
}

/// A request for deletion.
pub(crate) fn delete_object(world: &mut World) {
    let Some(object) = world.object.clone() else { return };
    let mut server = object.version.server.clone();
    if server.metadata.deletion_timestamp.is_some() {
        return;
    }
    server.metadata.deletion_timestamp = Some(Time(start()));
    server.metadata.generation = server.metadata.generation.map(|generation| generation + 1);
    store(world, Version::new(server));
}

/// The write as a controller builds it.
fn build(seen: &Server, write: &Write) -> StatusWrite {
    let mut out = StatusWrite::new(seen);
    let spec = &seen.spec;
    if write.acknowledge {
        out = out.acknowledge();
    }
    out = match &write.found {
        Some(Found::Machine(id)) => out.machine(Some(machine(&format!("m{id}"), "b"))),
        Some(Found::NoMachine) => out.machine(Some(machine_phase(berth_core::api::MachinePhase::Gone))),
        Some(Found::Package(version)) => {
            let mut fact = support::environment(spec);
            fact.packages[0].version = package_version(*version);
            out.environment(fact)
        }
        Some(Found::Code(revision)) => {
            let mut fact = support::app(spec).unwrap();
            fact.revision = code_revision(*revision);
            out.app(Some(fact))
        }
        Some(Found::Failure) | None => out,
    };
    if let Some(traffic) = write.traffic {
        out = out.traffic(traffic.and_then(|phase| support::traffic(seen, phase)));
    }
    if let Some(reachable) = write.reachable {
        let lost = support::unreachable(60, start());
        out = out.reachability(ReachabilityFact { reachable, ..lost });
    }
    if let Some(healthy) = write.healthy {
        let state = if healthy { HealthState::Healthy } else { HealthState::Unhealthy };
        let epoch = seen.status.as_ref().and_then(|status| status.epoch).unwrap_or_default();
        out = out.health(HealthFact { state, epoch, since: Time(start()), message: String::new() });
    }
    if let Some(monitoring) = write.monitoring {
        let digest = monitoring_digest(seen).unwrap_or_default();
        out = out.monitoring(monitoring.map(|phase| MonitoringFact { phase, digest }));
    }
    if let Some((task_id, outcome)) = write.report {
        let (holder, message) = (write.holder.clone(), String::new());
        out = out.report(Report { task_id, holder, outcome, message, retry_after_seconds: None });
    }
    if let Some((task_id, take)) = write.claim {
        let duration_seconds = if take { LOCK } else { 0 };
        out = out.claim(Claim { task_id, holder: write.holder.clone(), duration_seconds });
    }
    out
}

pub(crate) fn package_version(version: u8) -> String {
    format!("1.{version}")
}

pub(crate) fn code_revision(revision: u8) -> String {
    format!("r{revision}")
}

/// Reviews a write that changes nothing: the outcome of any write must be at rest.
pub(crate) fn is_settled(server: &Server) -> bool {
    let author = controller(Executor::LbController);
    let again = admit_status(server, server.clone(), &author, &Identities::default(), start());
    again.is_ok_and(|again| Version::new(again).key == Version::new(server.clone()).key)
}
