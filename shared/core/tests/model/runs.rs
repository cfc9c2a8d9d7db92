//! The runs of the model checker: focused models over all interleavings, and rules broken on purpose that must be detected.

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
    world::{Faults, PersonAction},
};

pub(crate) const NO_FAULTS: Faults = Faults {
    crashes: 0,
    lost: 0,
    slow: 0,
    outages: 0,
    unhealthy: 0,
    failures: 0,
    lingering: 0,
    floors: 0,
    calls: 0,
    retries: 0,
};

/// Only ends the run of a model that has grown too large.
const LIMIT: Duration = Duration::from_mins(5);

const ONE_OF_EACH: [Executor; 4] = [ReplicasetController, DeploymentController, LbController, MonitorController];

/// A new Server, and one process of each controller, all of whose caches may lag.
pub(crate) fn new() -> Berth {
    Berth {
        processes: ONE_OF_EACH.to_vec(),
        gates: Vec::new(),
        lagging: ONE_OF_EACH.to_vec(),
        begins_ready: false,
        drains: true,
        registers_first: false,
        faults: NO_FAULTS,
        person_actions: Vec::new(),
        mutation: Mutation::None,
        memo: Memo::default(),
    }
}

/// A Server that is Ready.
pub(crate) fn ready() -> Berth {
    Berth { begins_ready: true, ..new() }
}

/// Checks that every property holds in every reachable state.
#[track_caller]
pub(crate) fn holds(name: &str, model: Berth) {
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
        panic!("{property}: {:?}\nafter {:?}\n{object}\n{rest:?}", last.violation, path.into_actions());
    }
    assert!(checker.is_done(), "{name}: not all states were looked at");
    assert!(states > 100, "{name}: the model does nothing");
}

/// Checks that the model checker detects the violation of this guarantee.
#[track_caller]
pub(crate) fn detects(guarantee: &str, model: Berth) {
    let mutation = model.mutation;
    let name = GUARANTEES.into_iter().find(|name| name.starts_with(guarantee)).unwrap();
    let wanted = HasDiscoveries::AllOf([name].into());
    let checker = model.checker().threads(2).timeout(LIMIT).finish_when(wanted).spawn_bfs().join();
    let states = checker.unique_state_count();
    let found = checker.discovery(name).unwrap_or_else(|| panic!("{mutation:?} is not found in {states} states"));
    let how = found.last_state().violation;
    println!("{mutation:?} breaks {name:?}, {how:?}: found within {states} states, {:?}", found.into_actions());
}

// Properties that hold over all interleavings.

#[test]
fn creation_with_crashes_and_lost_answers() {
    let faults = Faults { crashes: 1, lost: 1, ..NO_FAULTS };
    holds("creation; a crash, a lost answer", Berth { faults, ..new() });
}

#[test]
fn creation_by_two_copies_with_an_expired_lock() {
    let processes = vec![ReplicasetController, ReplicasetController, LbController];
    let lagging = vec![ReplicasetController];
    let faults = Faults { crashes: 1, slow: 1, ..NO_FAULTS };
    let registers_first = true;
    holds(
        "creation by two copies; a crash, a slow holder",
        Berth { processes, lagging, registers_first, faults, ..new() },
    );
}

#[test]
fn retirement_in_the_middle_of_creation() {
    let processes = vec![ReplicasetController, ReplicasetController];
    let faults = Faults { crashes: 1, slow: 1, ..NO_FAULTS };
    let person_actions = vec![PersonAction::Delete];
    let model = Berth { processes, faults, person_actions, ..new() };
    holds("creation and deletion by two copies; a crash, a slow holder", model);
}

#[test]
fn retirement_at_any_time() {
    let lagging = vec![ReplicasetController, LbController];
    let faults = Faults { lost: 1, ..NO_FAULTS };
    let person_actions = vec![PersonAction::Delete];
    holds("creation and deletion; a lost answer", Berth { lagging, faults, person_actions, drains: false, ..new() });
}

#[test]
fn retirement_of_a_server_that_serves() {
    let processes = vec![ReplicasetController, ReplicasetController, LbController, MonitorController];
    let lagging = vec![ReplicasetController, LbController];
    let faults = Faults { crashes: 1, slow: 1, ..NO_FAULTS };
    let person_actions = vec![PersonAction::Delete];
    holds(
        "deletion by two copies; a crash, a slow holder",
        Berth { processes, lagging, faults, person_actions, ..ready() },
    );
}

#[test]
fn a_person_cancels_a_retirement() {
    let lagging = vec![ReplicasetController, LbController];
    let faults = Faults { slow: 1, ..NO_FAULTS };
    let person_actions = vec![PersonAction::Offline, PersonAction::Online];
    holds("offline and back; a slow holder", Berth { lagging, faults, person_actions, ..ready() });
}

#[test]
fn a_person_cancels_a_retirement_with_two_copies() {
    let processes = vec![ReplicasetController, ReplicasetController, LbController, MonitorController];
    let lagging = vec![ReplicasetController];
    let person_actions = vec![PersonAction::Offline, PersonAction::Online, PersonAction::Delete];
    holds("offline, back and deletion by two copies", Berth { processes, lagging, person_actions, ..ready() });
}

