//! The checks: focused models, each over all interleavings, and rules broken on purpose that must be found.

use std::time::{Duration, Instant};

use berth_core::api::{
    Executor::{self, DeploymentController, LbController, MonitorController, ReplicasetController},
    GatePoint, State,
};
use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    Berth, Mutation,
    apiserver::Memo,
    checks::{GUARANTEES, count_if_acyclic},
    world::{Deed, Faults},
};

const NO_FAULTS: Faults = Faults { crashes: 0, lost: 0, slow: 0, outages: 0, sick: 0, failures: 0 };

/// Only so that a model that has grown too large ends.
const LIMIT: Duration = Duration::from_mins(5);

const ONE_OF_EACH: [Executor; 4] = [ReplicasetController, DeploymentController, LbController, MonitorController];

/// A new Server, and one process of each controller, every one of them with a cache as old as it pleases.
fn new() -> Berth {
    Berth {
        processes: ONE_OF_EACH.to_vec(),
        gates: Vec::new(),
        behind: ONE_OF_EACH.to_vec(),
        begins_ready: false,
        faults: NO_FAULTS,
        deeds: Vec::new(),
        mutation: Mutation::None,
        memo: Memo::default(),
    }
}

/// A Server that is as declared.
fn ready() -> Berth {
    Berth { begins_ready: true, ..new() }
}

/// Every reachable state is looked at, and every property holds.
#[track_caller]
fn holds(name: &str, model: Berth) {
    let started = Instant::now();
    let checker = model.checker().threads(2).timeout(LIMIT).spawn_bfs().join();
    let (states, ways) = (checker.unique_state_count(), checker.state_count());
    let seconds = started.elapsed().as_secs_f64();
    println!("{name}: all {states} states, {ways} ways between them, depth {}, {seconds:.1} s", checker.max_depth());
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let last = path.last_state().clone();
        let object = serde_json::to_string_pretty(&last.server().map(|server| &server.status)).unwrap();
        let rest =
            (&last.machines, &last.endpoint, &last.approvals, &last.actors.iter().map(|a| &a.job).collect::<Vec<_>>());
        panic!("{property}: {:?}\nafter {:?}\n{object}\n{rest:?}", last.broken, path.into_actions());
    }
    assert!(checker.is_done(), "{name}: not all states were looked at");
    assert!(states > 100, "{name}: the model does nothing");
}

/// The checker finds that this guarantee is broken.
#[track_caller]
fn is_found(guarantee: &str, model: Berth) {
    let mutation = model.mutation;
    let name = GUARANTEES.into_iter().find(|name| name.starts_with(guarantee)).unwrap();
    let wanted = HasDiscoveries::AllOf([name].into());
    let checker = model.checker().threads(2).timeout(LIMIT).finish_when(wanted).spawn_bfs().join();
    let states = checker.unique_state_count();
    let found = checker.discovery(name).unwrap_or_else(|| panic!("{mutation:?} is not found in {states} states"));
    println!("{mutation:?} breaks {name:?}: found within {states} states, {:?}", found.into_actions());
}

// What holds, over all interleavings.

#[test]
fn creation_with_crashes_and_lost_answers() {
    let faults = Faults { crashes: 1, lost: 1, ..NO_FAULTS };
    holds("creation; a crash, a lost answer", Berth { faults, ..new() });
}

#[test]
fn creation_by_two_copies_with_an_expired_lock() {
    let processes = vec![ReplicasetController, ReplicasetController, LbController];
    let behind = vec![ReplicasetController];
    let faults = Faults { crashes: 1, slow: 1, ..NO_FAULTS };
    holds("creation by two copies; a crash, a slow holder", Berth { processes, behind, faults, ..new() });
}

#[test]
fn retirement_in_the_middle_of_creation() {
    let processes = vec![ReplicasetController, ReplicasetController];
    let faults = Faults { crashes: 1, slow: 1, ..NO_FAULTS };
    let deeds = vec![Deed::Delete];
    let model = Berth { processes, faults, deeds, ..new() };
    holds("creation and deletion by two copies; a crash, a slow holder", model);
}

