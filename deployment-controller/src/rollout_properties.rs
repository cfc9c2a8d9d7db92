//! Random roll-outs: whatever has happened before, as soon as machines work and nobody holds the roll-out, every Server that the
//! partition does not keep gets the declared application, and so do new ones.

use std::slice;

use berth_core::{
    api::{
        App, BakeStep, BaselineStep, OnFailure, PauseStep, RolloutAction, RolloutRequest, RolloutStep, Server, State,
        VMDeployment, VMReplicaSet, VMReplicaSetStatus,
    },
    conditions::{self, PROGRESSING, STALLED},
};
use k8s_openapi::{
    apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString},
    jiff::{SignedDuration, Timestamp},
};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    assessment::Assessment,
    history::{self, Revision, Wanted},
    observed::ObservedDeployment,
    replica_set::{self, newest_app},
    restart, rollout,
    rollout_invariants::{ZONE, assert_baseline, assert_one_zone},
    stable, status, steps, testing, undo,
};

#[derive(Clone, Debug)]
enum Event {
    Reconcile,
    Declare(u8),
    Partition(i32),
    MaxFailed(Option<i32>),
    Pause(bool),
    Steps(Vec<u8>),
    /// One zone at a time, each of which bakes for so many seconds.
    Spread(Option<i32>),
    OnFailure(OnFailure),
    Request(RolloutAction),
    Scale(i32),
    /// The set creates or removes one Server, if there are too few or too many.
    Sync,
    /// A Server comes one step closer to Ready.
    Advance(usize),
    Break(usize),
    Fail(usize),
    Flap(usize),
    Force(usize, bool),
    Die(usize),
    Later(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        12 => Just(Event::Reconcile),
        2 => (1..5u8).prop_map(Event::Declare),
        1 => (0..4i32).prop_map(Event::Partition),
        1 => prop::option::of(0..3i32).prop_map(Event::MaxFailed),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => prop::collection::vec(0..9u8, 0..5).prop_map(Event::Steps),
        1 => prop::option::of(0..10i32).prop_map(Event::Spread),
        1 => prop_oneof![Just(OnFailure::Pause), Just(OnFailure::Rollback)].prop_map(Event::OnFailure),
        2 => prop_oneof![
            3 => Just(RolloutAction::Promote),
            1 => Just(RolloutAction::PromoteFull),
            1 => Just(RolloutAction::Abort),
            1 => Just(RolloutAction::Retry),
            2 => Just(RolloutAction::Undo),
            2 => Just(RolloutAction::Restart),
        ].prop_map(Event::Request),
        1 => (0..6i32).prop_map(Event::Scale),
        6 => Just(Event::Sync),
        12 => (0..6usize).prop_map(Event::Advance),
        1 => (0..6usize).prop_map(Event::Break),
        1 => (0..6usize).prop_map(Event::Fail),
        1 => (0..6usize).prop_map(Event::Flap),
        1 => (0..6usize, any::<bool>()).prop_map(|(n, on)| Event::Force(n, on)),
        1 => (0..6usize).prop_map(Event::Die),
        2 => (1..400i64).prop_map(Event::Later),
    ];
    prop::collection::vec(event, 0..120)
}

struct World {
    deployment: VMDeployment,
    set: VMReplicaSet,
    servers: Vec<Server>,
    history: Vec<Revision>,
    created: u32,
    requests: u32,
    now: Timestamp,
}

impl World {
    fn new(max_unavailable: i32) -> Self {
        let mut deployment = testing::deployment("v1", |_| {});
        deployment.spec.update_strategy.max_unavailable = Some(IntOrString::Int(max_unavailable));
        let set = replica_set::desired(&deployment, newest_app(&deployment));
        Self { deployment, set, servers: Vec::new(), history: Vec::new(), created: 0, requests: 0, now: testing::now() }
    }

