//! The controllers that have machines in hand: replicaset-controller and deployment-controller.

use berth_core::{
    FINALIZER,
    api::{Executor, GatePoint, Outcome, Server, State, Task, TaskKind, TaskPhase, TrafficPhase},
    lifecycle::{current_tasks, is_retired, open_tasks},
};

use crate::{
    Berth, Mutation,
    apiserver::{Answer, Write, delete_object, release_object},
    world::{Found, Job, Machine, Seen, Stage, World},
};

/// The package and the code that are declared, as numbers.
pub(crate) fn declared(server: &Server) -> (u8, u8) {
    let number = |text: &str| text.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    let package = server.spec.packages[0].version.trim_start_matches("1.").parse().unwrap_or(0);
    let code = server.spec.app.as_ref().map_or(0, |app| number(&app.effective_revision()));
    (package, code)
}

impl Berth {
    /// The next step of a process that may have a machine in hand.
    pub(crate) fn machine_step(&self, world: &mut World, who: usize) {
        let actor = &world.actors[who];
        let Some(cache) = actor.cache.clone() else {
            world.actors[who].job = None;
            return;
        };
        let server = &cache.version.server;
        let idle = actor.job.is_none();
        if actor.role == Executor::ReplicasetController && (idle || must_retire(server)) {
            if idle && (is_done(server) || self.mutation == Mutation::NoFinalizerGuard && must_retire(server)) {
                return end(world, server, self.mutation);
            }
            if needs_decision(server) {
                if idle && may_begin(server) && self.claim(world, who, &cache, 1) {
                    return;
                }
                let write = Write { acknowledge: true, ..written_by(world, who) };
                self.write(world, who, &cache, &write);
                return;
            }
            if idle && let Some((task, yes)) = verdict(world, server) {
                let outcome = if yes { Outcome::Succeeded } else { Outcome::Failed };
                let write = Write { report: Some((task, outcome)), ..written_by(world, who) };
                self.write(world, who, &cache, &write);
                return;
            }
        }
        if idle {
            let role = world.actors[who].role;
            if let Some(task) = open_tasks(server, role).min_by_key(|task| task.id) {
                self.claim(world, who, &cache, task.id);
            }
        } else {
            self.job_step(world, who);
        }
    }

    /// Claims a task; whether that came to anything.
    fn claim(&self, world: &mut World, who: usize, cache: &Seen, task: i64) -> bool {
        let write = Write { claim: Some((task, true)), ..written_by(world, who) };
        match self.write(world, who, cache, &write) {
            Answer::Written(base) => {
                begin(world, who, base, task);
                true
            }
            Answer::Refused | Answer::Stale => false,
        }
    }

    fn job_step(&self, world: &mut World, who: usize) {
        let Some(job) = world.actors[who].job.clone() else { return };
        if !job.live {
            // The lock could not be renewed in time: nothing is done in its name any more, nothing is written.
            world.actors[who].job = None;
            return;
        }
        if is_lost(world.actors[who].cache.as_ref(), &job) {
            return self.stop(world, who, &job);
        }
        match job.stage.clone() {
            Stage::Done(found) => self.report(world, who, &job, &found),
            stage => self.work(world, who, &job, &stage),
        }
    }

    /// The facts without a report, and the lock given back.
    fn stop(&self, world: &mut World, who: usize, job: &Job) {
        let found = match &job.stage {
            Stage::Done(found) => Some(found.clone()),
            _ => None,
        };
        let claim = Some((job.task, false));
        let write = Write { as_holder: true, found, claim, ..written_by(world, who) };
        self.write(world, who, &job.base, &write);
        world.actors[who].job = None;
    }

    fn report(&self, world: &mut World, who: usize, job: &Job, found: &Found) {
        let failed = *found == Found::Failure;
        let outcome = if failed { Outcome::Failed } else { Outcome::Succeeded };
        let report = Some((job.task, outcome));
        let plain = Write { as_holder: true, found: Some(found.clone()), report, ..written_by(world, who) };
        if let Some(next) = next_task(job).filter(|_| !failed) {
            let write = Write { claim: Some((next, true)), ..plain.clone() };
            if let Answer::Written(base) = self.write(world, who, &job.base, &write) {
                begin(world, who, base, next);
                return;
            }
        }
        match self.write(world, who, &job.base, &plain) {
            Answer::Refused => self.stop(world, who, job),
            Answer::Written(_) | Answer::Stale => world.actors[who].job = None,
        }
    }

