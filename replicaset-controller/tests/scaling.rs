//! Scaling as two controllers do it at once, in every order that the generator finds: read the set, list its Servers,
//! write the ledgers with a test of the resource version, then create and delete one by one.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use berth_core::{
    api::{Server, VMReplicaSet, VMReplicaSetStatus},
    budget::is_active,
};
use proptest::prelude::*;
use replicaset_controller::set::scale::{self, Scale};
use serde_json::json;

const MAX_CREATING: usize = 3;

/// The API server: the set, and which of its Servers are being deleted.
#[derive(Clone)]
struct World {
    replicas: usize,
    version: u64,
    status: VMReplicaSetStatus,
    servers: BTreeMap<String, bool>,
}

impl World {
    fn set(&self) -> VMReplicaSet {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "local"}}});
        let mut set: VMReplicaSet = serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet",
            "metadata": {"name": "web", "uid": "u", "resourceVersion": self.version.to_string()},
            "spec": {"replicas": self.replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        }))
        .unwrap();
        set.status = Some(self.status.clone());
        set
    }

    fn list(&self) -> Vec<Server> {
        let server = |(name, deleting): (&String, &bool)| {
            let mut metadata = json!({"name": name, "uid": name, "generation": 1});
            if *deleting {
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            serde_json::from_value(json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": metadata,
                "spec": {"machine": {"className": "local"}},
            }))
            .unwrap()
        };
        self.servers.iter().map(server).collect()
    }

    fn active(&self) -> usize {
        self.servers.values().filter(|deleting| !**deleting).count()
    }

    fn swap(&mut self, read: &VMReplicaSet, scale: &Scale) -> bool {
        if !scale.changes(&self.status) {
            return read.metadata.resource_version == Some(self.version.to_string());
        }
        if read.metadata.resource_version != Some(self.version.to_string()) {
            return false;
        }
        self.version += 1;
        self.status.creating.clone_from(&scale.creating);
        self.status.disturbed.clone_from(&scale.disturbed);
        true
    }
}

#[derive(Default)]
enum Controller {
    #[default]
    Idle,
    Read(Box<VMReplicaSet>),
    Listed(Box<VMReplicaSet>, Vec<Server>),
    Acting(VecDeque<(bool, String)>),
}

impl Controller {
    /// One step. Says whether it did something that could be seen from outside, or is about to.
    fn step(&mut self, world: &mut World) -> bool {
        match std::mem::take(self) {
            Self::Idle => {
                *self = Self::Read(Box::new(world.set()));
                true
            }
            Self::Read(set) => {
                *self = Self::Listed(set, world.list());
                true
            }
            Self::Listed(set, servers) => {
                let servers: Vec<&Server> = servers.iter().collect();
                let scale = scale::plan(&set, &servers, &BTreeSet::new(), MAX_CREATING);
                assert!(scale.creating.len() <= MAX_CREATING);
                let changes = scale.changes(set.status.as_ref().unwrap());
                let done = scale.is_done() && !changes;
                if world.swap(&set, &scale) {
                    let create = scale.create.into_iter().map(|name| (true, name));
                    *self = Self::Acting(create.chain(scale.delete.into_iter().map(|name| (false, name))).collect());
                }
                !done
            }
            Self::Acting(mut queue) => {
                if let Some((create, name)) = queue.pop_front() {
                    if create {
                        // Of somebody else's making: as good.
                        world.servers.entry(name).or_insert(false);
                    } else if let Some(deleting) = world.servers.get_mut(&name) {
                        *deleting = true;
                    }
                    *self = Self::Acting(queue);
                }
                true
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Step(usize),
    Crash(usize),
    Gone,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        12 => (0..2usize).prop_map(Event::Step),
        1 => (0..2usize).prop_map(Event::Crash),
        2 => Just(Event::Gone),
    ];
    prop::collection::vec(event, 0..120)
}

fn carry_out(event: &Event, world: &mut World, controllers: &mut [Controller; 2]) {
    match event {
        Event::Step(n) => {
            controllers[*n].step(world);
        }
        Event::Crash(n) => controllers[*n] = Controller::Idle,
        Event::Gone => {
            let gone = world.servers.iter().find(|(_, deleting)| **deleting).map(|(name, _)| name.clone());
            gone.map(|name| world.servers.remove(&name));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn two_controllers_never_overshoot_and_always_arrive(
        phases in prop::collection::vec((0..9usize, events()), 1..5),
    ) {
        let mut world = World {
            replicas: 0, version: 1, status: VMReplicaSetStatus::default(), servers: BTreeMap::new(),
        };
        for (replicas, events) in phases {
            let before = world.active();
            world.replicas = replicas;
            world.version += 1;
            let mut controllers = [Controller::Idle, Controller::Idle];
            for event in &events {
                carry_out(event, &mut world, &mut controllers);
                let active = world.active();
                prop_assert!(active <= before.max(replicas), "{active} Servers, {before} -> {replicas}");
                prop_assert!(active >= before.min(replicas), "{active} Servers, {before} -> {replicas}");
            }
            // Both go on, turn by turn, until a whole round of each finds nothing to do.
            let mut quiet = 0;
            for turn in 0..400 {
                let busy = controllers[turn % 2].step(&mut world);
                let idle = !busy && matches!(controllers[turn % 2], Controller::Acting(_) | Controller::Idle);
                quiet = if idle { quiet + 1 } else { quiet };
            }
            prop_assert!(quiet > 0, "it never comes to rest");
            prop_assert_eq!(world.active(), replicas);
            prop_assert!(world.list().iter().filter(|s| is_active(s)).count() == replicas);
        }
    }
}