#[test]
fn retirement_at_any_time() {
    let behind = vec![ReplicasetController, LbController];
    let faults = Faults { lost: 1, ..NO_FAULTS };
    let deeds = vec![Deed::Delete];
    holds("creation and deletion; a lost answer", Berth { behind, faults, deeds, ..new() });
}

#[test]
fn retirement_of_a_server_that_serves() {
    let processes = vec![ReplicasetController, ReplicasetController, LbController, MonitorController];
    let behind = vec![ReplicasetController, LbController];
    let faults = Faults { crashes: 1, slow: 1, ..NO_FAULTS };
    let deeds = vec![Deed::Delete];
    holds("deletion by two copies; a crash, a slow holder", Berth { processes, behind, faults, deeds, ..ready() });
}

#[test]
fn retirement_that_a_person_takes_back() {
    let behind = vec![ReplicasetController, LbController];
    let faults = Faults { slow: 1, ..NO_FAULTS };
    let deeds = vec![Deed::Offline, Deed::Online];
    holds("offline and back; a slow holder", Berth { behind, faults, deeds, ..ready() });
}

#[test]
fn retirement_that_a_person_takes_back_with_two_copies() {
    let processes = vec![ReplicasetController, ReplicasetController, LbController, MonitorController];
    let behind = vec![ReplicasetController];
    let deeds = vec![Deed::Offline, Deed::Online, Deed::Delete];
    holds("offline, back and deletion by two copies", Berth { processes, behind, deeds, ..ready() });
}

#[test]
fn new_code_with_two_copies_of_lb_controller() {
    let processes = vec![DeploymentController, LbController, LbController, MonitorController, ReplicasetController];
    let faults = Faults { crashes: 1, ..NO_FAULTS };
    let behind = vec![LbController, DeploymentController, MonitorController];
    let deeds = vec![Deed::NewCode];
    holds("new code, two copies of lb-controller; a crash", Berth { processes, behind, faults, deeds, ..ready() });
}

#[test]
fn new_code_while_the_application_is_sick() {
    let faults = Faults { crashes: 1, sick: 1, ..NO_FAULTS };
    let deeds = vec![Deed::NewCode];
    let behind = vec![LbController, MonitorController, DeploymentController];
    holds("new code; a crash, a sick application", Berth { behind, faults, deeds, ..ready() });
}

#[test]
fn new_packages_while_the_machine_cannot_be_reached() {
    let faults = Faults { outages: 1, slow: 1, ..NO_FAULTS };
    let behind = vec![ReplicasetController, MonitorController];
    let deeds = vec![Deed::NewPackage];
    holds("a new package; an outage, a slow holder", Berth { behind, faults, deeds, ..ready() });
}

#[test]
fn a_machine_that_cannot_be_reached_while_it_is_made() {
    let faults = Faults { outages: 1, crashes: 1, ..NO_FAULTS };
    let behind = vec![ReplicasetController, DeploymentController, MonitorController];
    holds("creation; an outage, a crash", Berth { behind, faults, ..new() });
}

#[test]
fn a_person_forces_a_state() {
    for state in [State::Unknown, State::Deploying, State::Initializing] {
        let behind = vec![ReplicasetController, LbController];
        let deeds = vec![Deed::Force(state), Deed::ClearForce, Deed::NewCode];
        holds(&format!("{state} by force, cleared, new code"), Berth { behind, deeds, ..ready() });
    }
}

#[test]
fn a_person_forces_a_state_while_the_machine_cannot_be_reached() {
    let faults = Faults { outages: 1, ..NO_FAULTS };
    let behind = vec![LbController, MonitorController];
    let deeds = vec![Deed::Force(State::Ready), Deed::ClearForce];
    holds("Ready by force, cleared; an outage", Berth { behind, faults, deeds, ..ready() });
}

#[test]
fn a_person_forces_a_new_server_to_be_ready() {
    let behind = vec![ReplicasetController, LbController];
    let deeds = vec![Deed::Force(State::Ready), Deed::Offline];
    holds("a new Server Ready by force, offline", Berth { behind, deeds, ..new() });
}