    /// A look at the world or an effect on it, if the machine can be reached; else the lock is renewed meanwhile.
    fn work(&self, world: &mut World, who: usize, job: &Job, stage: &Stage) {
        let needs_machine = matches!(job.kind, TaskKind::InstallPackages | TaskKind::DeployApp);
        if needs_machine && !world.machines.first().is_some_and(|machine| machine.alive) {
            let write = Write { as_holder: true, claim: Some((job.task, true)), ..written_by(world, who) };
            match self.write(world, who, &job.base, &write) {
                Answer::Written(_) => {}
                Answer::Refused => self.stop(world, who, job),
                Answer::Stale => world.actors[who].job = None,
            }
            return;
        }
        check_lock(world, who, job);
        let (package, code) = declared(&job.base.version.server);
        let next = match job.kind {
            TaskKind::CreateMachine => match (world.machines.first(), stage) {
                (_, Stage::Missing) => {
                    world.created += 1;
                    world.machines.push(Machine { id: world.created, alive: true, package: 0, code: 0 });
                    Stage::Done(Found::Machine(world.created))
                }
                (Some(machine), _) => Stage::Done(Found::Machine(machine.id)),
                (None, _) => Stage::Missing,
            },
            TaskKind::DestroyMachine => {
                check_drained(world);
                world.machines.clear();
                Stage::Done(Found::NoMachine)
            }
            TaskKind::InstallPackages => {
                if world.machines[0].package != package {
                    check_drained(world);
                }
                world.machines[0].package = package;
                Stage::Done(Found::Package(package))
            }
            _ => {
                if world.machines[0].code != code {
                    check_drained(world);
                }
                world.machines[0].code = code;
                Stage::Done(Found::Code(code))
            }
        };
        if world.machines.len() > 1 {
            world.break_guarantee(1, "there are two machines");
        }
        if world.object.is_none() && !world.machines.is_empty() {
            world.break_guarantee(1, "a machine outlives its Server");
        }
        if world.refused.is_some_and(|gate| is_behind(world, gate, job.task)) {
            world.break_guarantee(6, "what a person refused was done");
        }
        if let Some(job) = &mut world.actors[who].job {
            job.stage = next;
        }
    }
}

/// A write that says nothing yet.
pub(crate) fn written_by(world: &World, who: usize) -> Write {
    Write { holder: world.actors[who].holder(), ..Write::default() }
}

fn begin(world: &mut World, who: usize, base: Seen, task: i64) {
    let status = base.version.server.status.as_ref().unwrap();
    let kind = status.tasks.iter().find(|t| t.id == task).unwrap().kind;
    world.actors[who].job = Some(Job { base, task, kind, stage: Stage::Begin, live: true });
}

/// Guarantee 4: whoever does something to a machine holds the lock for that very task.
fn check_lock(world: &mut World, who: usize, job: &Job) {
    let actor = &world.actors[who];
    let lock = world.server().and_then(|server| server.status.as_ref()?.lock.clone());
    let holds = lock.is_some_and(|lock| lock.holder == actor.holder() && lock.task_id == job.task);
    if !holds || job.kind.executor() != actor.role {
        world.break_guarantee(4, "somebody without the lock was at the machine");
    }
}

/// Guarantee 2: traffic is gone before anything is done to what serves it.
fn check_drained(world: &mut World) {
    if world.endpoint.as_ref().is_some_and(|endpoint| endpoint.phase != TrafficPhase::Held) {
        world.break_guarantee(2, "a machine was changed while it took traffic");
    }
}

fn is_behind(world: &World, gate: i64, task: i64) -> bool {
    let tasks = world.server().and_then(|server| server.status.as_ref()).map(|status| status.tasks.as_slice());
    let find = |id| tasks.unwrap_or_default().iter().find(|t| t.id == id);
    match (find(gate), find(task)) {
        (Some(gate), Some(task)) => gate.step < task.step,
        _ => false,
    }
}

/// Whether the cache shows that the task is not this process's any more.
fn is_lost(cache: Option<&Seen>, job: &Job) -> bool {
    let Some(cache) = cache.filter(|cache| cache.rv > job.base.rv) else { return false };
    let tasks = cache.version.server.status.iter().flat_map(|status| &status.tasks);
    !tasks.into_iter().any(|task| task.id == job.task && !task.phase.is_finished())
}

/// The task that is claimed with the report: packages after the machine.
fn next_task(job: &Job) -> Option<i64> {
    let status = job.base.version.server.status.as_ref()?;
    let wanted = |t: &&Task| t.kind == TaskKind::InstallPackages && t.phase == TaskPhase::Pending;
    let next = current_tasks(status).find(wanted).filter(|_| job.kind == TaskKind::CreateMachine)?;
    let blocked = current_tasks(status).any(|t| t.step < next.step && t.id != job.task && !t.phase.is_finished());
    (!blocked).then_some(next.id)
}

fn end(world: &mut World, server: &Server, mutation: Mutation) {
    let deleted = server.metadata.deletion_timestamp.is_some();
    if !deleted {
        delete_object(world);
    } else if server.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER) {
        release_object(world, mutation);
    }
}

fn verdict(world: &World, server: &Server) -> Option<(i64, bool)> {
    let gate = open_tasks(server, Executor::Person).map(|task| task.id);
    gate.into_iter().find_map(|id| world.approvals.iter().find(|(about, _)| *about == id)).copied()
}

pub(crate) fn is_done(server: &Server) -> bool {
    let Some(status) = &server.status else { return false };
    status.state == Some(State::Offline)
        && must_retire(server)
        && is_retired(server)
        && current_tasks(status).all(|t| matches!(t.phase, TaskPhase::Succeeded | TaskPhase::Cancelled))
}

fn must_retire(server: &Server) -> bool {
    server.metadata.deletion_timestamp.is_some() || server.spec.offline
}

fn needs_decision(server: &Server) -> bool {
    let Some(status) = &server.status else { return true };
    status.observed_generation != server.metadata.generation
        || server.metadata.deletion_timestamp.is_some() && status.state != Some(State::Offline)
}

fn may_begin(server: &Server) -> bool {
    let gated = server.spec.gates.iter().any(|gate| gate.before == GatePoint::CreateMachine);
    server.status.is_none() && !must_retire(server) && server.spec.force.is_none() && !gated
}