    fn newest(&self) -> App {
        let restart = restart::requested(&self.deployment).map(str::to_owned);
        App { restart, ..newest_app(&self.deployment) }
    }

    fn initial(&self) -> App {
        self.set.spec.template.spec.app.clone().unwrap()
    }

    fn has_available(&self, app: &App) -> bool {
        self.servers.iter().any(|server| server.spec.app.as_ref() == Some(app) && server.is_available(0, self.now))
    }

    /// What the controller does: the set, the next move of the roll-out, the status.
    fn reconcile(&mut self) {
        let request = undo::pending(&self.deployment).cloned();
        if let Some(request) = &request {
            let turned = undo::carry_out(&self.deployment, None, request, &self.history, self.now);
            self.deployment.status.get_or_insert_default().rollout = Some(turned);
        }
        let wanted = undo::wanted(&self.deployment).into_owned();
        let before = self.initial();
        let stable = self.deployment.status.as_ref().and_then(|status| status.stable_app.clone());
        let servers: Vec<&Server> = self.servers.iter().collect();
        let observed = ObservedDeployment {
            deployment: &wanted,
            set: Some(&self.set),
            servers: &servers,
            missing_content: None,
            looks: &[],
            alarm_look: None,
            others: &[],
            awaited: &[],
            now: self.now,
        };
        let assessment = Assessment::of(&observed);
        let initial = stable::initial_app(&observed, &assessment);
        let updates = rollout::next_updates(&wanted, &self.set, &servers, None, self.now);
        // A request that decides which application is wanted is written before anything is done about it.
        let servers_now = updates.servers.iter().filter(|_| request.is_none());
        let names: Vec<String> = servers_now.map(|server| server.name().to_owned()).collect();
        let (status, _) = status::compute(&observed);
        let disturbed = updates.ledger.to_status();
        let replicas = i32::try_from(self.servers.len()).unwrap();

        let is_undone = assessment.progress.undone.is_some() && assessment.progress.aborted.is_none();
        if is_undone && !names.is_empty() {
            assert_ne!(updates.app, self.newest(), "an undone application is declared");
        }
        // It may differ by a restart, which a new Server does not need.
        let is_same = |known: Option<&App>| known.is_some_and(|known| known.is_same_code(&initial));
        let is_kept = self.servers.iter().any(|server| server.spec.app.as_ref() == Some(&initial));
        assert!(
            is_undone || is_same(Some(&before)) || is_same(stable.as_ref()) || is_kept || self.servers.is_empty(),
            "new Servers get an application that nobody has"
        );
        if initial == self.newest() && !is_same(Some(&before)) && !is_same(stable.as_ref()) {
            assert!(self.has_available(&initial) || self.servers.is_empty(), "nobody has proven {initial:?}");
        }
        let newest = updates.app;
        let allowed = steps::allowed(&wanted, &assessment.count);
        let aborted = steps::aborted(&wanted, &assessment.count.newest).is_some();
        if newest == assessment.count.newest && !names.is_empty() {
            assert!(!aborted, "an aborted application is declared");
            assert!(
                assessment.count.updated() + names.len() <= allowed.max(assessment.count.updated()),
                "more than {allowed}"
            );
        }
        let is_watched =
            !steps::needs_no_steps(&wanted, &assessment.count) || steps::is_restart(&wanted, &assessment.count);
        if (newest == assessment.count.newest || newest.baseline.is_some()) && is_watched {
            assert_one_zone((&self.servers, self.now), &wanted, &assessment.count.newest, &names);
        }
        if newest.baseline.is_some() {
            assert_baseline(&self.servers, &wanted, &newest, &names);
        }
        let newest_of_history = assessment.count.newest.as_declared();
        let stable_of_history = status.stable_app.as_ref().map(App::as_declared);
        let wanted_history =
            Wanted { newest: &newest_of_history, stable: stable_of_history.as_ref(), in_use: &[], limit: 3 };
        let changes = history::changes(&self.deployment, &self.history, wanted_history);
        self.history.retain(|known| changes.apply.iter().all(|revision| revision.name != known.name));
        self.history.extend(changes.apply);
        self.history.retain(|known| !changes.delete.contains(&known.name));
        self.set.spec = replica_set::desired(&self.deployment, initial).spec;
        self.set.status = Some(VMReplicaSetStatus { replicas, disturbed, ..VMReplicaSetStatus::default() });
        self.deployment.status = Some(status);
        for server in self.servers.iter_mut().filter(|server| names.iter().any(|name| name == server.name())) {
            server.spec.app = Some(newest.clone());
            if matches!(server.state(), Some(State::Ready | State::Deploying)) {
                enter(server, State::Deploying, self.now);
            }
        }
    }