#[test]
fn new_code_with_two_copies_of_lb_controller() {
    let processes = vec![DeploymentController, LbController, LbController, MonitorController, ReplicasetController];
    let faults = Faults { crashes: 1, ..NO_FAULTS };
    let lagging = vec![LbController, DeploymentController, MonitorController];
    let person_actions = vec![PersonAction::NewCode];
    holds(
        "new code, two copies of lb-controller; a crash",
        Berth { processes, lagging, faults, person_actions, ..ready() },
    );
}

#[test]
fn new_code_while_the_application_is_unhealthy() {
    let faults = Faults { crashes: 1, unhealthy: 1, ..NO_FAULTS };
    let person_actions = vec![PersonAction::NewCode];
    let lagging = vec![LbController, MonitorController, DeploymentController];
    holds("new code; a crash, a sick application", Berth { lagging, faults, person_actions, ..ready() });
}

/// A Server that is Ready, while a person takes new code back and a script outlives the process that began it.
fn code_is_taken_back() -> Berth {
    let faults = Faults { lingering: 1, ..NO_FAULTS };
    let lagging = vec![DeploymentController, LbController];
    let person_actions = vec![PersonAction::NewCode, PersonAction::OldCode];
    Berth { lagging, faults, person_actions, ..ready() }
}

#[test]
fn new_code_is_taken_back_while_a_script_outlives_its_process() {
    holds("new code and back; a script that goes on", code_is_taken_back());
}

#[test]
fn new_packages_while_a_script_outlives_its_process() {
    let faults = Faults { lingering: 1, outages: 1, ..NO_FAULTS };
    let lagging = vec![ReplicasetController];
    let person_actions = vec![PersonAction::NewPackage, PersonAction::Delete];
    holds(
        "a new package, deletion; an outage, a script that goes on",
        Berth { lagging, faults, person_actions, ..ready() },
    );
}

#[test]
fn new_packages_while_the_machine_is_unreachable() {
    let faults = Faults { outages: 1, slow: 1, ..NO_FAULTS };
    let lagging = vec![ReplicasetController, MonitorController];
    let person_actions = vec![PersonAction::NewPackage];
    holds("a new package; an outage, a slow holder", Berth { lagging, faults, person_actions, ..ready() });
}

#[test]
fn an_outage_during_creation() {
    let faults = Faults { outages: 1, crashes: 1, ..NO_FAULTS };
    let lagging = vec![ReplicasetController, DeploymentController, MonitorController];
    holds("creation; an outage, a crash", Berth { lagging, faults, ..new() });
}

#[test]
fn a_person_forces_a_state() {
    for state in [State::Unknown, State::Deploying, State::Initializing] {
        let lagging = vec![ReplicasetController, LbController];
        let person_actions = vec![PersonAction::Force(state), PersonAction::ClearForce, PersonAction::NewCode];
        holds(&format!("{state} by force, cleared, new code"), Berth { lagging, person_actions, ..ready() });
    }
}

#[test]
fn a_person_forces_a_state_while_the_machine_is_unreachable() {
    let faults = Faults { outages: 1, ..NO_FAULTS };
    let lagging = vec![LbController, MonitorController];
    let person_actions = vec![PersonAction::Force(State::Ready), PersonAction::ClearForce];
    holds("Ready by force, cleared; an outage", Berth { lagging, faults, person_actions, ..ready() });
}

#[test]
fn a_person_forces_a_new_server_to_be_ready() {
    let lagging = vec![ReplicasetController, LbController];
    let person_actions = vec![PersonAction::Force(State::Ready), PersonAction::Offline];
    holds("a new Server Ready by force, offline", Berth { lagging, person_actions, ..new() });
}

#[test]
fn a_person_refuses_or_approves() {
    let gates = vec![GatePoint::InstallPackages, GatePoint::ReleaseTraffic];
    let lagging = vec![ReplicasetController, LbController, MonitorController];
    let person_actions = vec![PersonAction::Refuse, PersonAction::Approve, PersonAction::Retry];
    holds("gates: refused, approved, tried again", Berth { gates, lagging, person_actions, ..new() });
}

#[test]
fn a_person_approves_a_retirement() {
    let faults = Faults { unhealthy: 1, ..NO_FAULTS };
    let person_actions = vec![PersonAction::Delete, PersonAction::Approve];
    let model = Berth { gates: vec![GatePoint::DestroyMachine], person_actions, faults, ..ready() };
    holds("deletion behind a gate; sickness", model);
}

#[test]
fn a_person_retries_failed_work() {
    let faults = Faults { failures: 1, crashes: 1, ..NO_FAULTS };
    let lagging = vec![ReplicasetController, DeploymentController];
    let person_actions = vec![PersonAction::Retry];
    holds("creation; a failure, a crash, a retry", Berth { lagging, faults, person_actions, ..new() });
}

