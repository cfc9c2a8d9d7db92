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
    lifecycle::{RefusalReason, admit_status, decide},
    protocol::StatusWrite,
};
use berth_testing::{Denied, LOCK, controller, machine, machine_phase, start};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    Mutation, broken_rules,
    world::{Snapshot, Version, Violation, WorkResult, World},
};

/// Seconds until a task is attempted again.
const RETRY_AFTER: i32 = 10;

/// The content of a status write.
#[expect(clippy::option_option, reason = "a fact is left as it is, removed or set")]
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct Write {
    /// `<executor>/<instance>`.
    pub(crate) holder: String,
    /// Applies only while the writer holds the lock.
    pub(crate) as_holder: bool,
    pub(crate) acknowledge: bool,
    pub(crate) result: Option<WorkResult>,
    pub(crate) traffic: Option<Option<TrafficPhase>>,
    pub(crate) reachable: Option<bool>,
    pub(crate) healthy: Option<bool>,
    pub(crate) monitoring: Option<Option<MonitoringPhase>>,
    pub(crate) report: Option<(i64, Outcome)>,
    /// The task, and whether its lock is taken (or released).
    pub(crate) claim: Option<(i64, bool)>,
    /// With a report of success: who may go on with the next task.
    pub(crate) successors: Vec<String>,
}

/// The answer to a write.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Written(Snapshot),
    Refused,
    Stale,
}

/// The webhook's answer to a write, and the guarantees that the write violates.
#[derive(Clone)]
pub(crate) enum Evaluation {
    Written { version: Arc<Version>, violation: Option<Violation>, force_over: bool },
    Refused,
    Stale,
}

/// Answers to writes that were evaluated before, by the stored object, the object that the writer had read, and the write.
pub(crate) type Memo = Mutex<HashMap<(u64, u64, Write), Evaluation>>;

/// A status write by a process that has read `snapshot`.
pub(crate) fn write(world: &mut World, memo: &Memo, mutation: Mutation, snapshot: &Snapshot, write: &Write) -> Answer {
    let Some(object) = world.object.clone() else { return Answer::Stale };
    let key = (object.version.key, snapshot.version.key, write.clone());
    let known = memo.lock().unwrap().get(&key).cloned();
    let evaluation = known.unwrap_or_else(|| {
        let evaluation = evaluate(&object.version.server, &snapshot.version.server, write, mutation);
        memo.lock().unwrap().insert(key, evaluation.clone());
        evaluation
    });
    match evaluation {
        Evaluation::Refused => Answer::Refused,
        Evaluation::Stale => Answer::Stale,
        Evaluation::Written { version, violation, force_over } => {
            world.violation = world.violation.or(violation);
            world.force_over |= force_over;
            let snapshot = store(world, version);
            check_person(world);
            Answer::Written(snapshot)
        }
    }
}

/// Stores a version of the object. A write that changes nothing makes no new version.
pub(crate) fn store(world: &mut World, version: Arc<Version>) -> Snapshot {
    match &world.object {
        Some(object) if object.version.key == version.key => object.clone(),
        _ => {
            world.rv += 1;
            let snapshot = Snapshot { version, rv: world.rv };
            world.object = Some(snapshot.clone());
            snapshot
        }
    }
}

fn evaluate(old: &Server, snapshot: &Server, write: &Write, mutation: Mutation) -> Evaluation {
    let locked_by = old.status.as_ref().and_then(|s| s.lock.as_ref()).map(|lock| lock.holder.as_str());
    if write.as_holder && locked_by != Some(write.holder.as_str()) {
        return Evaluation::Stale;
    }
    let executor = executor(&write.holder);
    let mut result = admit(old, snapshot, write, executor);
    match (mutation, &result) {
        (Mutation::IgnoreLock, Err(Denied::Refused(refusal))) if refusal.reason == RefusalReason::Locked => {
            let mut open = old.clone();
            open.status.as_mut().unwrap().lock = None;
            result = admit(&open, snapshot, write, executor);
        }
        (Mutation::CountTwice, Err(Denied::Refused(refusal))) if refusal.reason == RefusalReason::NotOpen => {
            result = admit(&reopened(old, write), snapshot, write, executor);
        }
        (Mutation::IgnoreForce, _) => {
            let mut free = old.clone();
            free.spec.force = None;
            result = admit(&free, snapshot, write, executor).map(|new| Server { spec: old.spec.clone(), ..new });
        }
        (Mutation::KeepTrust, Ok(new)) if new.lock().is_some_and(|lock| Some(lock.task_id) != locked_task(old)) => {
            result = result.map(|new| keeping_trust(old, new));
        }
        _ => result = broken_rules::admit(mutation, old, snapshot, write, result),
    }
    match result {
        Err(Denied::Stale) => Evaluation::Stale,
        Err(Denied::Refused(_)) => Evaluation::Refused,
        Ok(new) => Evaluation::Written {
            violation: check_tasks(old, &new).or_else(|| check_release(old, &new)).or_else(|| check_begin(old, &new)),
            force_over: facts_agree(&new),
            version: Version::new(new),
        },
    }
}