    fn request(&mut self, action: RolloutAction) {
        self.requests += 1;
        let id = self.requests.to_string();
        self.deployment.spec.rollout.request =
            Some(RolloutRequest { action, to_revision: None, id, reason: String::new(), by: None, at: None });
    }

    fn sync(&mut self) {
        let replicas = usize::try_from(self.deployment.spec.replicas).unwrap();
        if self.servers.len() < replicas {
            let mut server = testing::server(&format!("web-{}", self.created), "v1", "Initializing", 0);
            server.spec.app = Some(self.initial());
            server.metadata.labels.get_or_insert_default().insert(ZONE.into(), (self.created % 3).to_string());
            self.created += 1;
            enter(&mut server, State::Initializing, self.now);
            self.servers.push(server);
        } else {
            self.servers.truncate(replicas);
        }
    }

    fn nth(&mut self, n: usize) -> &mut [Server] {
        let len = self.servers.len().max(1);
        self.servers.get_mut(n % len).map_or(&mut [], slice::from_mut)
    }

    fn apply(&mut self, event: &Event) {
        let now = self.now;
        let enter_from = |servers: &mut [Server], from: State, to: State| {
            servers.iter_mut().filter(|server| server.state() == Some(from)).for_each(|server| enter(server, to, now));
        };
        match *event {
            Event::Reconcile => self.reconcile(),
            Event::Declare(n) => self.deployment.spec.app.revision = Some(format!("v{n}")),
            Event::Partition(n) => self.deployment.spec.rollout.partition = n,
            Event::MaxFailed(n) => self.deployment.spec.rollout.max_failed = n.map(IntOrString::Int),
            Event::Pause(paused) => self.deployment.spec.paused = paused,
            Event::Steps(ref steps) => self.deployment.spec.rollout.steps = steps.iter().map(|n| step(*n)).collect(),
            Event::Spread(bake) => {
                let spread = |bake| json!({"topologyKey": ZONE, "bakeSeconds": bake});
                self.deployment.spec.rollout.spread = serde_json::from_value(json!(bake.map(spread))).unwrap();
            }
            Event::OnFailure(what) => self.deployment.spec.rollout.on_failure = what,
            Event::Request(action) => self.request(action),
            Event::Scale(n) => self.deployment.spec.replicas = n,
            Event::Sync => self.sync(),
            Event::Advance(n) => self.nth(n).iter_mut().for_each(|server| advance(server, now)),
            Event::Break(n) => self.nth(n).iter_mut().for_each(|server| enter(server, State::Unknown, now)),
            Event::Fail(n) => {
                let deploying = self.nth(n).iter_mut().filter(|server| server.state() == Some(State::Deploying));
                deploying.for_each(testing::fail);
            }
            Event::Flap(n) => enter_from(self.nth(n), State::Ready, State::Deploying),
            Event::Force(n, on) => self.nth(n).iter_mut().for_each(|server| force(server, on)),
            Event::Die(n) => {
                let n = n % self.servers.len().max(1);
                if n < self.servers.len() {
                    drop(self.servers.remove(n));
                }
            }
            Event::Later(seconds) => self.now += SignedDuration::from_secs(seconds),
        }
    }
}