#[test]
fn the_panic_floor_keeps_a_sick_server_in_traffic() {
    let lagging = || vec![LbController, MonitorController];
    let sick = Faults { unhealthy: 1, floors: 1, ..NO_FAULTS };
    let person_actions = || vec![PersonAction::NewCode, PersonAction::Delete];
    holds(
        "a floor; sickness, new code, deletion",
        Berth { faults: sick, lagging: lagging(), person_actions: person_actions(), ..ready() },
    );
    let silent = Faults { outages: 1, floors: 1, ..NO_FAULTS };
    holds(
        "a floor; an outage, new code, deletion",
        Berth { faults: silent, lagging: vec![LbController], person_actions: person_actions(), ..ready() },
    );
    let crash = Faults { crashes: 1, ..silent };
    let packages = vec![PersonAction::NewPackage];
    let lagging = vec![LbController, ReplicasetController];
    holds(
        "a floor; an outage, a new package, a crash",
        Berth { faults: crash, lagging, person_actions: packages, ..ready() },
    );
}

#[test]
fn every_path_ends() {
    let crash = Faults { crashes: 1, ..NO_FAULTS };
    let (unhealthy, outage) = (Faults { unhealthy: 1, ..NO_FAULTS }, Faults { outages: 1, ..NO_FAULTS });
    let lagging = || vec![LbController, MonitorController];
    let models = [
        ("creation; a crash", Berth { faults: crash, ..new() }),
        (
            "new code; sickness",
            Berth { faults: unhealthy, lagging: lagging(), person_actions: vec![PersonAction::NewCode], ..ready() },
        ),
        ("an outage", Berth { faults: outage, lagging: lagging(), ..ready() }),
        ("an outage under a floor", Berth { faults: Faults { floors: 1, ..outage }, lagging: lagging(), ..ready() }),
        (
            "deletion; a crash",
            Berth { faults: crash, lagging: lagging(), person_actions: vec![PersonAction::Delete], ..ready() },
        ),
    ];
    for (name, model) in models {
        let states = count_if_acyclic(&model).unwrap_or_else(|world| panic!("{name}: a cycle through {world:?}"));
        println!("{name}: every path ends; {states} states");
        assert!(states > 100);
    }
}

// Rules that are broken on purpose.

#[test]
fn a_second_machine_is_detected_when_the_webhook_ignores_the_lock() {
    let processes = vec![ReplicasetController, ReplicasetController];
    detects("1", Berth { processes, mutation: Mutation::IgnoreLock, ..new() });
}

#[test]
fn unreported_traffic_is_detected_when_it_is_released_before_the_report() {
    let faults = Faults { unhealthy: 1, ..NO_FAULTS };
    detects("2", Berth { faults, mutation: Mutation::ReleaseFirst, ..new() });
}

#[test]
fn late_traffic_is_detected_when_lb_controller_does_not_rewrite_endpoints() {
    let processes = vec![DeploymentController, LbController, LbController, MonitorController, ReplicasetController];
    let (person_actions, faults) = (vec![PersonAction::NewCode], Faults { unhealthy: 1, ..NO_FAULTS });
    let lagging = vec![LbController];
    detects("2", Berth { processes, lagging, person_actions, faults, mutation: Mutation::NoFence, ..ready() });
}

#[test]
fn a_second_result_is_detected_when_the_webhook_accepts_it() {
    let faults = Faults { lost: 1, ..NO_FAULTS };
    detects("4", Berth { faults, registers_first: true, mutation: Mutation::CountTwice, ..new() });
}

#[test]
fn an_early_deletion_is_detected_when_the_finalizer_is_not_guarded() {
    detects("5", Berth { person_actions: vec![PersonAction::Delete], mutation: Mutation::NoFinalizerGuard, ..ready() });
}

#[test]
fn an_undone_force_is_detected_when_the_webhook_ignores_it() {
    detects(
        "6",
        Berth { person_actions: vec![PersonAction::Force(State::Unknown)], mutation: Mutation::IgnoreForce, ..ready() },
    );
}

#[test]
fn a_stuck_server_is_detected_when_locks_never_expire() {
    let faults = Faults { crashes: 1, ..NO_FAULTS };
    detects("8", Berth { faults, mutation: Mutation::LockForever, ..new() });
}

#[test]
fn a_stuck_server_is_detected_when_the_panic_floor_keeps_servers_that_have_to_change() {
    let faults = Faults { floors: 1, ..NO_FAULTS };
    detects(
        "8",
        Berth { faults, person_actions: vec![PersonAction::NewCode], mutation: Mutation::FloorForAll, ..ready() },
    );
}

#[test]
fn a_late_effect_is_detected_when_trust_is_not_withdrawn_at_the_claim() {
    detects("2", Berth { mutation: Mutation::KeepTrust, ..code_is_taken_back() });
}

#[test]
fn a_late_effect_is_detected_when_the_next_script_does_not_wait_on_the_machine() {
    detects("2", Berth { mutation: Mutation::NoMachineLock, ..code_is_taken_back() });
}
