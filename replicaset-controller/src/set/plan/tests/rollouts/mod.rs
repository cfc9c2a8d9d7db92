//! Random worlds: two copies of replicaset-controller and one of deployment-controller bring a set to what it declares, in every
//! order of steps that the generator finds, with crashes between any two of them.

mod controllers;
mod world;

use controllers::Controller;
use proptest::prelude::*;
use world::{Spec, World};

#[derive(Clone, Debug)]
enum Event {
    Step(usize),
    Crash(usize),
    Gone,
    Ready(usize),
    Fail(usize),
    Drift(usize),
    Later(i64),
}

fn events(faults: bool) -> impl Strategy<Value = Vec<Event>> {
    let rare = u32::from(faults);
    let event = prop_oneof![
        24 => (0..3usize).prop_map(Event::Step),
        2 => (0..3usize).prop_map(Event::Crash),
        4 => Just(Event::Gone),
        5 => (0..9usize).prop_map(Event::Ready),
        rare => (0..9usize).prop_map(Event::Fail),
        1 => (0..9usize).prop_map(Event::Drift),
        2 => (1..9i64).prop_map(Event::Later),
    ];
    prop::collection::vec(event, 0..160)
}

prop_compose! {
    fn spec()(
        replicas in 0..7usize, class in 0..2u8, environment in 0..3u8, replaces in prop::bool::weighted(0.7),
        max_unavailable in 0..3usize, max_surge in 0..4usize, partition in prop_oneof![3 => Just(0), 1 => 0..4usize],
    ) -> Spec {
        let max_surge = if max_unavailable == 0 { max_surge.max(1) } else { max_surge };
        Spec { replicas, class, environment, replaces, max_unavailable, max_surge, partition, interval: 0 }
    }
}

fn carry_out(event: &Event, world: &mut World, controllers: &mut [Controller; 3]) {
    match *event {
        Event::Step(n) => controllers[n].step(world),
        Event::Crash(n) => controllers[n].crash(),
        Event::Gone => world.remove_gone(),
        Event::Ready(n) => drop(world.nth(n, |m| !m.ready && !m.deleting).map(|m| m.ready = true)),
        Event::Fail(n) => {
            if world.nth(n, |m| m.ready && !m.deleting).map(world::Machine::stop).is_some() {
                world.failures += 1;
            }
        }
        Event::Drift(n) => drop(world.nth(n, |m| m.ready && !m.deleting).map(|m| m.drifted = true)),
        // A call that is stuck for longer than an interval is not modelled.
        Event::Later(seconds) if !controllers.iter().any(Controller::is_acting) => world.now += seconds,
        Event::Later(_) => {}
    }
}

/// What holds from a declaration on, until the next.
struct Bounds {
    most: usize,
    least: usize,
}

impl Bounds {
    fn of(world: &World) -> Self {
        let budget = world.budget();
        let surge = if world.spec.replaces { world.spec.max_surge } else { 0 };
        Self {
            most: world.active().max(world.spec.replicas + surge),
            least: world.available().min(world.spec.replicas.saturating_sub(budget.max_unavailable)),
        }
    }

    fn check(&self, world: &World) -> Result<(), TestCaseError> {
        prop_assert!(world.active() <= self.most, "{} Servers, {} may be\n{world:#?}", world.active(), self.most);
        let least = self.least.saturating_sub(world.failures);
        prop_assert!(world.available() >= least, "{} available, {least} must be\n{world:#?}", world.available());
        Ok(())
    }
}

fn controllers() -> [Controller; 3] {
    [Controller::new(false), Controller::new(false), Controller::new(true)]
}

/// All go on, turn by turn, while machines do what they are told.
fn settle(world: &mut World, bounds: &Bounds) -> Result<(), TestCaseError> {
    let mut controllers = controllers();
    let mut calm = 0;
    for turn in 0..4000 {
        let version = world.version;
        controllers[turn % 3].step(world);
        bounds.check(world)?;
        if turn % 7 == 0 {
            carry_out(&Event::Ready(turn), world, &mut controllers);
        }
        if turn % 11 == 0 {
            world.remove_gone();
        }
        if turn % 13 == 0 && !controllers.iter().any(Controller::is_acting) {
            world.now += 7;
        }
        // As many turns as three whole rounds of each, and a wait for the longest interval.
        calm = if world.version == version && has_arrived(world).is_ok() { calm + 1 } else { 0 };
        if calm > 60 {
            return Ok(());
        }
    }
    has_arrived(world)
}

fn has_arrived(world: &World) -> Result<(), TestCaseError> {
    let spec = &world.spec;
    let active = || world.servers.values().filter(|m| !m.deleting);
    prop_assert_eq!(active().count(), spec.replicas, "{:#?}", world);
    prop_assert!(world.status.creating.is_empty() && world.status.disturbed.is_empty(), "{:#?}", world);
    let old = world.old();
    if spec.max_unavailable > 0 {
        prop_assert!(old <= spec.partition, "{old} are old\n{:#?}", world);
        prop_assert!(active().all(|m| m.code == world.code && !m.drifted), "{:#?}", world);
    } else if spec.replaces {
        prop_assert!(world.old_machines() <= spec.partition, "{:#?}", world);
    }
    Ok(())
}

fn live(phases: Vec<(Spec, u8, Vec<Event>)>) -> Result<(), TestCaseError> {
    let mut world = World::new(phases[0].0.clone());
    for (spec, code, events) in phases {
        world.declare(spec);
        world.code = code;
        let bounds = Bounds::of(&world);
        let mut controllers = controllers();
        // Scaling in may take any.
        let shrinks = world.active() > world.spec.replicas;
        let kept = if shrinks { 0 } else { world.spec.partition.min(world.old()) };
        for event in &events {
            carry_out(event, &mut world, &mut controllers);
            bounds.check(&world)?;
            prop_assert!(world.old() >= kept, "the partition keeps {kept}\n{world:#?}");
        }
        settle(&mut world, &bounds)?;
    }
    Ok(())
}

fn phases(faults: bool) -> impl Strategy<Value = Vec<(Spec, u8, Vec<Event>)>> {
    prop::collection::vec((spec(), 0..2u8, events(faults)), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn there_is_never_a_surplus_server_and_never_one_available_too_few(phases in phases(false)) {
        live(phases)?;
    }

    #[test]
    fn machines_that_fail_count_in_the_budget(phases in phases(true)) {
        live(phases)?;
    }

    #[test]
    fn all_copies_keep_the_interval_across_crashes(
        spec in spec(), interval in 2..20i64, max_unavailable in 1..4usize, events in events(false),
    ) {
        let mut world = World::new(Spec { replicas: 6, interval: 0, class: 0, environment: 0, partition: 0, ..spec.clone() });
        let bounds = Bounds::of(&world);
        settle(&mut world, &bounds)?;
        let newer = Spec { replicas: 6, class: 1, environment: 1, partition: 0, interval, max_unavailable, ..spec };
        world.declare(newer);
        let bounds = Bounds::of(&world);
        let mut controllers = controllers();
        for event in &events {
            carry_out(event, &mut world, &mut controllers);
            bounds.check(&world)?;
        }
        settle(&mut world, &bounds)?;
        for pair in world.begun.windows(2) {
            prop_assert!(pair[1] - pair[0] >= interval, "{:?}, every {interval} s", world.begun);
        }
        prop_assert!(!world.begun.is_empty());
    }
}