pub(crate) fn admit(old: &Server, snapshot: &Server, write: &Write, executor: Executor) -> Result<Server, Denied> {
    berth_testing::write_status(old, build(snapshot, write), &controller(executor), start())
}

fn locked_task(server: &Server) -> Option<i64> {
    server.lock().map(|lock| lock.task_id)
}

/// The object as if the claim, or the hand-over, had said nothing about the facts.
fn keeping_trust(old: &Server, mut new: Server) -> Server {
    if let (Some(before), Some(status)) = (&old.status, &mut new.status) {
        status.environment.clone_from(&before.environment);
        status.app.clone_from(&before.app);
        status.health.clone_from(&before.health);
        status.epoch = before.epoch;
    }
    new
}

/// The object as if the task that is reported on were not finished.
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

/// Guarantee 4: a result counts once, so finished tasks do not change, and only the holder of the lock works on the machine.
fn check_tasks(old: &Server, new: &Server) -> Option<Violation> {
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
        Some(Violation { guarantee: 4, how: "the result of a task was counted again" })
    } else if running.len() > 1 || running.first().is_some_and(|id| held != Some(*id)) {
        Some(Violation { guarantee: 4, how: "a task that needs the lock runs without it" })
    } else {
        None
    }
}

/// Guarantee 2: a Server becomes serving only while it is Ready, its gate is approved, and nobody holds the lock.
fn check_release(old: &Server, new: &Server) -> Option<Violation> {
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
        Some(Violation { guarantee: 2, how: "traffic was let through outside of Ready" })
    } else if gated && !status.current_tasks().any(passed) {
        Some(Violation { guarantee: 2, how: "traffic was let through before its gate was passed" })
    } else if at_the_machine {
        Some(Violation { guarantee: 2, how: "traffic was let through while a lock was held" })
    } else {
        None
    }
}

/// Guarantees 2 and 4: a task begins only after its gate was passed for the same part of the declaration, and not before its time.
fn check_begin(old: &Server, new: &Server) -> Option<Violation> {
    let pending = |task: &&Task| old.task(task.id).is_none_or(|before| before.phase == TaskPhase::Pending);
    let begun = |task: &&Task| matches!(task.phase, TaskPhase::Running | TaskPhase::Succeeded);
    let status = new.status.as_ref()?;
    let early = |task: &Task| {
        task.kind.needs_lock() && old.task(task.id).is_some_and(|before| before.earliest_begin() > Some(start()))
    };
    let ungated = |task: &Task| {
        let point = new.spec.gates.iter().map(|gate| gate.before).find(|point| point.task() == task.kind);
        point.is_some_and(|point| {
            let is_it = |gate: &Task| gate.gate == Some(point) && gate.digest == task.digest;
            !status.current_tasks().any(|gate| is_it(gate) && gate.phase == TaskPhase::Succeeded)
        })
    };
    status.current_tasks().filter(begun).filter(pending).find_map(|task| {
        if ungated(task) {
            Some(Violation { guarantee: 2, how: "a task began before its gate was passed" })
        } else if early(task) {
            Some(Violation { guarantee: 4, how: "a task began before its time" })
        } else {
            None
        }
    })
}

/// Whether the facts alone lead to the forced state.
fn facts_agree(server: &Server) -> bool {
    let Some(force) = &server.spec.force else { return false };
    let mut free = server.clone();
    free.spec.force = None;
    decide(&free).state == force.state
}

/// Guarantee 6: automation does not undo a person's decision.
fn check_person(world: &mut World) {
    let Some(server) = world.server() else { return };
    let Some(state) = server.status.as_ref().and_then(|status| status.state) else { return };
    let retired = server.spec.offline || server.metadata.deletion_timestamp.is_some();
    let forced = server.spec.force.as_ref().map(|force| force.state).filter(|_| !world.force_over);
    if retired && state != State::Offline {
        world.violate(6, "a retired Server came back");
    } else if !retired && forced.is_some_and(|forced| forced != state) {
        world.violate(6, "a force was undone");
    }
}

