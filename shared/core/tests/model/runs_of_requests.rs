//! Runs of the model checker about what a person asks for beside the declaration, about waiting, and about restarts.

use berth_core::api::{
    Executor::{DeploymentController, LbController, MonitorController, ReplicasetController},
    GatePoint,
};

use crate::{
    Berth, Mutation,
    runs::{NO_FAULTS, detects, holds, new, ready},
    world::{Faults, PersonAction},
};

#[test]
fn a_reboot_ends_an_outage() {
    let faults = Faults { outages: 1, crashes: 1, ..NO_FAULTS };
    let lagging = vec![ReplicasetController];
    let person_actions = vec![PersonAction::Reboot];
    holds("a reboot; an outage, a crash", Berth { lagging, faults, person_actions, ..ready() });
}

#[test]
fn a_reboot_ends_an_outage_in_the_middle_of_a_change() {
    let faults = Faults { outages: 1, lingering: 1, ..NO_FAULTS };
    let person_actions = vec![PersonAction::NewPackage, PersonAction::Reboot];
    holds(
        "a new package, a reboot; an outage, a script that goes on",
        Berth { lagging: Vec::new(), faults, person_actions, ..ready() },
    );
}

#[test]
fn a_machine_is_retained_and_comes_back() {
    let faults = Faults { slow: 1, ..NO_FAULTS };
    let lagging = vec![ReplicasetController];
    let person_actions = vec![PersonAction::Retain, PersonAction::Return, PersonAction::NewPackage];
    holds("retained and back, a new package; a slow holder", Berth { lagging, faults, person_actions, ..ready() });
}

#[test]
fn a_retained_machine_is_retired() {
    let faults = Faults { outages: 1, ..NO_FAULTS };
    let lagging = vec![LbController];
    let person_actions = vec![PersonAction::Retain, PersonAction::Delete];
    holds("retained and deleted; an outage", Berth { lagging, faults, person_actions, ..ready() });
}

/// A Server that is Ready and gets new code, at which attempts fail for now.
fn tried_again() -> Berth {
    let faults = Faults { retries: 3, ..NO_FAULTS };
    let lagging = vec![DeploymentController];
    let person_actions = vec![PersonAction::NewCode, PersonAction::Retry];
    Berth { lagging, faults, person_actions, ..ready() }
}

#[test]
fn work_that_fails_for_now_is_tried_again_after_a_while() {
    holds("new code, a retry; three attempts fail for now", tried_again());
}

#[test]
fn creation_that_fails_for_now_is_tried_again() {
    let processes = vec![ReplicasetController, ReplicasetController];
    let faults = Faults { retries: 2, crashes: 1, ..NO_FAULTS };
    holds("creation by two copies; two attempts fail for now, a crash", Berth { processes, faults, ..new() });
}

/// Two copies of replicaset-controller that create a machine; one crashes while its call is on the way.
fn calls_outlive_their_process() -> Berth {
    let processes = vec![ReplicasetController, ReplicasetController];
    let faults = Faults { calls: 1, crashes: 1, ..NO_FAULTS };
    Berth { processes, faults, ..new() }
}

#[test]
fn a_restart_while_a_call_is_on_the_way() {
    holds("creation by two copies; a call that outlives its process, a crash", calls_outlive_their_process());
}

/// A Server that gets new code behind a gate, of whose set a person approves for one Server.
fn approved_by_set() -> Berth {
    let processes =
        vec![ReplicasetController, ReplicasetController, DeploymentController, LbController, MonitorController];
    let lagging = vec![ReplicasetController];
    let faults = Faults { crashes: 1, ..NO_FAULTS };
    let person_actions = vec![PersonAction::NewCode, PersonAction::ApproveSet];
    Berth { processes, gates: vec![GatePoint::ReleaseTraffic], lagging, faults, person_actions, ..ready() }
}

#[test]
fn an_approval_of_a_set_covers_no_more_servers_than_it_says() {
    holds("new code, an Approval of the set for one Server, by two copies; a crash", approved_by_set());
}

// Rules that are broken on purpose.

#[test]
fn a_second_machine_is_detected_when_a_restart_keeps_its_name() {
    detects("1", Berth { mutation: Mutation::SameName, ..calls_outlive_their_process() });
}

#[test]
fn an_early_attempt_is_detected_when_the_webhook_ignores_not_before() {
    detects("4", Berth { mutation: Mutation::IgnoreNotBefore, ..tried_again() });
}

#[test]
fn an_excess_server_is_detected_when_the_entry_in_an_approval_is_not_guarded() {
    detects("2", Berth { mutation: Mutation::UnguardedEntry, ..approved_by_set() });
}

#[test]
fn ungated_traffic_is_detected_when_the_webhook_skips_gates() {
    let (gates, person_actions) = (vec![GatePoint::ReleaseTraffic], vec![PersonAction::NewCode]);
    detects("2", Berth { gates, person_actions, mutation: Mutation::SkipGates, ..ready() });
}

#[test]
fn a_change_under_traffic_is_detected_when_the_webhook_omits_hold_traffic() {
    for action in [PersonAction::NewCode, PersonAction::NewPackage] {
        detects("2", Berth { person_actions: vec![action], mutation: Mutation::OmitHoldTraffic, ..ready() });
    }
}
