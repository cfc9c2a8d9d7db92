//! Force and retry, which only people may set.

use berth_core::{
    api::{Executor, Force, Outcome, Request, Server, ServerSpec, State, TaskKind, TaskPhase},
    lifecycle::RefusalReason,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use berth_testing::{Denied, Fixture, controller, created, full_spec, person, start, unreachable};

use TaskKind::{CheckHealth, CreateMachine, InstallPackages, RegisterBackend};

#[expect(clippy::unnecessary_wraps, reason = "as the field has it")]
fn force(state: State) -> Option<Force> {
    Some(Force { state, reason: "by hand".into(), by: None, at: None, declaration: None })
}

#[expect(clippy::unnecessary_wraps, reason = "as the field has it")]
fn retry(id: &str) -> Option<Request> {
    Some(Request { id: id.into(), reason: String::new(), by: None, at: None })
}

fn force_status(fixture: &Fixture) -> Option<(bool, &str)> {
    fixture.status().force.as_ref().map(|force| (force.active, force.message.as_str()))
}

fn failed() -> Fixture {
    let mut fixture = Fixture::registering().decided();
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.report(CreateMachine, "a", Outcome::Failed).unwrap();
    fixture
}

#[test]
fn a_force_is_stamped_with_user_time_and_declaration() {
    let mut fixture = Fixture::registering();
    let forged = Force {
        by: Some("boss".into()),
        at: Some(Time(Timestamp::UNIX_EPOCH)),
        declaration: Some("x".into()),
        ..force(State::Ready).unwrap()
    };
    fixture.now += SignedDuration::from_millis(700);
    fixture.update(&person("ann"), |server| server.spec.force = Some(forged)).unwrap();
    let stamped = fixture.server.spec.force.clone().unwrap();
    assert_eq!((stamped.by.as_deref(), stamped.at.clone()), (Some("ann"), Some(Time(start()))));
    assert_eq!(stamped.declaration.as_ref().map(String::len), Some(10));
    // Written again by another user, even without its stamp, it stays the same force.
    fixture.advance(60);
    fixture.update(&person("bob"), |server| server.spec.force = force(State::Ready)).unwrap();
    assert_eq!(
        fixture.server.spec.force,
        Some(Force { by: Some("ann".into()), at: Some(Time(start())), ..stamped.clone() })
    );
    // With another state or reason it is another force.
    fixture.update(&person("bob"), |server| server.spec.force = force(State::Unknown)).unwrap();
    assert_eq!(fixture.server.spec.force.as_ref().unwrap().by.as_deref(), Some("bob"));
    fixture.update(&person("eve"), |server| server.spec.force.as_mut().unwrap().reason = "because".into()).unwrap();
    assert_eq!(fixture.server.spec.force.as_ref().unwrap().by.as_deref(), Some("eve"));
}

#[test]
fn force_and_retry_are_stamped_at_creation() {
    let spec = ServerSpec { force: force(State::Ready), retry: retry("1"), ..full_spec() };
    let server = created(spec);
    let by = Some(controller(Executor::ReplicasetController).username);
    assert_eq!(server.spec.force.as_ref().unwrap().by, by);
    assert_eq!(
        (server.spec.retry.as_ref().unwrap().by.clone(), server.spec.retry.unwrap().at),
        (by, Some(Time(start())))
    );
    assert_eq!(created(full_spec()).spec, full_spec());
}

#[test]
fn a_retry_is_stamped_once() {
    let mut fixture = Fixture::registering();
    fixture.update(&person("ann"), |server| server.spec.retry = retry("1")).unwrap();
    fixture.advance(5);
    fixture.update(&person("bob"), |server| server.spec.retry = retry("1")).unwrap();
    let stamped = fixture.server.spec.retry.clone().unwrap();
    assert_eq!((stamped.by.as_deref(), stamped.at.clone()), (Some("ann"), Some(Time(start()))));
    fixture.update(&person("bob"), |server| server.spec.retry = retry("2")).unwrap();
    assert_eq!(fixture.server.spec.retry.as_ref().unwrap().by.as_deref(), Some("bob"));
}

#[test]
fn a_force_stays_in_effect_while_the_facts_disagree() {
    let mut fixture = Fixture::ready();
    fixture.declare(|spec| spec.force = force(State::Initializing));
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Initializing, Some((true, ""))));
    let lost = unreachable(90, fixture.now);
    fixture.write(Executor::MonitorController, |write| write.reachability(lost)).unwrap();
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Initializing, Some((true, ""))));
    fixture.perform(TaskKind::HoldTraffic);
    assert_eq!(fixture.steps(), "");
    assert_eq!(fixture.waiting_for(), "a person: nothing is left to do in the forced state Initializing");
}

