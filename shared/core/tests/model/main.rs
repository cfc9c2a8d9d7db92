//! A model of a whole Berth around one Server, checked over all interleavings to a bound.
//!
//! The stored object changes through the real rules only (`admit_status`, `admit_update`), by guarded patches from
//! processes whose caches are as old as it pleases, whose answers get lost, and who crash between any two steps. Time is
//! abstract: a lock expires when its holder is gone, or (as a fault) while its holder is at work; a holder knows
//! by its own clock that its lock has expired, and does nothing in its name from then on.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::format_push_string,
    reason = "a test that cannot go on says where"
)]

mod apiserver;
mod checks;
mod machine_actors;
mod other_actors;
mod runs;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::hash::{DefaultHasher, Hash, Hasher};

use berth_core::{
    api::{Executor, Force, Gate, GatePoint, Request, Server, TaskKind, TaskPhase},
    lifecycle::is_open,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use stateright::{Model, Property};

use apiserver::{Memo, code_revision, package_version};
use support::{Fixture, person, start, write_spec};
use world::{Actor, Deed, Faults, Found, Seen, Stage, Version, World};

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    /// The webhook lets a claim through although somebody else holds the lock.
    IgnoreLock,
    /// lb-controller lets traffic through before it has said so.
    ReleaseFirst,
    /// lb-controller leaves no trace of a decision where nothing else changes.
    NoFence,
    /// The webhook takes a report on a task that has ended.
    CountTwice,
    /// The webhook lets the finalizer go, and replicaset-controller does not wait.
    NoFinalizerGuard,
    /// The webhook does not look at force.
    IgnoreForce,
    /// A lock never expires.
    LockForever,
}

/// The model.
struct Berth {
    /// The processes, more than one of a role for several copies.
    processes: Vec<Executor>,
    gates: Vec<GatePoint>,
    /// Those whose cache may be as old as it pleases; the others see every change at once.
    behind: Vec<Executor>,
    /// Whether everything is as declared when it begins, or nothing is there.
    begins_ready: bool,
    faults: Faults,
    deeds: Vec<Deed>,
    mutation: Mutation,
    memo: Memo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A process sees the newest object.
    See(usize),
    /// A process takes its next step.
    Step(usize),
    /// The same, and the answer to what it has written is lost.
    StepUnanswered(usize),
    /// A process crashes and is started again.
    Crash(usize),
    /// What a process does fails for good.
    Fail(usize),
    /// The lock expires.
    Expire,
    Outage,
    Recovery,
    Sickness,
    Cure,
    Person(Deed),
}

impl Model for Berth {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut fixture = Fixture::new();
        fixture.server.spec.packages[0].version = package_version(1);
        fixture.server.spec.app.as_mut().unwrap().revision = Some(code_revision(1));
        fixture.server.spec.traffic.as_mut().unwrap().drain_seconds = 0;
        fixture.server.spec.gates = self.gates.iter().map(|before| Gate { before: *before, policy: None }).collect();
        let (mut machines, mut endpoint) = (Vec::new(), None);
        if self.begins_ready {
            fixture = fixture.all_right().fact(|status| {
                status.machine = Some(support::machine("m1", "b"));
                status.epoch = Some(1);
                status.health.as_mut().unwrap().epoch = 1;
            });
            fixture = fixture.traffic(berth_core::api::TrafficPhase::Serving).bound().decided();
            machines.push(world::Machine { id: 1, alive: true, package: 1, code: 1 });
            endpoint = Some(world::Endpoint { phase: berth_core::api::TrafficPhase::Serving, decided: 0 });
        }
        let object = Seen { version: Version::new(fixture.server), rv: 1 };
        let actor = |(index, role): (usize, &Executor)| Actor {
            role: *role,
            instance: u8::try_from(index).unwrap() * 10,
            cache: Some(object.clone()),
            job: None,
            shot: None,
        };
        vec![World {
            rv: 1,
            created: u8::try_from(machines.len()).unwrap(),
            machines,
            endpoint,
            slice: 0,
            sick: false,
            approvals: Vec::new(),
            refused: None,
            force_over: false,
            actors: self.processes.iter().enumerate().map(actor).collect(),
            deeds: self.deeds.clone(),
            faults: self.faults,
            broken: None,
            object: Some(object),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        self.progress(world, actions);
        let faults = world.faults;
        for who in 0..world.actors.len() {
            actions.extend((faults.lost > 0).then_some(Action::StepUnanswered(who)));
            actions.extend((faults.crashes > 0).then_some(Action::Crash(who)));
            actions.extend((faults.failures > 0).then_some(Action::Fail(who)));
        }
        actions.extend((faults.slow > 0 && holder(world).is_some()).then_some(Action::Expire));
        let alive = world.machines.iter().all(|machine| machine.alive);
        actions.extend((faults.outages > 0 && alive && !world.machines.is_empty()).then_some(Action::Outage));
        actions.extend((!alive).then_some(Action::Recovery));
        actions.extend((faults.sick > 0 && !world.sick).then_some(Action::Sickness));
        actions.extend(world.sick.then_some(Action::Cure));
        actions.extend(world.deeds.iter().map(|deed| Action::Person(*deed)));
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::See(who) => world.actors[who].cache.clone_from(&before.object),
            Action::Step(who) => self.step(&mut world, who),
            Action::StepUnanswered(who) => {
                self.step(&mut world, who);
                let wrote = world.rv != before.rv;
                world.actors[who] = before.actors[who].clone();
                world.faults.lost -= 1;
                self.keep_up(&mut world);
                return wrote.then_some(world);
            }
            Action::Crash(who) => {
                let actor = &mut world.actors[who];
                (actor.cache, actor.job, actor.shot) = (None, None, None);
                actor.instance += 1;
                world.faults.crashes -= 1;
            }
            Action::Fail(who) => {
                let job = world.actors[who].job.as_mut()?;
                if job.stage != Stage::Begin {
                    return None;
                }
                job.stage = Stage::Done(Found::Failure);
                world.faults.failures -= 1;
            }
            Action::Expire => expire(&mut world)?,
            Action::Outage => {
                world.machines.iter_mut().for_each(|machine| machine.alive = false);
                world.faults.outages -= 1;
            }
            Action::Recovery => world.machines.iter_mut().for_each(|machine| machine.alive = true),
            Action::Sickness => {
                world.sick = true;
                world.faults.sick -= 1;
            }
            Action::Cure => world.sick = false,
            Action::Person(deed) => act(&mut world, deed)?,
        }
        self.keep_up(&mut world);
        (fingerprint(&world) != fingerprint(before)).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        checks::properties()
    }
}

