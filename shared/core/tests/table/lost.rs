//! What is asked for while a machine cannot be reached: reboots, and keeping it for diagnosis.

use berth_core::api::{
    Executor, Force, GatePoint, Outcome, ReachabilityFact, Request, Retention, State, TaskKind, TaskPhase,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::support::{Fixture, controller, person, start, unreachable};

#[expect(clippy::unnecessary_wraps, reason = "as the field has it")]
fn request(id: &str) -> Option<Request> {
    Some(Request { id: id.into(), reason: String::new(), by: None, at: None })
}

#[expect(clippy::unnecessary_wraps, reason = "as the field has it")]
fn retention() -> Option<Retention> {
    Some(Retention { until: Time(start()), reason: "the disk is to be looked at".into() })
}

/// Unknown, and awaited only.
fn lost() -> Fixture {
    let mut lost = Fixture::ready();
    lose(&mut lost);
    lost.perform(TaskKind::HoldTraffic);
    lost.perform(TaskKind::PauseMonitoring);
    assert_eq!((lost.state(), lost.steps().as_str()), (State::Unknown, "AwaitRecovery"));
    lost
}

fn lose(fixture: &mut Fixture) {
    let fact = unreachable(60, fixture.now);
    fixture.write(Executor::MonitorController, |write| write.reachability(fact)).unwrap();
}

fn asks(fixture: &mut Fixture, id: &str) {
    fixture.declare(|spec| spec.reboot = request(id));
}

fn observed(fixture: &Fixture) -> Option<&str> {
    fixture.status().observed_reboot.as_deref()
}

#[test]
fn a_machine_that_cannot_be_reached_is_rebooted_once_for_each_request() {
    let mut lost = lost();
    asks(&mut lost, "1");
    assert_eq!(lost.steps(), "RebootMachine > AwaitRecovery");
    lost.claim(TaskKind::RebootMachine, "a").unwrap();
    assert_eq!(observed(&lost), None);
    lost.report(TaskKind::RebootMachine, "a", Outcome::Succeeded).unwrap();
    assert_eq!((lost.steps().as_str(), observed(&lost)), ("AwaitRecovery", Some("1")));
    lost.acknowledge();
    assert_eq!(lost.steps(), "AwaitRecovery");
    asks(&mut lost, "2");
    assert_eq!(lost.steps(), "RebootMachine > AwaitRecovery");
}

#[test]
fn a_reboot_that_failed_is_tried_again_by_a_new_request_only() {
    let mut lost = lost();
    asks(&mut lost, "1");
    lost.claim(TaskKind::RebootMachine, "a").unwrap();
    lost.report(TaskKind::RebootMachine, "a", Outcome::Failed).unwrap();
    assert_eq!(observed(&lost), None);
    assert!(lost.waiting_for().starts_with("a person: RebootMachine"), "{}", lost.waiting_for());
    lost.acknowledge();
    assert!(!lost.status().tasks.iter().any(|t| t.kind == TaskKind::RebootMachine && t.phase == TaskPhase::Pending));
    asks(&mut lost, "2");
    assert_eq!(lost.steps(), "RebootMachine > AwaitRecovery");
}

#[test]
fn a_reboot_of_a_machine_that_answers_comes_to_nothing_and_does_not_wait_for_its_loss() {
    let mut ready = Fixture::ready();
    asks(&mut ready, "1");
    assert_eq!((ready.state(), ready.steps().as_str(), observed(&ready)), (State::Ready, "", Some("1")));
    lose(&mut ready);
    assert_eq!(ready.steps(), "HoldTraffic + PauseMonitoring > AwaitRecovery");
    // Forced Unknown, it answers all the same.
    let mut forced = Fixture::ready();
    let reason = "x".into();
    let force = Some(Force { state: State::Unknown, reason, by: None, at: None, declaration: None });
    forced.declare(|spec| (spec.force, spec.reboot) = (force, request("3")));
    assert_eq!((forced.state(), observed(&forced)), (State::Unknown, Some("3")));
    assert!(!forced.steps().contains("RebootMachine"), "{}", forced.steps());
}

#[test]
fn a_reboot_that_is_under_way_is_observed_when_the_machine_comes_back_first() {
    let mut lost = lost();
    asks(&mut lost, "1");
    let back = ReachabilityFact { reachable: true, ..unreachable(0, lost.now) };
    lost.write(Executor::MonitorController, |write| write.reachability(back)).unwrap();
    assert_eq!((lost.state(), observed(&lost)), (State::Initializing, Some("1")));
}

#[test]
fn a_request_is_stamped_and_ends_no_force() {
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
fn a_machine_kept_for_diagnosis_is_left_alone_without_traffic_whether_it_answers_or_not() {
    let mut kept = lost();
    kept.declare(|spec| spec.retain = retention());
    assert_eq!((kept.state(), kept.steps().as_str()), (State::Unknown, "AwaitRecovery"));
    kept.perform(TaskKind::AwaitRecovery);
    assert_eq!((kept.state(), kept.steps().as_str()), (State::Unknown, ""));
    assert_eq!(kept.waiting_for(), "a person: the machine is kept for diagnosis");
    kept.declare(|spec| spec.retain = None);
    assert_eq!(kept.state(), State::Initializing, "back, it is verified");
}

#[test]
fn a_ready_server_that_is_kept_leaves_traffic_first_and_retirement_outranks_it() {
    let mut kept = Fixture::ready();
    kept.declare(|spec| spec.retain = retention());
    assert_eq!((kept.state(), kept.steps().as_str()), (State::Unknown, "HoldTraffic + PauseMonitoring"));
    let reason = &kept.status().transitions.last().unwrap().reason;
    assert_eq!(reason, "kept for diagnosis: the disk is to be looked at");
    kept.declare(|spec| spec.offline = true);
    assert_eq!(kept.state(), State::Offline);
}

#[test]
fn replicaset_controller_tries_again_unless_a_person_has_refused() {
    let again = |server: &mut berth_core::api::Server| server.spec.retry = request("the class changed");
    for executor in Executor::CONTROLLERS {
        let mut fixture = Fixture::new().decided();
        fixture.claim(TaskKind::CreateMachine, "a").unwrap();
        fixture.report(TaskKind::CreateMachine, "a", Outcome::Failed).unwrap();
        let tried = fixture.update(&controller(executor), again);
        assert_eq!(tried.is_ok(), executor == Executor::ReplicasetController, "{executor}");
        if executor == Executor::ReplicasetController {
            fixture.acknowledge();
            assert!(fixture.steps().starts_with("CreateMachine"), "{}", fixture.steps());
        }
    }
    let mut refused = Fixture::new().gate(GatePoint::CreateMachine).decided();
    refused.report(TaskKind::Gate, "a", Outcome::Failed).unwrap();
    assert!(refused.update(&controller(Executor::ReplicasetController), again).is_err());
    refused.update(&person("ann"), again).unwrap();
}
