//! The controllers that work on machines: replicaset-controller and deployment-controller.

use std::sync::LazyLock;

use berth_core::{
    FINALIZER,
    api::{Approval, ApprovalDecision, Executor, Outcome, Server, TaskKind, TrafficPhase},
    approvals::{GateSettlement, settlement},
};
use berth_testing::start;
use serde_json::json;

use crate::{
    Berth, Mutation,
    apiserver::{Answer, Write, delete_object, release_object},
    world::{Actor, Job, Machine, Snapshot, Stage, WorkResult, World},
};

/// An Approval of a gate of the Server.
static APPROVAL: LazyLock<Approval> =
    LazyLock::new(|| berth_testing::approval(json!({"spec": {"approver": {"username": "ann", "at": start()}}})));

/// The declared versions of package and code, as numbers.
pub(crate) fn declared(server: &Server) -> (u8, u8) {
    let number = |text: &str| text.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    let package = server.spec.packages[0].version.trim_start_matches("1.").parse().unwrap_or(0);
    let code = server.spec.app.as_ref().map_or(0, |app| number(&app.effective_revision()));
    (package, code)
}

impl Berth {
    /// The next step of a process that works on machines.
    pub(crate) fn machine_step(&self, world: &mut World, index: usize) {
        let actor = &world.actors[index];
        let Some(cache) = actor.cache.clone() else {
            world.actors[index].job = None;
            return;
        };
        let server = &cache.version.server;
        let idle = actor.job.is_none();
        if actor.role == Executor::ReplicasetController && (idle || server.must_retire()) {
            if idle && (server.is_done() || self.mutation == Mutation::NoFinalizerGuard && server.must_retire()) {
                return retire_object(world, server, self.mutation);
            }
            if server.needs_decision() {
                if idle && server.may_begin() && self.claim(world, index, &cache, 1) {
                    return;
                }
                let write = Write { acknowledge: true, ..written_by(world, index) };
                self.write(world, index, &cache, &write);
                return;
            }
            if idle && let Some(settled) = decided_gate(world, server) {
                let write = Write { report: Some((settled.task_id, settled.outcome)), ..written_by(world, index) };
                self.write(world, index, &cache, &write);
                return;
            }
            if idle && self.settle_by_set(world, index, server) {
                return;
            }
        }
        if idle {
            let role = world.actors[index].role;
            if let Some(task) = server.open_tasks(role).min_by_key(|task| task.id) {
                if was_handed_over(world, index, &cache, task.id) {
                    begin(world, index, cache.clone(), task.id);
                } else {
                    self.claim(world, index, &cache, task.id);
                }
            }
        } else {
            self.job_step(world, index);
        }
    }

    /// Claims a task, and returns whether the claim was accepted.
    fn claim(&self, world: &mut World, index: usize, cache: &Snapshot, task: i64) -> bool {
        let write = Write { claim: Some((task, true)), ..written_by(world, index) };
        match self.write(world, index, cache, &write) {
            Answer::Written(base) => {
                begin(world, index, base, task);
                true
            }
            Answer::Refused | Answer::Stale => false,
        }
    }

    fn job_step(&self, world: &mut World, index: usize) {
        let Some(job) = world.actors[index].job.clone() else { return };
        if !job.lock_is_valid {
            // The lock was not renewed in time: the process stops without a write.
            world.actors[index].job = None;
            return;
        }
        if was_cancelled(world.actors[index].cache.as_ref(), &job) {
            return self.stop(world, index, &job);
        }
        match job.stage.clone() {
            Stage::Done(result) => self.report(world, index, &job, &result),
            stage => self.work(world, index, &job, &stage),
        }
    }

    /// Writes the facts without a report, and releases the lock.
    fn stop(&self, world: &mut World, index: usize, job: &Job) {
        let result = match &job.stage {
            Stage::Done(result) => Some(result.clone()),
            _ => None,
        };
        let claim = Some((job.task, false));
        let write = Write { as_holder: true, result, claim, ..written_by(world, index) };
        self.write(world, index, &job.base, &write);
        world.actors[index].job = None;
    }

    fn report(&self, world: &mut World, index: usize, job: &Job, result: &WorkResult) {
        let outcome = match result {
            WorkResult::Failure => Outcome::Failed,
            WorkResult::Retry => Outcome::Retry,
            _ => Outcome::Succeeded,
        };
        let report = Some((job.task, outcome));
        let plain = Write { as_holder: true, result: Some(result.clone()), report, ..written_by(world, index) };
        if let Some(next) = next_task(job, world.actors[index].role).filter(|_| outcome == Outcome::Succeeded) {
            let write = Write { claim: Some((next, true)), ..plain.clone() };
            if let Answer::Written(base) = self.write(world, index, &job.base, &write) {
                begin(world, index, base, next);
                return;
            }
        }
        match self.write(world, index, &job.base, &plain) {
            Answer::Refused => self.stop(world, index, job),
            Answer::Written(_) | Answer::Stale => world.actors[index].job = None,
        }
    }

