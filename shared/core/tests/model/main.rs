//! A model of a whole Berth around one Server, checked over all interleavings to a bound.
//!
//! The stored object changes only through the shipped rules (`admit_status`, `admit_update`), by guarded patches of processes
//! whose caches lag, which lose answers, and which crash between any two steps. Time is abstract: a lock expires when its holder
//! is gone, or (as a fault) while its holder still works; the holder notices by its own clock and does nothing more.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

mod apiserver;
mod broken_rules;
mod checks;
mod clocks;
mod machine_actors;
mod mutation;
mod other_actors;
mod runs;
mod runs_of_requests;
mod set_approval;
mod time;
mod world;

use std::hash::{DefaultHasher, Hash, Hasher};

use berth_core::{
    api::{Executor, Force, Gate, GatePoint, Request, Retention, Server, TaskKind, TaskPhase},
    lifecycle::HoldCause,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use stateright::{Model, Property};

use apiserver::{Memo, code_revision, package_version};
use berth_testing::{Fixture, person, start, write_spec};
use mutation::Mutation;
use world::{Actor, Faults, PersonAction, Snapshot, Version, WorkResult, World};

/// The model: which processes there are, and what happens to them.
struct Berth {
    /// The controllers; one that occurs twice has two copies.
    processes: Vec<Executor>,
    gates: Vec<GatePoint>,
    /// Controllers whose caches may lag by any number of changes. The others see every change at once.
    lagging: Vec<Executor>,
    /// Whether the Server is Ready at the beginning, or newly created.
    begins_ready: bool,
    /// Whether Servers drain before they are without traffic.
    drains: bool,
    /// Whether a load balancer registers the Server before it receives traffic.
    registers_first: bool,
    faults: Faults,
    person_actions: Vec<PersonAction>,
    mutation: Mutation,
    memo: Memo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The cache of a process shows the newest object.
    RefreshCache(usize),
    /// A process takes its next step.
    Step(usize),
    /// The same, but the answer to its write is lost.
    StepUnanswered(usize),
    /// A process crashes and is restarted.
    Crash(usize),
    /// A process crashes and is restarted, and its script on the machine goes on.
    Linger(usize),
    /// Such a script takes effect.
    LateEffect,
    /// Such a script ends without an effect.
    LateEnd,
    /// A process crashes and is restarted, and its call is on the way to the provider.
    CrashCalling(usize),
    /// Such a call arrives.
    LateCall,
    /// Such a call never arrives.
    LostCall,
    /// The work of a process fails, and another attempt may succeed.
    FailForNow(usize),
    /// Time passes until tasks that must wait may begin.
    AwaitNotBefore,
    /// Another Server's gate is settled by the Approval of the set.
    SettleAnother,
    /// The Approval of the set expires.
    ExpireApproval,
    /// The work of a process fails, and another attempt would fail, too.
    Fail(usize),
    /// The lock expires.
    Expire,
    Outage,
    Recovery,
    BecomeUnhealthy,
    Healed,
    /// Too few other Servers serve from now on.
    FloorHolds,
    /// Enough other Servers serve, or it is the turn of this one to be verified.
    FloorYields,
    Person(PersonAction),
}

impl Model for Berth {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut fixture = if self.registers_first { Fixture::registering() } else { Fixture::new() };
        fixture.server.spec.packages[0].version = package_version(1);
        fixture.server.spec.app.as_mut().unwrap().revision = Some(code_revision(1));
        fixture.server.spec.traffic.as_mut().unwrap().drain =
            Some(berth_core::api::Drain { seconds: i32::from(self.drains), min_seconds: 0 });
        fixture.server.spec.gates = self.gates.iter().map(|before| Gate { before: *before }).collect();
        if self.person_actions.contains(&PersonAction::ApproveSet) {
            fixture.server.metadata.owner_references = set_approval::owner();
        }
        let (mut machines, mut endpoint) = (Vec::new(), None);
        if self.begins_ready {
            fixture = fixture.all_right().fact(|status| {
                status.machine = Some(berth_testing::machine("m1", "b0"));
                status.epoch = Some(1);
                status.health.as_mut().unwrap().epoch = 1;
            });
            fixture = fixture.traffic(berth_core::api::TrafficPhase::Serving).bound().decided();
            machines.push(world::Machine { id: 1, alive: true, boots: 0, package: 1, code: 1 });
            endpoint = Some(world::Endpoint { phase: berth_core::api::TrafficPhase::Serving, decided: 0 });
        }
        let object = Snapshot { version: Version::new(fixture.server), rv: 1 };
        let actor = |(index, role): (usize, &Executor)| Actor {
            role: *role,
            instance: u8::try_from(index).unwrap() * 10,
            cache: Some(object.clone()),
            job: None,
            balancer_write: None,
            entering: None,
        };
        vec![World {
            rv: 1,
            created: u8::try_from(machines.len()).unwrap(),
            machines,
            endpoint,
            slice: 0,
            unhealthy: false,
            floor: false,
            lingering: None,
            call: false,
            set_approval: None,
            approvals: Vec::new(),
            refused: None,
            force_over: false,
            actors: self.processes.iter().enumerate().map(actor).collect(),
            person_actions: self.person_actions.clone(),
            faults: self.faults,
            violation: None,
            object: Some(object),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.violation.is_some() {
            return;
        }
        self.progress(world, actions);
        let faults = world.faults;
        for index in 0..world.actors.len() {
            actions.extend((faults.lost > 0).then_some(Action::StepUnanswered(index)));
            actions.extend((faults.crashes > 0).then_some(Action::Crash(index)));
            actions.extend((faults.lingering > 0).then_some(Action::Linger(index)));
            actions.extend((faults.failures > 0).then_some(Action::Fail(index)));
            actions.extend((faults.retries > 0).then_some(Action::FailForNow(index)));
            actions.extend((faults.calls > 0).then_some(Action::CrashCalling(index)));
        }
        actions.extend(world.set_approval.iter().flat_map(set_approval::SetApproval::actions));
        actions.extend((faults.slow > 0 && holder(world).is_some()).then_some(Action::Expire));
        let alive = world.machines.iter().all(|machine| machine.alive);
        actions.extend((faults.outages > 0 && alive && !world.machines.is_empty()).then_some(Action::Outage));
        actions.extend((!alive).then_some(Action::Recovery));
        actions.extend((faults.unhealthy > 0 && !world.unhealthy).then_some(Action::BecomeUnhealthy));
        actions.extend(world.unhealthy.then_some(Action::Healed));
        actions.extend((faults.floors > 0 && !world.floor).then_some(Action::FloorHolds));
        actions.extend(world.floor.then_some(Action::FloorYields));
        actions.extend(world.person_actions.iter().map(|action| Action::Person(*action)));
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::RefreshCache(index) => world.actors[index].cache.clone_from(&before.object),
            Action::Step(index) => self.step(&mut world, index),
            Action::StepUnanswered(index) => {
                self.step(&mut world, index);
                let wrote = world.rv != before.rv;
                world.actors[index] = before.actors[index].clone();
                world.faults.lost -= 1;
                self.refresh_caches(&mut world);
                return wrote.then_some(world);
            }
            Action::Crash(index) => {
                self.crash(&mut world, index);
                world.faults.crashes -= 1;
            }
            Action::Linger(index) => {
                let effect = machine_actors::effect_on_the_way(&world, index)?;
                world.lingering = Some(effect);
                self.crash(&mut world, index);
                world.faults.lingering -= 1;
            }
            Action::CrashCalling(index) => {
                world.call = machine_actors::call_on_the_way(&world, index).then_some(true)?;
                self.crash(&mut world, index);
                world.faults.calls -= 1;
            }
            Action::LateCall => machine_actors::create(&mut world),
            Action::LostCall => world.call = false,
            Action::LateEffect => machine_actors::take_late_effect(&mut world)?,
            Action::LateEnd => _ = world.lingering.take()?,
            Action::Fail(index) => {
                machine_actors::fail(&mut world, index, WorkResult::Failure)?;
                world.faults.failures -= 1;
            }
            Action::FailForNow(index) => {
                machine_actors::fail(&mut world, index, WorkResult::Retry)?;
                world.faults.retries -= 1;
            }
            Action::Expire => time::expire(&mut world)?,
            Action::AwaitNotBefore => time::await_not_before(&mut world)?,
            Action::SettleAnother => set_approval::settle_another(&mut world)?,
            Action::ExpireApproval => world.set_approval.as_mut()?.expired = true,
            Action::Outage => {
                world.machines.iter_mut().for_each(|machine| machine.alive = false);
                world.faults.outages -= 1;
            }
            Action::Recovery => world.machines.iter_mut().for_each(|machine| machine.alive = true),
            Action::BecomeUnhealthy => {
                world.unhealthy = true;
                world.faults.unhealthy -= 1;
            }
            Action::Healed => world.unhealthy = false,
            Action::FloorHolds => {
                world.floor = true;
                world.faults.floors -= 1;
            }
            Action::FloorYields => world.floor = false,
            Action::Person(action) => act(&mut world, action)?,
        }
        self.refresh_caches(&mut world);
        (fingerprint(&world) != fingerprint(before)).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        checks::properties()
    }
}

impl Berth {
    /// The actions that happen without faults and people, sooner or later.
    fn progress(&self, world: &World, actions: &mut Vec<Action>) {
        for (index, actor) in world.actors.iter().enumerate() {
            actions.extend(self.lagging.contains(&actor.role).then_some(Action::RefreshCache(index)));
            actions.push(Action::Step(index));
        }
        if world.lingering.is_some() {
            actions.extend([Action::LateEffect, Action::LateEnd]);
        }
        // The floor lets one returning Server go after the other; a sick one it may keep for ever.
        let returns = world.server().is_some_and(|server| server.hold_cause() == HoldCause::Returning);
        actions.extend((world.floor && returns).then_some(Action::FloorYields));
        actions.extend([Action::LateCall, Action::LostCall].into_iter().filter(|_| world.call));
        actions.extend(time::has_to_wait(world).then_some(Action::AwaitNotBefore));
        let abandoned = holder(world)
            .is_some_and(|holder| !world.actors.iter().any(|actor| actor.job.is_some() && actor.holder() == holder));
        actions.extend((abandoned && self.mutation != Mutation::LockForever).then_some(Action::Expire));
    }

    fn crash(&self, world: &mut World, index: usize) {
        let actor = &mut world.actors[index];
        let instance = actor.instance;
        actor.crash();
        if self.mutation == Mutation::SameName {
            actor.instance = instance;
        }
    }

    /// Updates the caches that never lag.
    fn refresh_caches(&self, world: &mut World) {
        let object = world.object.clone();
        let up_to_date = |actor: &&mut Actor| !self.lagging.contains(&actor.role);
        world.actors.iter_mut().filter(up_to_date).for_each(|actor| actor.cache.clone_from(&object));
    }

    fn step(&self, world: &mut World, index: usize) {
        match world.actors[index].role {
            Executor::LbController => self.lb_step(world, index),
            Executor::MonitorController => self.monitor_step(world, index),
            _ => self.machine_step(world, index),
        }
    }

    /// Whether nothing more happens without faults and people.
    fn is_at_rest(&self, world: &World) -> bool {
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

/// The holder of a lock that has not expired.
fn holder(world: &World) -> Option<String> {
    let lock = world.server()?.status.as_ref()?.lock.clone()?;
    (lock.renewed_at.0 == start()).then_some(lock.holder)
}

/// A person acts.
fn act(world: &mut World, action: PersonAction) -> Option<()> {
    world.person_actions.retain(|other| *other != action);
    let server = world.server()?.clone();
    let gate = || {
        let tasks = server.status.as_ref()?.tasks.iter();
        let open = |task: &&berth_core::api::Task| {
            task.kind == TaskKind::Gate && task.phase == TaskPhase::Pending && server.is_open(task)
        };
        tasks.into_iter().find(open).map(|task| task.id)
    };
    match action {
        PersonAction::Approve | PersonAction::Refuse => {
            let id = gate()?;
            if world.approvals.iter().any(|(about, _)| *about == id) {
                return None;
            }
            world.approvals.push((id, action == PersonAction::Approve));
            world.refused = (action == PersonAction::Refuse).then_some(id);
            return Some(());
        }
        PersonAction::Delete => apiserver::delete_object(world),
        PersonAction::ApproveSet => {
            world.set_approval = Some(set_approval::SetApproval::default());
            return Some(());
        }
        action => {
            let mut new = server.clone();
            declare(&mut new, action);
            let written = write_spec(&server, new, &person("ann"), start()).ok()?;
            apiserver::store(world, Version::new(written));
        }
    }
    world.refused = None;
    match action {
        PersonAction::Force(_) => world.force_over = false,
        PersonAction::Retry | PersonAction::Reboot | PersonAction::Retain | PersonAction::Return => {}
        _ => world.force_over = true,
    }
    Some(())
}

fn declare(server: &mut Server, action: PersonAction) {
    let spec = &mut server.spec;
    match action {
        PersonAction::NewCode => spec.app.as_mut().unwrap().revision = Some(code_revision(2)),
        PersonAction::OldCode => spec.app.as_mut().unwrap().revision = Some(code_revision(1)),
        PersonAction::NewPackage => spec.packages[0].version = package_version(2),
        PersonAction::Offline => spec.offline = true,
        PersonAction::Online => spec.offline = false,
        PersonAction::Force(state) => {
            spec.force = Some(Force { state, reason: "by hand".into(), by: None, at: None, declaration: None });
        }
        PersonAction::ClearForce => spec.force = None,
        PersonAction::Retry => {
            spec.retry = Some(Request { id: "again".into(), reason: String::new(), by: None, at: None });
        }
        PersonAction::Reboot => {
            spec.reboot = Some(Request { id: "reboot".into(), reason: String::new(), by: None, at: None });
        }
        PersonAction::Retain => {
            spec.retain = Some(Retention { until: Time(Timestamp::MAX), reason: "why did it fail?".into() });
        }
        PersonAction::Return => spec.retain = None,
        PersonAction::Delete | PersonAction::Approve | PersonAction::Refuse | PersonAction::ApproveSet => {}
    }
}
