//! Controllers, one step at a time: read the set, list its Servers, write the ledgers with a test of the resource version,
//! then act call by call. Between any two steps anything may happen, a crash included.

use std::collections::{BTreeSet, VecDeque};

use berth_core::{
    api::{Server, VMReplicaSet},
    budget::{self, Axis},
};
use replicaset_controller::set::{
    drifted::{Known, Seen},
    plan::{Facts, Ledgers, Limits, Plan, plan},
};

use super::world::{World, name, uid};

/// A call that a controller makes.
#[derive(Clone, Debug)]
enum Call {
    Create {
        name: String,
        class: u8,
        environment: u8,
    },
    /// The set is read again before a Server is created, because the last look at it has become old.
    Look(String, u8, u8),
    Retire(String, u64),
    /// With whether it must not be Ready.
    Replace(String, u64, bool),
    Touch(String, u64, u8, bool),
    /// With how often the Server was out: nothing is reported of one that has changed meanwhile.
    Repair(String, u64, u32),
    Deploy(String, u64, u8),
}

/// Where a controller is.
#[derive(Default)]
enum At {
    #[default]
    Idle,
    Read(Box<VMReplicaSet>, Known),
    Listed(Box<VMReplicaSet>, Known, Vec<Server>, (u8, u8, u8)),
    Acting(VecDeque<Call>),
}

/// A copy of replicaset-controller, or of deployment-controller.
#[derive(Default)]
pub(crate) struct Controller {
    deploys: bool,
    at: At,
    seen: Seen,
}

impl Controller {
    pub(crate) fn new(deploys: bool) -> Self {
        Self { deploys, at: At::Idle, seen: Seen::default() }
    }

    pub(crate) fn crash(&mut self) {
        *self = Self::new(self.deploys);
    }

    pub(crate) fn is_acting(&self) -> bool {
        matches!(self.at, At::Acting(_))
    }

    /// One step.
    pub(crate) fn step(&mut self, world: &mut World) {
        self.at = match std::mem::take(&mut self.at) {
            // What is known of drift is known before anything is read.
            At::Idle => {
                let (drifted, servers) = (world.drifted(), world.list());
                let servers: Vec<&Server> = servers.iter().collect();
                let is_drifted = |server: &Server| drifted.contains(&name(server));
                let known = self.seen.look(&world.set(), &servers, world.time(), is_drifted);
                At::Read(Box::new(world.set()), known)
            }
            At::Read(set, drifted) => {
                let declared = (world.spec.class, world.spec.environment, world.code);
                At::Listed(set, drifted, world.list(), declared)
            }
            At::Listed(set, drifted, servers, declared) => {
                let servers: Vec<&Server> = servers.iter().collect();
                let (ledgers, calls) = if self.deploys {
                    deploy(&set, &servers, world, declared.2)
                } else {
                    decide(&set, &servers, &drifted, world)
                };
                for call in &calls {
                    if let Call::Repair(name, ..) = call {
                        self.seen.ask(name, world.time());
                    }
                }
                // Nothing is to be entered: whether the set is still the one that was read is looked up.
                let is_entered = ledgers == Ledgers::of(&set);
                if is_entered && world.is_current(&set) || !is_entered && world.swap(&set, ledgers) {
                    At::Acting(calls)
                } else {
                    At::Idle
                }
            }
            At::Acting(mut calls) => match calls.pop_front() {
                Some(call) => {
                    if let Some(next) = carry_out(call, world) {
                        calls.push_front(next);
                    }
                    At::Acting(calls)
                }
                None => At::Idle,
            },
        };
    }
}