    /// Looks at the machine or changes it. While it is unreachable the lock is renewed instead.
    fn work(&self, world: &mut World, index: usize, job: &Job, stage: &Stage) {
        let needs_machine = matches!(job.kind, TaskKind::InstallPackages | TaskKind::DeployApp);
        if needs_machine && !world.machines.first().is_some_and(|machine| machine.alive) {
            let write = Write { as_holder: true, claim: Some((job.task, true)), ..written_by(world, index) };
            match self.write(world, index, &job.base, &write) {
                Answer::Written(_) => {}
                Answer::Refused => self.stop(world, index, job),
                Answer::Stale => world.actors[index].job = None,
            }
            return;
        }
        if needs_machine && world.lingering.is_some() && self.mutation != Mutation::NoMachineLock {
            // The script waits for the machine's lock.
            return;
        }
        check_lock(world, index, job);
        let (package, code) = declared(&job.base.version.server);
        let next = match job.kind {
            TaskKind::CreateMachine => match (world.machines.first(), stage) {
                (_, Stage::Missing) => {
                    create(world);
                    Stage::Done(WorkResult::Machine(world.created, 0))
                }
                (Some(machine), _) => Stage::Done(WorkResult::Machine(machine.id, machine.boots)),
                (None, _) => Stage::Missing,
            },
            TaskKind::RebootMachine => reboot(world),
            TaskKind::DestroyMachine => {
                check_drained(world);
                world.machines.clear();
                world.lingering = None;
                Stage::Done(WorkResult::NoMachine)
            }
            TaskKind::InstallPackages => {
                if world.machines[0].package != package {
                    check_drained(world);
                }
                world.machines[0].package = package;
                Stage::Done(WorkResult::Package(package))
            }
            _ => {
                if world.machines[0].code != code {
                    check_drained(world);
                }
                world.machines[0].code = code;
                Stage::Done(WorkResult::Code(code))
            }
        };
        if world.object.is_none() && !world.machines.is_empty() {
            world.violate(1, "a machine outlives its Server");
        }
        if world.refused.is_some_and(|gate| is_gated_by(world, gate, job.task)) {
            world.violate(6, "what a person refused was done");
        }
        if let Some(job) = &mut world.actors[index].job {
            job.stage = next;
        }
    }
}

/// The attempt of a process that has just begun fails.
pub(crate) fn fail(world: &mut World, index: usize, how: WorkResult) -> Option<()> {
    let job = world.actors[index].job.as_mut().filter(|job| job.stage == Stage::Begin)?;
    job.stage = Stage::Done(how);
    Some(())
}

/// The provider creates a machine.
pub(crate) fn create(world: &mut World) {
    world.created += 1;
    world.machines.push(Machine { id: world.created, alive: true, boots: 0, package: 0, code: 0 });
    world.call = false;
    if world.machines.len() > 1 {
        world.violate(1, "there are two machines");
    }
}

/// The provider resets the machine, which ends everything that runs on it. Then it can be reached.
fn reboot(world: &mut World) -> Stage {
    check_drained(world);
    world.lingering = None;
    let Some(machine) = world.machines.first_mut() else { return Stage::Done(WorkResult::Failure) };
    machine.alive = true;
    machine.boots += 1;
    Stage::Done(WorkResult::Machine(machine.id, machine.boots))
}

/// Whether this process has looked for the machine and is about to create it.
pub(crate) fn call_on_the_way(world: &World, index: usize) -> bool {
    let job = world.actors[index].job.as_ref().filter(|job| job.lock_is_valid);
    job.is_some_and(|job| job.kind == TaskKind::CreateMachine && job.stage == Stage::Missing) && !world.call
}

/// What the script that this process runs on the machine will do.
pub(crate) fn effect_on_the_way(world: &World, index: usize) -> Option<WorkResult> {
    let job = world.actors[index].job.as_ref().filter(|job| job.stage == Stage::Begin && job.lock_is_valid)?;
    world.machines.first().filter(|machine| machine.alive && world.lingering.is_none())?;
    let (package, code) = declared(&job.base.version.server);
    match job.kind {
        TaskKind::InstallPackages => Some(WorkResult::Package(package)),
        TaskKind::DeployApp => Some(WorkResult::Code(code)),
        _ => None,
    }
}