#[test]
fn a_force_ends_when_a_person_clears_it() {
    let mut fixture = Fixture::ready();
    fixture.declare(|spec| spec.force = force(State::Deploying));
    assert_eq!((fixture.state(), fixture.steps().as_str()), (State::Deploying, "HoldTraffic"));
    fixture.declare(|spec| spec.force = None);
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Ready, None));
}

#[test]
fn a_new_force_after_one_that_ended_takes_effect() {
    let mut fixture = Fixture::ready();
    fixture.declare(|spec| spec.force = force(State::Unknown));
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    assert_eq!(force_status(&fixture), Some((false, "the declaration changed")));
    let ended = fixture.status().force.as_ref().unwrap().id.clone();
    fixture.declare(|spec| spec.force = force(State::Deploying));
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Deploying, Some((true, ""))));
    assert_ne!(fixture.status().force.as_ref().unwrap().id, ended);
}

#[test]
fn a_force_ends_for_good_when_the_declaration_changes() {
    let mut fixture = Fixture::ready();
    fixture.declare(|spec| spec.force = force(State::Unknown));
    assert_eq!(fixture.state(), State::Unknown);
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    assert_eq!(force_status(&fixture), Some((false, "the declaration changed")));
    assert_eq!(fixture.state(), State::Initializing);
    fixture.perform_all();
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r1".into()));
    assert_eq!(force_status(&fixture), Some((false, "the declaration changed")));
    assert_eq!(fixture.state(), State::Deploying);
}

#[test]
fn a_force_counts_from_its_declaration_until_the_webhook_says_that_it_has_ended() {
    let mut fixture = Fixture::ready();
    let by_ann = |fixture: &mut Fixture, state| {
        fixture.update(&person("ann"), |server| server.spec.force = force(state)).unwrap();
    };
    assert_eq!(fixture.server.force_note(), None);
    by_ann(&mut fixture, State::Unknown);
    let reason = fixture.server.spec.force.clone().unwrap().reason;
    let note = format!("{} is forced to Unknown by ann ({reason})", fixture.server.name());
    for is_decided in [false, true] {
        if is_decided {
            fixture.acknowledge();
        }
        assert_eq!((fixture.server.is_forced(), fixture.server.force_note()), (true, Some(note.clone())));
    }
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    assert_eq!((fixture.server.is_forced(), fixture.server.force_note()), (false, None));
    by_ann(&mut fixture, State::Deploying);
    assert!(fixture.server.is_forced(), "another force counts, although the webhook has not decided on it");
}

#[test]
fn automation_ends_no_force() {
    let mut fixture = Fixture::ready();
    let roll_out = |server: &mut Server| server.spec.app.as_mut().unwrap().revision = Some("r2".into());
    fixture.update(&person("ann"), |server| server.spec.force = force(State::Unknown)).unwrap();
    for is_observed in [false, true] {
        if is_observed {
            fixture.acknowledge();
        }
        for executor in [Executor::DeploymentController, Executor::ReplicasetController] {
            let Err(Denied::Refused(refused)) = fixture.update(&controller(executor), roll_out) else { panic!() };
            assert_eq!((refused.field.as_str(), refused.reason), ("spec", RefusalReason::NotAPerson));
            let message =
                format!("a person has forced this Server: {executor} leaves it as it is until spec.force is removed");
            assert_eq!(refused.message, message);
        }
    }
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Unknown, Some((true, ""))));
    // Retention and requests are no part of what the force was meant for.
    let reboot = |server: &mut Server| server.spec.reboot = retry("1");
    fixture.update(&controller(Executor::ReplicasetController), reboot).unwrap();
    fixture.declare(|spec| spec.force = None);
    fixture.update(&controller(Executor::DeploymentController), roll_out).unwrap();
}

#[test]
fn a_retry_or_another_force_does_not_end_a_force() {
    let mut fixture = Fixture::ready();
    fixture.declare(|spec| spec.force = force(State::Unknown));
    fixture.declare(|spec| spec.retry = retry("1"));
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Unknown, Some((true, ""))));
    fixture.declare(|spec| spec.force = force(State::Deploying));
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Deploying, Some((true, ""))));
}

#[test]
fn a_force_ends_for_good_when_the_facts_agree() {
    let mut fixture = Fixture::registering().running().decided();
    fixture.declare(|spec| spec.force = force(State::Ready));
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Ready, Some((true, ""))));
    // The person did the rest by hand, and the facts show it.
    fixture = fixture.all_right();
    fixture.acknowledge();
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Ready, Some((false, "the facts agree"))));
    let lost = unreachable(60, fixture.now);
    fixture.write(Executor::MonitorController, |write| write.reachability(lost)).unwrap();
    assert_eq!((fixture.state(), force_status(&fixture)), (State::Unknown, Some((false, "the facts agree"))));
}