/// Removes the finalizer, if the webhook allows it, and with it the object.
pub(crate) fn release_object(world: &mut World, mutation: Mutation) {
    let Some(object) = world.object.clone() else { return };
    let mut new = object.version.server.clone();
    new.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    let author = controller(Executor::ReplicasetController);
    let allowed = berth_testing::write_spec(&object.version.server, new, &author, start()).is_ok();
    if !allowed && mutation != Mutation::NoFinalizerGuard {
        return;
    }
    let status = object.version.server.status.clone().unwrap_or_default();
    if !world.machines.is_empty() {
        world.violate(5, "the object went before the machine");
    } else if world.endpoint.as_ref().is_some_and(|endpoint| endpoint.phase != TrafficPhase::Held) {
        // An endpoint without traffic, which was being registered at that moment, is removed afterwards.
        world.violate(5, "the object went before its traffic");
    } else if status.monitoring.is_some() {
        world.violate(5, "the object went before its monitoring");
    }
    world.object = None;
}

/// Requests the deletion of the object.
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

/// Builds the write as a controller does.
fn build(snapshot: &Server, write: &Write) -> StatusWrite {
    let mut out = StatusWrite::new(snapshot);
    let spec = &snapshot.spec;
    if write.acknowledge {
        out = out.acknowledge();
    }
    out = match &write.result {
        Some(WorkResult::Machine(id, boots)) => out.machine(Some(machine(&format!("m{id}"), &format!("b{boots}")))),
        Some(WorkResult::NoMachine) => out.machine(Some(machine_phase(berth_core::api::MachinePhase::Gone))),
        Some(WorkResult::Package(version)) => {
            let mut fact = berth_testing::environment(spec);
            fact.packages[0].version = package_version(*version);
            out.environment(fact)
        }
        Some(WorkResult::Code(revision)) => {
            let mut fact = berth_testing::app(spec).unwrap();
            fact.revision = code_revision(*revision);
            out.app(Some(fact))
        }
        Some(WorkResult::Failure | WorkResult::Retry) | None => out,
    };
    if let Some(traffic) = write.traffic {
        out = out.traffic(traffic.and_then(|phase| berth_testing::traffic(snapshot, phase)));
    }
    if let Some(reachable) = write.reachable {
        let lost = berth_testing::unreachable(60, start());
        out = out.reachability(ReachabilityFact { reachable, ..lost });
    }
    if let Some(healthy) = write.healthy {
        let state = if healthy { HealthState::Healthy } else { HealthState::Unhealthy };
        let epoch = snapshot.status.as_ref().and_then(|status| status.epoch).unwrap_or_default();
        out = out.health(HealthFact { state, epoch, since: Time(start()), message: String::new() });
    }
    if let Some(monitoring) = write.monitoring {
        let digest = snapshot.monitoring_digest().unwrap_or_default();
        out = out.monitoring(monitoring.map(|phase| MonitoringFact { phase, digest }));
    }
    if let Some((task_id, outcome)) = write.report {
        let (holder, message) = (write.holder.clone(), String::new());
        let retry_after_seconds = (outcome == Outcome::Retry).then_some(RETRY_AFTER);
        let successors = if outcome == Outcome::Succeeded { write.successors.clone() } else { Vec::new() };
        out = out.report(Report { task_id, holder, outcome, message, retry_after_seconds, successors });
    }
    if let Some((task_id, take)) = write.claim {
        let duration_seconds = if take { LOCK } else { 0 };
        out = out.claim(Claim { task_id, holder: write.holder.clone(), duration_seconds, again: false });
    }
    out
}

pub(crate) fn package_version(version: u8) -> String {
    format!("1.{version}")
}

pub(crate) fn code_revision(revision: u8) -> String {
    format!("r{revision}")
}

/// Whether a write that changes nothing really changes nothing: each decision must be final for its facts.
pub(crate) fn is_settled(server: &Server) -> bool {
    let author = controller(Executor::LbController);
    let again = admit_status(server, server.clone(), &author, &Identities::default(), start());
    again.is_ok_and(|again| Version::new(again).key == Version::new(server.clone()).key)
}