#[test]
fn a_person_refuses_or_approves() {
    let gates = vec![GatePoint::InstallPackages, GatePoint::ReleaseTraffic];
    let behind = vec![ReplicasetController, LbController, MonitorController];
    let deeds = vec![Deed::Refuse, Deed::Approve, Deed::Retry];
    holds("gates: refused, approved, tried again", Berth { gates, behind, deeds, ..new() });
}

#[test]
fn a_person_approves_a_retirement() {
    let faults = Faults { sick: 1, ..NO_FAULTS };
    let deeds = vec![Deed::Delete, Deed::Approve];
    let model = Berth { gates: vec![GatePoint::DestroyMachine], deeds, faults, ..ready() };
    holds("deletion behind a gate; sickness", model);
}

#[test]
fn work_that_fails_is_tried_again_when_a_person_asks() {
    let faults = Faults { failures: 1, crashes: 1, ..NO_FAULTS };
    let behind = vec![ReplicasetController, DeploymentController];
    let deeds = vec![Deed::Retry];
    holds("creation; a failure, a crash, a retry", Berth { behind, faults, deeds, ..new() });
}

#[test]
fn every_path_ends() {
    let crash = Faults { crashes: 1, ..NO_FAULTS };
    let (sick, outage) = (Faults { sick: 1, ..NO_FAULTS }, Faults { outages: 1, ..NO_FAULTS });
    let behind = || vec![LbController, MonitorController];
    let models = [
        ("creation; a crash", Berth { faults: crash, ..new() }),
        ("new code; sickness", Berth { faults: sick, behind: behind(), deeds: vec![Deed::NewCode], ..ready() }),
        ("an outage", Berth { faults: outage, behind: behind(), ..ready() }),
        ("deletion; a crash", Berth { faults: crash, behind: behind(), deeds: vec![Deed::Delete], ..ready() }),
    ];
    for (name, model) in models {
        let states = count_if_acyclic(&model).unwrap_or_else(|world| panic!("{name}: a cycle through {world:?}"));
        println!("{name}: every path ends; {states} states");
        assert!(states > 100);
    }
}

// Rules that are broken on purpose.

#[test]
fn two_machines_are_found_when_the_webhook_ignores_the_lock() {
    let processes = vec![ReplicasetController, ReplicasetController];
    is_found("1", Berth { processes, mutation: Mutation::IgnoreLock, ..new() });
}

#[test]
fn traffic_that_nobody_takes_away_is_found_when_it_is_let_through_too_early() {
    let faults = Faults { sick: 1, ..NO_FAULTS };
    is_found("2", Berth { faults, mutation: Mutation::ReleaseFirst, ..new() });
}

#[test]
fn late_traffic_is_found_when_lb_controller_leaves_no_trace() {
    let processes = vec![DeploymentController, LbController, LbController, MonitorController, ReplicasetController];
    let (deeds, faults) = (vec![Deed::NewCode], Faults { sick: 1, ..NO_FAULTS });
    let behind = vec![LbController];
    is_found("2", Berth { processes, behind, deeds, faults, mutation: Mutation::NoFence, ..ready() });
}

#[test]
fn a_second_result_is_found_when_the_webhook_counts_it() {
    let faults = Faults { lost: 1, ..NO_FAULTS };
    is_found("4", Berth { faults, mutation: Mutation::CountTwice, ..new() });
}

#[test]
fn an_object_that_goes_too_early_is_found_when_its_finalizer_is_not_guarded() {
    is_found("5", Berth { deeds: vec![Deed::Delete], mutation: Mutation::NoFinalizerGuard, ..ready() });
}

#[test]
fn a_force_that_is_undone_is_found_when_the_webhook_ignores_it() {
    is_found("6", Berth { deeds: vec![Deed::Force(State::Unknown)], mutation: Mutation::IgnoreForce, ..ready() });
}

#[test]
fn a_server_that_is_stuck_is_found_when_locks_never_expire() {
    let faults = Faults { crashes: 1, ..NO_FAULTS };
    is_found("8", Berth { faults, mutation: Mutation::LockForever, ..new() });
}
