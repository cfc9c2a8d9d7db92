//! What people and failover may request for an unreachable machine: a reboot, and retention for diagnosis.

use berth_core::api::{
    Claim, Executor, Force, GatePoint, MachineFact, MachinePhase, Outcome, ReachabilityFact, Request, Retention, State,
    TaskKind, TaskPhase,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use berth_testing::{Fixture, controller, person, start, unreachable};

#[expect(clippy::unnecessary_wraps, reason = "as the field has it")]
fn request(id: &str) -> Option<Request> {
    Some(Request { id: id.into(), reason: String::new(), by: None, at: None })
}

#[expect(clippy::unnecessary_wraps, reason = "as the field has it")]
fn retention() -> Option<Retention> {
    Some(Retention { until: Time(start()), reason: "the disk is to be looked at".into() })
}

/// A Server whose machine is unreachable, with no task left but AwaitRecovery.
fn unknown() -> Fixture {
    let mut server = Fixture::ready();
    make_unreachable(&mut server);
    server.perform(TaskKind::HoldTraffic);
    server.perform(TaskKind::PauseMonitoring);
    assert_eq!((server.state(), server.steps().as_str()), (State::Unknown, "AwaitRecovery"));
    server
}

fn make_unreachable(fixture: &mut Fixture) {
    let fact = unreachable(60, fixture.now);
    fixture.write(Executor::MonitorController, |write| write.reachability(fact)).unwrap();
}

fn request_reboot(fixture: &mut Fixture, id: &str) {
    fixture.declare(|spec| spec.reboot = request(id));
}

fn observed(fixture: &Fixture) -> Option<&str> {
    fixture.status().observed_reboot.as_deref()
}

/// The observation is written late, when the machine has been destroyed. The claim that creates the next one says where that is.
#[test]
fn what_was_observed_about_a_machine_that_is_gone_keeps_no_other_from_being_created() {
    let mut server = Fixture::new().running().decided();
    let gone = MachineFact { phase: MachinePhase::Gone, ..server.status().machine.clone().unwrap() };
    server.write(Executor::ReplicasetController, |write| write.machine(Some(gone.clone()))).unwrap();
    make_unreachable(&mut server);
    assert_eq!(server.status().reachability, None);
    // As an older release has stored it.
    server.server.status.as_mut().unwrap().reachability = Some(unreachable(60, server.now));
    let claim = Claim {
        task_id: server.task(TaskKind::CreateMachine).id,
        holder: "replicaset-controller/a".into(),
        duration_seconds: 30,
        again: false,
    };
    let begun = MachineFact { phase: MachinePhase::Creating, id: None, address: None, ..gone };
    server.write(Executor::ReplicasetController, |write| write.machine(Some(begun)).claim(claim)).unwrap();
    assert_eq!((server.state(), server.phase(TaskKind::CreateMachine)), (State::Initializing, TaskPhase::Running));
}

#[test]
fn an_unreachable_machine_is_rebooted_once_per_request() {
    let mut server = unknown();
    request_reboot(&mut server, "1");
    assert_eq!(server.steps(), "RebootMachine > AwaitRecovery");
    server.claim(TaskKind::RebootMachine, "a").unwrap();
    assert_eq!(observed(&server), None);
    server.report(TaskKind::RebootMachine, "a", Outcome::Succeeded).unwrap();
    assert_eq!((server.steps().as_str(), observed(&server)), ("AwaitRecovery", Some("1")));
    server.acknowledge();
    assert_eq!(server.steps(), "AwaitRecovery");
    request_reboot(&mut server, "2");
    assert_eq!(server.steps(), "RebootMachine > AwaitRecovery");
}

#[test]
fn a_failed_reboot_is_retried_only_by_a_new_request() {
    let mut server = unknown();
    request_reboot(&mut server, "1");
    server.claim(TaskKind::RebootMachine, "a").unwrap();
    server.report(TaskKind::RebootMachine, "a", Outcome::Failed).unwrap();
    assert_eq!(observed(&server), None);
    assert!(server.waiting_for().starts_with("a person: RebootMachine"), "{}", server.waiting_for());
    server.acknowledge();
    assert!(!server.status().tasks.iter().any(|t| t.kind == TaskKind::RebootMachine && t.phase == TaskPhase::Pending));
    request_reboot(&mut server, "2");
    assert_eq!(server.steps(), "RebootMachine > AwaitRecovery");
}

#[test]
fn a_request_to_reboot_a_reachable_machine_is_dropped() {
    let mut ready = Fixture::ready();
    request_reboot(&mut ready, "1");
    assert_eq!((ready.state(), ready.steps().as_str(), observed(&ready)), (State::Ready, "", Some("1")));
    make_unreachable(&mut ready);
    assert_eq!(ready.steps(), "HoldTraffic + PauseMonitoring > AwaitRecovery");
    // The Server is Unknown because it is forced; its machine is reachable.
    let mut forced = Fixture::ready();
    let reason = "x".into();
    let force = Some(Force { state: State::Unknown, reason, by: None, at: None, declaration: None });
    forced.declare(|spec| (spec.force, spec.reboot) = (force, request("3")));
    assert_eq!((forced.state(), observed(&forced)), (State::Unknown, Some("3")));
    assert!(!forced.steps().contains("RebootMachine"), "{}", forced.steps());
}

#[test]
fn a_running_reboot_is_observed_when_the_machine_becomes_reachable_first() {
    let mut server = unknown();
    request_reboot(&mut server, "1");
    let back = ReachabilityFact { reachable: true, ..unreachable(0, server.now) };
    server.write(Executor::MonitorController, |write| write.reachability(back)).unwrap();
    assert_eq!((server.state(), observed(&server)), (State::Initializing, Some("1")));
}

#[test]
fn a_reboot_request_is_stamped_and_does_not_end_a_force() {
    let mut fixture = Fixture::ready();
    let force = Force { state: State::Deploying, reason: "x".into(), by: None, at: None, declaration: None };
    fixture.declare(|spec| spec.force = Some(force));
    let replaces = controller(Executor::ReplicasetController);
    let asked = |server: &mut berth_core::api::Server| {
        server.spec.reboot = request("1");
        server.spec.retain = retention();
    };
    fixture.update(&replaces, asked).unwrap();
    fixture.acknowledge();
    assert_eq!(fixture.state(), State::Deploying, "a person's force outranks what failover wants");
    let stamped = fixture.server.spec.reboot.clone().unwrap();
    assert_eq!((stamped.by, stamped.at.is_some()), (Some(replaces.username), true));
    fixture.update(&person("bob"), |server| server.spec.reboot = request("1")).unwrap();
    assert_eq!(fixture.server.spec.reboot.as_ref().unwrap().at, stamped.at);
}

#[test]
fn a_retained_machine_gets_no_traffic_and_no_other_task() {
    let mut retained = unknown();
    retained.declare(|spec| spec.retain = retention());
    assert_eq!((retained.state(), retained.steps().as_str()), (State::Unknown, "AwaitRecovery"));
    retained.perform(TaskKind::AwaitRecovery);
    assert_eq!((retained.state(), retained.steps().as_str()), (State::Unknown, ""));
    assert_eq!(retained.waiting_for(), "a person: the machine is kept for diagnosis");
    retained.declare(|spec| spec.retain = None);
    assert_eq!(retained.state(), State::Initializing, "back, it is verified");
}

#[test]
fn retaining_a_ready_server_holds_its_traffic_and_retirement_comes_first() {
    let mut retained = Fixture::ready();
    retained.declare(|spec| spec.retain = retention());
    assert_eq!((retained.state(), retained.steps().as_str()), (State::Unknown, "HoldTraffic + PauseMonitoring"));
    let last = retained.status().history.last().unwrap();
    assert!(last.ends_with(": kept for diagnosis: the disk is to be looked at"), "{last}");
    retained.declare(|spec| spec.offline = true);
    assert_eq!(retained.state(), State::Offline);
}

#[test]
fn replicaset_controller_may_retry_unless_a_person_refused_a_gate() {
    let again = |server: &mut berth_core::api::Server| server.spec.retry = request("the class changed");
    for executor in Executor::CONTROLLERS {
        let mut fixture = Fixture::registering().decided();
        fixture.claim(TaskKind::CreateMachine, "a").unwrap();
        fixture.report(TaskKind::CreateMachine, "a", Outcome::Failed).unwrap();
        let tried = fixture.update(&controller(executor), again);
        assert_eq!(tried.is_ok(), executor == Executor::ReplicasetController, "{executor}");
        if executor == Executor::ReplicasetController {
            fixture.acknowledge();
            assert!(fixture.steps().starts_with("CreateMachine"), "{}", fixture.steps());
        }
    }
    let mut refused = Fixture::registering().gate(GatePoint::CreateMachine).decided();
    refused.report(TaskKind::Gate, "a", Outcome::Failed).unwrap();
    assert!(refused.update(&controller(Executor::ReplicasetController), again).is_err());
    refused.update(&person("ann"), again).unwrap();
}