/// The script of a process that has crashed does its work.
pub(crate) fn take_late_effect(world: &mut World) -> Option<()> {
    let effect = world.lingering.take()?;
    world.machines.first().filter(|machine| machine.alive)?;
    let machine = world.machines[0].clone();
    match effect {
        WorkResult::Package(package) => world.machines[0].package = package,
        WorkResult::Code(code) => world.machines[0].code = code,
        _ => {}
    }
    if world.machines[0] != machine {
        check_drained(world);
    }
    Some(())
}

/// An empty write of this process. With a success the first process of each role goes on.
pub(crate) fn written_by(world: &World, index: usize) -> Write {
    let first = |role| world.actors.iter().find(|actor| actor.role == role).map(Actor::holder);
    let roles = [Executor::ReplicasetController, Executor::DeploymentController];
    let successors = roles.into_iter().filter_map(first).collect();
    Write { holder: world.actors[index].holder(), successors, ..Write::default() }
}

/// Whether this process has got the lock for the task without a claim, and its clock says that the lock has not expired.
fn was_handed_over(world: &World, index: usize, cache: &Snapshot, task: i64) -> bool {
    let (own, seen, stored) = (world.actors[index].holder(), cache.version.server.lock(), world.server());
    seen.is_some_and(|lock| lock.holder == own && lock.task_id == task && lock.age_when_new(start()).is_some())
        && stored.and_then(Server::lock) == seen
}

fn begin(world: &mut World, index: usize, base: Snapshot, task: i64) {
    let status = base.version.server.status.as_ref().unwrap();
    let kind = status.tasks.iter().find(|t| t.id == task).unwrap().kind;
    world.actors[index].job = Some(Job { base, task, kind, stage: Stage::Begin, lock_is_valid: true });
}

/// Guarantee 4: a process that works on a machine holds the lock for that task.
fn check_lock(world: &mut World, index: usize, job: &Job) {
    let actor = &world.actors[index];
    let lock = world.server().and_then(|server| server.status.as_ref()?.lock.clone());
    let holds = lock.is_some_and(|lock| lock.holder == actor.holder() && lock.task_id == job.task);
    if !holds || job.kind.executor() != actor.role {
        world.violate(4, "a process worked on the machine without the lock");
    }
}

/// Guarantee 2: traffic is drained before the machine is changed.
fn check_drained(world: &mut World) {
    if world.endpoint.as_ref().is_some_and(|endpoint| endpoint.phase != TrafficPhase::Held) {
        world.violate(2, "a machine was changed while it took traffic");
    }
}

fn is_gated_by(world: &World, gate: i64, task: i64) -> bool {
    let tasks = world.server().and_then(|server| server.status.as_ref()).map(|status| status.tasks.as_slice());
    let find = |id| tasks.unwrap_or_default().iter().find(|t| t.id == id);
    match (find(gate), find(task)) {
        (Some(gate), Some(task)) => gate.step < task.step,
        _ => false,
    }
}

/// Whether the cache shows that the task was cancelled or has ended.
fn was_cancelled(cache: Option<&Snapshot>, job: &Job) -> bool {
    let Some(cache) = cache.filter(|cache| cache.rv > job.base.rv) else { return false };
    let tasks = cache.version.server.status.iter().flat_map(|status| &status.tasks);
    !tasks.into_iter().any(|task| task.id == job.task && !task.phase.is_finished())
}

/// The task that is claimed with the report: InstallPackages after CreateMachine.
fn next_task(job: &Job, executor: Executor) -> Option<i64> {
    let next = (job.kind == TaskKind::CreateMachine).then_some(TaskKind::InstallPackages)?;
    let server = &job.base.version.server;
    server.claimable_with_report(job.task, next, executor, start()).map(|task| task.id)
}

fn retire_object(world: &mut World, server: &Server, mutation: Mutation) {
    let deleted = server.metadata.deletion_timestamp.is_some();
    if !deleted {
        delete_object(world);
    } else if server.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER) {
        release_object(world, mutation);
    }
}

/// What the Server's own Approvals decide.
fn decided_gate(world: &World, server: &Server) -> Option<GateSettlement> {
    if world.approvals.is_empty() {
        return None;
    }
    let approval = |(task, yes): &(i64, bool)| {
        let mut approval = APPROVAL.clone();
        approval.spec.task_id = Some(*task);
        approval.spec.decision = if *yes { ApprovalDecision::Approve } else { ApprovalDecision::Refuse };
        approval
    };
    let approvals: Vec<Approval> = world.approvals.iter().map(approval).collect();
    settlement(server, &approvals.iter(), start())
}