/// A pause, a bake, restarts of a baseline, or so many Servers.
fn step(n: u8) -> RolloutStep {
    match n {
        6..9 => {
            let servers = IntOrString::Int(i32::from(n) - 5);
            RolloutStep { baseline: Some(BaselineStep { servers }), ..RolloutStep::default() }
        }
        5 => RolloutStep { bake: Some(BakeStep { seconds: 20 }), ..RolloutStep::default() },
        0 => RolloutStep { pause: Some(PauseStep { seconds: Some(30) }), ..RolloutStep::default() },
        _ => RolloutStep { servers: Some(IntOrString::Int(n.into())), ..RolloutStep::default() },
    }
}

fn enter(server: &mut Server, state: State, now: Timestamp) {
    let status = server.status.as_mut().unwrap();
    (status.state, status.state_since) = (Some(state), Some(Time(now)));
    status.tasks.clear();
    conditions::set(&mut status.conditions, STALLED, false, "Progressing", "", None, now);
}

/// One step towards Ready, as long as nothing has failed.
fn advance(server: &mut Server, now: Timestamp) {
    let next = match server.state() {
        Some(State::Unknown) => State::Initializing,
        Some(State::Initializing) => State::Deploying,
        Some(State::Deploying) if server.blocking_failures().is_empty() => State::Ready,
        _ => return,
    };
    enter(server, next, now);
}

fn force(server: &mut Server, on: bool) {
    let force = serde_json::json!({"state": "Unknown", "reason": "disk", "by": "ann"});
    server.spec.force = on.then(|| serde_json::from_value(force).unwrap());
}

/// Machines work, nobody holds anything, failed Servers are retried, and so is a roll-out that was aborted or undone.
fn settle(world: &mut World) {
    world.deployment.spec.paused = false;
    // A roll-back may have been aborted, too: then the first request goes on with that.
    for _ in 0..2 {
        world.reconcile();
        world.request(RolloutAction::Retry);
    }
    for _ in 0..300 {
        let now = world.now;
        for server in &mut world.servers {
            force(server, false);
            if !server.blocking_failures().is_empty() {
                enter(server, State::Deploying, now);
            }
            advance(server, now);
        }
        world.sync();
        world.reconcile();
        world.now += SignedDuration::from_secs(1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_server_gets_the_declared_application_and_new_ones_do(events in events(), max_unavailable in 1..4i32) {
        let mut world = World::new(max_unavailable);
        for event in &events {
            world.apply(event);
        }
        settle(&mut world);
        let newest = world.newest();
        let is_as_wanted = |server: &&Server| server.spec.app.as_ref().unwrap().is_as_wanted(&newest);
        let old = world.servers.iter().filter(|server| !is_as_wanted(server)).count();
        let partition = usize::try_from(world.deployment.spec.rollout.partition).unwrap();
        prop_assert!(old <= partition, "{old} Servers have another application");
        let status = world.deployment.status.clone().unwrap();
        let is_kept_whole = partition >= world.servers.len() && old == world.servers.len();
        if !is_kept_whole {
            prop_assert_eq!(status.stable_app.as_ref(), Some(&newest));
            prop_assert!(old < partition || world.initial() == newest, "new Servers begin with another application");
        }
        prop_assert!(conditions::get_true(&status.conditions, STALLED).is_none());
        prop_assert!(conditions::get_true(&status.conditions, PROGRESSING).is_none());
        prop_assert!(is_kept_whole || status.rollout.unwrap().baseline.is_none());
        // Nothing starts again, whatever marks are left.
        let before: Vec<Option<App>> = world.servers.iter().map(|server| server.spec.app.clone()).collect();
        (0..5).for_each(|_| world.reconcile());
        let after: Vec<Option<App>> = world.servers.iter().map(|server| server.spec.app.clone()).collect();
        prop_assert_eq!(before, after);
    }
}
