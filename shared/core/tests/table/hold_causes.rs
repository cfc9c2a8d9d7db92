//! What traffic is held for, and what that means while a panic floor keeps a Server in traffic.

use berth_core::{
    api::{
        AppFact, EnvironmentFact, Executor, Force, HealthFact, HealthState, MachinePhase, Outcome, ReachabilityFact,
        Report, Request, Retention, ServerSpec, State, TaskKind, TaskPhase, TrafficPhase,
    },
    lifecycle::HoldCause::{self, Deliberate, Returning, Sick},
};
use berth_testing::{Fixture, app, ended_tasks, environment, holder, machine_phase, start, unreachable};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A Ready Server that probes say is unreachable.
fn lost() -> Fixture {
    let mut server = Fixture::ready();
    let fact = unreachable(60, server.now);
    server.write(Executor::MonitorController, |write| write.reachability(fact)).unwrap();
    server
}

/// The same after its machine answers again, while it was kept in traffic.
fn back() -> Fixture {
    let mut server = lost();
    let fact = ReachabilityFact { reachable: true, ..unreachable(0, server.now) };
    server.write(Executor::MonitorController, |write| write.reachability(fact)).unwrap();
    assert!(server.steps().starts_with("HoldTraffic"), "{}", server.steps());
    server
}

/// A Ready Server whose application fails its health check.
fn unhealthy() -> Fixture {
    let mut server = Fixture::ready().fact(|status| {
        status.epoch = Some(1);
        status.health.as_mut().unwrap().epoch = 1;
    });
    let fact = HealthFact { state: HealthState::Unhealthy, epoch: 1, since: Time(start()), message: "503".into() };
    server.write(Executor::MonitorController, |write| write.health(fact)).unwrap();
    server
}

fn changed(mut server: Fixture, change: impl FnOnce(&mut ServerSpec)) -> Fixture {
    server.declare(change);
    server
}

#[track_caller]
fn held_for(server: &Fixture, state: State, cause: HoldCause) {
    assert_eq!((server.state(), server.server.hold_cause()), (state, cause), "{}", server.steps());
    assert!(server.steps().contains("HoldTraffic"), "{}", server.steps());
}

fn other_code(spec: &mut ServerSpec) {
    spec.app.as_mut().unwrap().revision = Some("r2".into());
}

fn other_package(spec: &mut ServerSpec) {
    spec.packages[0].version = "9".into();
}

#[test]
fn sickness_and_silence_are_sick() {
    held_for(&lost(), State::Unknown, Sick);
    held_for(&unhealthy(), State::Deploying, Sick);
    // A change waits until the machine is back.
    held_for(&changed(lost(), other_code), State::Unknown, Sick);
    held_for(&changed(lost(), other_package), State::Unknown, Sick);
}

#[test]
fn a_server_that_only_has_to_be_verified_is_returning() {
    held_for(&back(), State::Initializing, Returning);
    let again = {
        let mut server = back();
        let fact = unreachable(60, server.now);
        server.write(Executor::MonitorController, |write| write.reachability(fact)).unwrap();
        server
    };
    held_for(&again, State::Unknown, Sick);
}

#[test]
fn changes_of_environment_and_code_are_deliberate() {
    for server in [Fixture::ready(), back(), unhealthy()] {
        let deploys = if server.state() == State::Initializing { State::Initializing } else { State::Deploying };
        held_for(&changed(server.clone(), other_code), deploys, Deliberate);
        held_for(&changed(server.clone(), other_package), State::Initializing, Deliberate);
        let moved = changed(server, |spec| spec.traffic.as_mut().unwrap().backends[0].port = 81);
        held_for(&moved, State::Initializing, Deliberate);
    }
    let mut stopped = Fixture::ready();
    let fact = machine_phase(MachinePhase::Stopped);
    stopped.write(Executor::ReplicasetController, |write| write.machine(Some(fact))).unwrap();
    held_for(&stopped, State::Initializing, Deliberate);
}

#[test]
fn drift_is_repaired_deliberately_although_only_trust_is_taken_back() {
    let mut drifted = Fixture::ready();
    let doubted = EnvironmentFact { verified: false, ..environment(&drifted.server.spec) };
    drifted.write(Executor::ReplicasetController, |write| write.environment(doubted)).unwrap();
    held_for(&drifted, State::Initializing, Deliberate);
    let deploying = changed(Fixture::ready(), other_code);
    let doubted = AppFact { verified: false, ..app(&deploying.server.spec).unwrap() };
    held_for(&deploying.fact(|status| status.app = Some(doubted)), State::Deploying, Deliberate);
}