#[test]
fn a_force_takes_effect_with_the_next_decision() {
    let mut fixture = Fixture::ready();
    fixture.update(&person("ann"), |server| server.spec.force = force(State::Unknown)).unwrap();
    assert_eq!(fixture.state(), State::Ready, "a write of the declaration decides nothing");
    fixture.acknowledge();
    assert_eq!(fixture.state(), State::Unknown);
}

#[test]
fn forcing_the_current_state_retries_failed_tasks() {
    let mut fixture = failed();
    let first = fixture.task(CreateMachine).id;
    fixture.declare(|spec| spec.force = force(State::Initializing));
    assert_eq!((fixture.phase(CreateMachine), fixture.task(CreateMachine).id > first), (TaskPhase::Pending, true));
    assert_eq!(
        (fixture.condition("Stalled").0.as_str(), force_status(&fixture)),
        ("False", Some((false, "the facts agree")))
    );
    // It retries only once.
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.report(CreateMachine, "a", Outcome::Failed).unwrap();
    fixture.acknowledge();
    assert_eq!(fixture.phase(CreateMachine), TaskPhase::Failed);
}

#[test]
fn forcing_another_state_retries_nothing() {
    let mut fixture = failed();
    fixture.declare(|spec| spec.force = force(State::Deploying));
    assert_eq!((fixture.state(), fixture.steps().as_str()), (State::Deploying, "DeployApp > CheckHealth"));
}

#[test]
fn a_retry_gives_each_failed_task_one_more_chance() {
    let mut fixture = Fixture::registering().running().decided();
    fixture.report(RegisterBackend, "a", Outcome::Failed).unwrap();
    let first = fixture.task(RegisterBackend).id;
    fixture.declare(|spec| spec.retry = retry("1"));
    let again = fixture.task(RegisterBackend);
    assert_eq!((again.phase, again.attempts, again.id > first), (TaskPhase::Pending, 0, true));
    assert_eq!(fixture.status().observed_retry.as_deref(), Some("1"));
    fixture.report(RegisterBackend, "a", Outcome::Failed).unwrap();
    fixture.acknowledge();
    assert_eq!(fixture.phase(RegisterBackend), TaskPhase::Failed);
    fixture.declare(|spec| spec.retry = retry("1"));
    assert_eq!(fixture.phase(RegisterBackend), TaskPhase::Failed, "the same id is the same retry");
    fixture.declare(|spec| spec.retry = retry("2"));
    assert_eq!(fixture.phase(RegisterBackend), TaskPhase::Pending);
}

/// What was deployed may be gone, for example with an older disk. Then health fails however often it is only looked at.
#[test]
fn a_retry_of_a_failed_health_check_has_the_machine_read_back_first() {
    let mut fixture = Fixture::registering().running().installed().registered().deployed().decided();
    fixture.report(CheckHealth, "a", Outcome::Failed).unwrap();
    fixture.declare(|spec| spec.retry = retry("1"));
    assert_eq!((fixture.state(), fixture.steps().as_str()), (State::Initializing, "InstallPackages"));
    fixture.perform(InstallPackages);
    assert_eq!((fixture.state(), fixture.steps().as_str()), (State::Deploying, "DeployApp > CheckHealth"));
}

#[test]
fn a_retry_without_failures_does_nothing() {
    let mut fixture = Fixture::registering().decided();
    let tasks = fixture.status().tasks.clone();
    fixture.declare(|spec| spec.retry = retry("1"));
    assert_eq!(fixture.status().tasks, tasks);
}

#[test]
fn clearing_a_retry_keeps_observed_retry() {
    let mut fixture = failed();
    fixture.declare(|spec| spec.retry = retry("1"));
    fixture.declare(|spec| spec.retry = None);
    assert_eq!(fixture.status().observed_retry.as_deref(), Some("1"));
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.report(CreateMachine, "a", Outcome::Failed).unwrap();
    fixture.declare(|spec| spec.retry = retry("1"));
    assert_eq!(fixture.phase(CreateMachine), TaskPhase::Failed);
}

#[test]
fn a_failure_does_not_block_another_declaration() {
    let mut fixture = Fixture::registering().running().registered().decided();
    fixture.claim(TaskKind::InstallPackages, "a").unwrap();
    fixture.report(TaskKind::InstallPackages, "a", Outcome::Failed).unwrap();
    assert_eq!(fixture.steps(), "");
    fixture.declare(|spec| spec.packages[0].version = "1.1".into());
    assert_eq!((fixture.steps().as_str(), fixture.condition("Stalled").0.as_str()), ("InstallPackages", "False"));
    fixture.declare(|spec| spec.packages[0].version = "1.0".into());
    assert_eq!(fixture.condition("Stalled").0, "False", "it was begun anew");
}