fn decide(set: &VMReplicaSet, servers: &[&Server], drift: &Known, world: &World) -> (Ledgers, VecDeque<Call>) {
    let limits = Limits { creating: 3, replicas: 1000 };
    let taken = BTreeSet::new();
    let facts = Facts {
        now: world.time(),
        taken: &taken,
        limits,
        no_machines: None,
        drift,
        silent: &std::collections::BTreeMap::new(),
    };
    let plan: Plan<'_> = plan(set, servers, facts);
    let template = &set.spec.template.spec;
    let class = template.machine.class_name[1..].parse().unwrap();
    let environment = template.packages[0].version.parse().unwrap();
    for name in &plan.create {
        assert!(plan.ledgers.creating.contains(name), "{name} is created, but not entered");
    }
    for server in plan.retire.iter().chain(&plan.replace).chain(&plan.touch).chain(&plan.repair) {
        let entry = format!("{}/", name(server));
        assert!(plan.ledgers.disturbed.iter().any(|line| line.starts_with(&entry)), "{entry} is not entered");
    }
    let mut calls: VecDeque<Call> = plan.retire.iter().map(|s| Call::Retire(name(s), uid(s))).collect();
    let is_early = |server: &Server| plan.is_slow && !budget::is_ready(server);
    calls.extend(plan.replace.iter().map(|s| Call::Replace(name(s), uid(s), is_early(s))));
    calls.extend(plan.touch.iter().map(|s| Call::Touch(name(s), uid(s), environment, is_early(s))));
    calls.extend(
        plan.repair.iter().map(|s| Call::Repair(name(s), uid(s), world.servers.get(&name(s)).map_or(0, |m| m.outages))),
    );
    calls.extend(plan.create.iter().map(|name| Call::Look(name.clone(), class, environment)));
    (plan.ledgers, calls)
}

/// deployment-controller's part: it draws on the same ledger.
fn deploy(set: &VMReplicaSet, servers: &[&Server], world: &World, code: u8) -> (Ledgers, VecDeque<Call>) {
    let ledgers = Ledgers::of(set);
    let outdated = |server: &Server| server.spec.app.as_ref().unwrap().revision.as_deref() != Some(&code.to_string());
    let budget = budget::Budget { partition: 0, ..budget::Budget::of(set) };
    let roll = budget::roll(servers, &ledgers.disturbed, budget, world.time(), Axis::App, false, outdated);
    let calls = roll.touch.iter().map(|s| Call::Deploy(name(s), uid(s), code)).collect();
    (Ledgers { disturbed: roll.ledger, ..ledgers }, calls)
}

fn carry_out(call: Call, world: &mut World) -> Option<Call> {
    let now = world.now;
    let begins = |world: &mut World, name: &str, uid: u64| {
        if world.servers.get(name).is_some_and(|m| m.uid == uid && m.ready && !m.deleting) {
            world.begun.push(now);
        }
    };
    match call {
        Call::Look(name, class, environment) => {
            let is_given = world.status.creating.contains(&name);
            return is_given.then_some(Call::Create { name, class, environment });
        }
        Call::Create { name, class, environment } => world.create(&name, class, environment),
        Call::Retire(name, uid) => world.change(&name, uid, |m| m.deleting = true),
        Call::Replace(name, uid, early) => {
            if !(early && world.servers.get(&name).is_some_and(|m| m.ready)) {
                begins(world, &name, uid);
                world.change(&name, uid, |m| m.deleting = true);
            }
        }
        Call::Touch(name, uid, environment, early) => {
            let is_due = |m: &super::world::Machine| m.environment != environment && !(early && m.ready);
            if world.servers.get(&name).is_some_and(is_due) {
                begins(world, &name, uid);
                world.change(&name, uid, |m| {
                    m.environment = environment;
                    m.stop();
                });
            }
        }
        Call::Repair(name, uid, outages) => world.change(&name, uid, |m| {
            if m.outages == outages && m.ready && std::mem::take(&mut m.drifted) {
                m.stop();
            }
        }),
        Call::Deploy(name, uid, code) => world.change(&name, uid, |m| {
            if std::mem::replace(&mut m.code, code) != code {
                m.stop();
            }
        }),
    }
    None
}