#[test]
fn what_people_and_failover_ask_for_is_deliberate() {
    let force = |state| Some(Force { state, reason: "x".into(), by: None, at: None, declaration: None });
    for state in [State::Initializing, State::Deploying, State::Unknown] {
        held_for(&changed(Fixture::ready(), |spec| spec.force = force(state)), state, Deliberate);
    }
    let retention = || Some(Retention { until: Time(start()), reason: "x".into() });
    held_for(&changed(lost(), |spec| spec.retain = retention()), State::Unknown, Deliberate);
    let reboot = || Some(Request { id: "1".into(), reason: String::new(), by: None, at: None });
    held_for(&changed(lost(), |spec| spec.reboot = reboot()), State::Unknown, Deliberate);
    for server in [Fixture::ready(), lost(), back(), unhealthy()] {
        held_for(&changed(server.clone(), |spec| spec.offline = true), State::Offline, Deliberate);
        let mut deleted = server;
        deleted.delete();
        held_for(&deleted, State::Offline, Deliberate);
    }
}

/// The deadlock that a panic floor would cause if the proof of health waited for the hold.
#[test]
fn health_is_proven_while_traffic_is_kept_and_then_traffic_was_never_taken() {
    let mut kept = unhealthy();
    assert_eq!(kept.steps(), "HoldTraffic + CheckHealth");
    assert!(kept.server.wants_health_proof());
    kept.perform(TaskKind::CheckHealth);
    assert_eq!((kept.state(), kept.steps().as_str()), (State::Ready, ""));
    assert_eq!(ended_tasks(kept.status(), TaskKind::HoldTraffic, TaskPhase::Cancelled), 1);
    assert_eq!(kept.status().traffic.as_ref().unwrap().phase, TrafficPhase::Serving);
}

#[test]
fn nothing_touches_a_machine_while_its_traffic_is_kept() {
    let mut silent = lost();
    silent.perform(TaskKind::PauseMonitoring);
    assert_eq!(silent.steps(), "HoldTraffic > AwaitRecovery");
    for mut kept in [silent, back(), changed(unhealthy(), other_code), changed(lost(), |spec| spec.offline = true)] {
        let locked: Vec<TaskKind> =
            kept.status().current_tasks().filter(|task| task.kind.needs_lock()).map(|task| task.kind).collect();
        for kind in locked {
            assert!(kept.claim(kind, "a").is_err(), "{kind} in {}", kept.steps());
        }
    }
}

#[test]
fn a_task_that_waits_says_why_and_counts_no_attempt() {
    let mut kept = lost();
    let task_id = kept.task(TaskKind::HoldTraffic).id;
    let message = "kept in traffic by the panic floor of Service web".to_owned();
    let report = Report {
        task_id,
        holder: holder(Executor::LbController, "a"),
        outcome: Outcome::Waiting,
        message: message.clone(),
        retry_after_seconds: None,
        successors: Vec::new(),
    };
    kept.write(Executor::LbController, |write| write.report(report.clone())).unwrap();
    let task = kept.task(TaskKind::HoldTraffic);
    assert_eq!((task.phase, task.attempts, task.message.as_str()), (TaskPhase::Pending, 0, message.as_str()));
    assert_eq!((&task.started_at, &task.not_before), (&None, &None));
    let waiting = format!("HoldTraffic by lb-controller: {message}");
    assert!(kept.waiting_for().contains(&waiting), "{}", kept.waiting_for());
    let before = kept.server.clone();
    kept.write(Executor::LbController, |write| write.report(report)).unwrap();
    assert_eq!(kept.server, before, "the same report changes nothing");
    kept.advance(100);
    kept.perform(TaskKind::HoldTraffic);
    assert_eq!(kept.task(TaskKind::HoldTraffic).started_at, Some(Time(kept.now)), "it begins only now");
}

#[test]
fn a_server_is_coming_back_unless_a_person_is_needed_or_it_is_out_of_reach() {
    assert!(back().server.is_coming_back());
    assert!(unhealthy().server.is_coming_back());
    assert!(!lost().server.is_coming_back());
    let mut failed = unhealthy();
    failed.report(TaskKind::CheckHealth, "a", Outcome::Failed).unwrap();
    assert!(!failed.server.is_coming_back());
    let gated =
        Fixture::registering().gate(berth_core::api::GatePoint::ReleaseTraffic).all_right().registered().decided();
    assert!(!gated.server.is_coming_back(), "{}", gated.steps());
    let force = Force { state: State::Deploying, reason: "x".into(), by: None, at: None, declaration: None };
    assert!(!changed(Fixture::ready(), |spec| spec.force = Some(force)).server.is_coming_back());
}
