//! Controllers, one step at a time: read the set, list its Servers, write the ledgers with a test of the resource version,
//! then act call by call. Between any two steps anything may happen, a crash included.

use std::collections::{BTreeSet, VecDeque};

use berth_core::{
    api::{Axis, PendingServer, Server, VMReplicaSet},
    fleet::{Fleet, Pace},
};

use super::world::{World, uid};
use crate::set::{
    drift_repair::{DriftMemory, DriftView},
    finding::MachineAnswers,
    plan::{Plan, PlanInput, SetLedgers, SetLimits, may_be_in_service, plan},
    zone::FailureDomains,
};

/// A call that a controller makes.
#[derive(Clone, Debug)]
enum Call {
    Create {
        name: String,
        class: u8,
        environment: u8,
    },
    /// The set is read again before a Server is created, because the last read has become old.
    ReadAgain(String, u8, u8),
    Retire(String, u64),
    /// With whether it must not be Ready.
    Replace(String, u64, bool),
    Update(String, u64, u8, bool),
    /// With how often the Server was out: nothing is reported of one that has changed meanwhile.
    Repair(String, u64, u32),
    Deploy(String, u64, u8),
}

/// Where a controller is.
#[derive(Default)]
enum At {
    #[default]
    Idle,
    Read(Box<VMReplicaSet>, DriftView),
    Listed(Box<VMReplicaSet>, DriftView, Vec<Server>, (u8, u8, u8)),
    Acting(VecDeque<Call>),
}

/// A copy of replicaset-controller, or of deployment-controller.
#[derive(Default)]
pub(crate) struct Controller {
    deploys: bool,
    at: At,
    drift: DriftMemory,
}

impl Controller {
    pub(crate) fn new(deploys: bool) -> Self {
        Self { deploys, at: At::Idle, drift: DriftMemory::default() }
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
            // Drift is observed before anything is read.
            At::Idle => {
                let (drifted, servers) = (world.drifted(), world.list());
                let servers: Vec<&Server> = servers.iter().collect();
                let is_drifted = |server: &Server| drifted.contains(&name(server));
                let known = self.drift.observe(&world.set(), &servers, world.time(), is_drifted);
                At::Read(Box::new(world.set()), known)
            }
            At::Read(set, drifted) => {
                let declared = (world.spec.class, world.spec.environment, world.code);
                At::Listed(set, drifted, world.list(), declared)
            }
            At::Listed(set, drifted, servers, declared) => {
                let servers: Vec<&Server> = servers.iter().collect();
                let (ledgers, calls) = if self.deploys {
                    plan_deployments(&set, &servers, world, declared.2)
                } else {
                    plan_calls(&set, &servers, &drifted, world)
                };
                for call in &calls {
                    if let Call::Repair(name, ..) = call {
                        self.drift.note_request(name, world.time());
                    }
                }
                // Nothing has to be entered: then the set is read again, to see that it is still the one that was read.
                let is_entered = ledgers == SetLedgers::of(&set);
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

fn plan_calls(
    set: &VMReplicaSet,
    servers: &[&Server],
    drift: &DriftView,
    world: &World,
) -> (SetLedgers, VecDeque<Call>) {
    let plan: Plan<'_> = plan(PlanInput {
        set,
        servers,
        now: world.time(),
        limits: SetLimits { creating: 3, replicas: 1000, zone_brake: 40 },
        foreign_names: &BTreeSet::new(),
        no_machines: None,
        drift,
        answers: &MachineAnswers::new(),
        domains: &FailureDomains::new(),
    });
    let template = &set.spec.template.spec;
    let class = template.machine.class_name[1..].parse().unwrap();
    let environment = template.packages[0].version.parse().unwrap();
    for name in &plan.create {
        assert!(plan.ledgers.creating.contains(&PendingServer::new(name)), "{name} is created, but not entered");
    }
    for server in plan.retire.iter().chain(&plan.replace).chain(&plan.update).chain(&plan.repair) {
        let is_entered = plan.ledgers.disturbed.servers().contains(server.name());
        assert!(is_entered, "{} is not entered", server.name());
    }
    let mut calls: VecDeque<Call> = plan.retire.iter().map(|s| Call::Retire(name(s), uid(s))).collect();
    let in_state = |server: &Server| !may_be_in_service(server);
    calls.extend(plan.replace.iter().map(|s| Call::Replace(name(s), uid(s), in_state(s))));
    calls.extend(plan.update.iter().map(|s| Call::Update(name(s), uid(s), environment, in_state(s))));
    calls.extend(
        plan.repair.iter().map(|s| Call::Repair(name(s), uid(s), world.servers.get(&name(s)).map_or(0, |m| m.outages))),
    );
    calls.extend(plan.create.iter().map(|name| Call::ReadAgain(name.clone(), class, environment)));
    (plan.ledgers, calls)
}

/// deployment-controller's part: it shares the ledger.
fn plan_deployments(set: &VMReplicaSet, servers: &[&Server], world: &World, code: u8) -> (SetLedgers, VecDeque<Call>) {
    let mut fleet = Fleet::of_set(set, servers, world.time());
    fleet.budget.partition = 0;
    let outdated = |server: &Server| server.spec.app.as_ref().unwrap().revision.as_deref() != Some(&code.to_string());
    let update = fleet.roll(Axis::App, servers, Pace::Unlimited, outdated);
    let calls = update.iter().map(|s| Call::Deploy(name(s), uid(s), code)).collect();
    (SetLedgers { disturbed: fleet.ledger, ..SetLedgers::of(set) }, calls)
}

fn carry_out(call: Call, world: &mut World) -> Option<Call> {
    let now = world.now;
    let begins = |world: &mut World, name: &str, uid: u64| {
        if world.servers.get(name).is_some_and(|m| m.uid == uid && m.ready && !m.deleting) {
            world.begun.push(now);
        }
    };
    match call {
        Call::ReadAgain(name, class, environment) => {
            let is_given = world.status.creating.contains(&PendingServer::new(name.as_str()));
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
        Call::Update(name, uid, environment, early) => {
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

fn name(server: &Server) -> String {
    server.name().to_owned()
}