impl Berth {
    /// What happens by itself, sooner or later.
    fn progress(&self, world: &World, actions: &mut Vec<Action>) {
        for (who, actor) in world.actors.iter().enumerate() {
            actions.extend(self.behind.contains(&actor.role).then_some(Action::See(who)));
            actions.push(Action::Step(who));
        }
        let abandoned = holder(world)
            .is_some_and(|holder| !world.actors.iter().any(|actor| actor.job.is_some() && actor.holder() == holder));
        actions.extend((abandoned && self.mutation != Mutation::LockForever).then_some(Action::Expire));
    }

    /// The caches of those that are never behind.
    fn keep_up(&self, world: &mut World) {
        let object = world.object.clone();
        let up_to_date = |actor: &&mut Actor| !self.behind.contains(&actor.role);
        world.actors.iter_mut().filter(up_to_date).for_each(|actor| actor.cache.clone_from(&object));
    }

    fn step(&self, world: &mut World, who: usize) {
        match world.actors[who].role {
            Executor::LbController => self.lb_step(world, who),
            Executor::MonitorController => self.monitor_step(world, who),
            _ => self.machine_step(world, who),
        }
    }

    /// Whether nothing happens any more by itself.
    fn is_quiet(&self, world: &World) -> bool {
        let mut actions = Vec::new();
        self.progress(world, &mut actions);
        actions.into_iter().all(|action| self.next_state(world, action).is_none())
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Who holds a lock that has not expired.
fn holder(world: &World) -> Option<String> {
    let lock = world.server()?.status.as_ref()?.lock.clone()?;
    (lock.renewed_at.0 == start()).then_some(lock.holder)
}

/// Time passes, until the lock has expired. Its holder's clock says so no later than the webhook's.
fn expire(world: &mut World) -> Option<()> {
    let holder = holder(world)?;
    let mut server = world.server()?.clone();
    server.status.as_mut()?.lock.as_mut()?.renewed_at = Time(Timestamp::UNIX_EPOCH);
    let at_work = |actor: &&mut Actor| actor.holder() == holder && actor.job.is_some();
    if let Some(actor) = world.actors.iter_mut().find(at_work) {
        actor.job.as_mut()?.live = false;
        world.faults.slow = world.faults.slow.checked_sub(1)?;
    }
    // No write: nobody is told.
    let rv = world.rv;
    world.object = Some(Seen { version: Version::new(server), rv });
    Some(())
}

/// A person does something.
fn act(world: &mut World, deed: Deed) -> Option<()> {
    world.deeds.retain(|other| *other != deed);
    let server = world.server()?.clone();
    let gate = || {
        let tasks = server.status.as_ref()?.tasks.iter();
        let open = |task: &&berth_core::api::Task| {
            task.kind == TaskKind::Gate && task.phase == TaskPhase::Pending && is_open(&server, task)
        };
        tasks.into_iter().find(open).map(|task| task.id)
    };
    match deed {
        Deed::Approve | Deed::Refuse => {
            let id = gate()?;
            if world.approvals.iter().any(|(about, _)| *about == id) {
                return None;
            }
            world.approvals.push((id, deed == Deed::Approve));
            world.refused = (deed == Deed::Refuse).then_some(id);
            return Some(());
        }
        Deed::Delete => apiserver::delete_object(world),
        deed => {
            let mut new = server.clone();
            declare(&mut new, deed);
            let written = write_spec(&server, new, &person("ann"), start()).ok()?;
            apiserver::store(world, Version::new(written));
        }
    }
    world.refused = None;
    match deed {
        Deed::Force(_) => world.force_over = false,
        Deed::Retry => {}
        _ => world.force_over = true,
    }
    Some(())
}

fn declare(server: &mut Server, deed: Deed) {
    let spec = &mut server.spec;
    match deed {
        Deed::NewCode => spec.app.as_mut().unwrap().revision = Some(code_revision(2)),
        Deed::NewPackage => spec.packages[0].version = package_version(2),
        Deed::Offline => spec.offline = true,
        Deed::Online => spec.offline = false,
        Deed::Force(state) => {
            spec.force = Some(Force { state, reason: "by hand".into(), by: None, at: None, declaration: None });
        }
        Deed::ClearForce => spec.force = None,
        Deed::Retry => spec.retry = Some(Request { id: "again".into(), reason: String::new(), by: None, at: None }),
        Deed::Delete | Deed::Approve | Deed::Refuse => {}
    }
}
