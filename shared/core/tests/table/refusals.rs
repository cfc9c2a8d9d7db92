//! Which refusals of earlier states still hold, however much has happened since.

use berth_core::api::{GatePoint, HealthFact, HealthState, Outcome, State, TaskKind, TaskPhase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use berth_core::api::Executor;
use berth_testing::{Fixture, full_spec};

use TaskKind::{Gate, HoldTraffic};

/// A Ready Server with the application r1, and with a gate before each new one.
fn deployed() -> Fixture {
    let mut fixture = Fixture::declaring(|spec| *spec = full_spec()).gate(GatePoint::DeployApp).decided();
    fixture.perform_all();
    assert_eq!(fixture.state(), State::Ready);
    fixture
}

/// Declares a revision, and returns the phase and the step of its gate.
fn gate_of(fixture: &mut Fixture, revision: &str) -> (TaskPhase, i32) {
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some(revision.into()));
    assert_eq!(fixture.state(), State::Deploying);
    (fixture.task(Gate).phase, fixture.task(Gate).step)
}

fn decide(fixture: &mut Fixture, revision: &str, outcome: Outcome) {
    assert_eq!(gate_of(fixture, revision), (TaskPhase::Pending, 2));
    fixture.perform(HoldTraffic);
    fixture.report(Gate, "a", outcome).unwrap();
}

/// Goes back to the application that runs.
fn back(fixture: &mut Fixture) {
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r1".into()));
    fixture.perform_all();
    assert_eq!(fixture.state(), State::Ready);
}

/// The application gets sick and recovers more often than finished tasks are kept.
fn time_passes(fixture: &mut Fixture) {
    for _ in 0..6 {
        fixture.advance(60);
        let (epoch, now) = (fixture.status().epoch.unwrap(), fixture.now);
        let sick = HealthFact { state: HealthState::Unhealthy, epoch, since: Time(now), message: "503".into() };
        fixture.write(Executor::MonitorController, |write| write.health(sick)).unwrap();
        fixture.perform_all();
        assert_eq!(fixture.state(), State::Ready);
    }
}

#[test]
fn each_refused_content_stays_refused() {
    let mut fixture = deployed();
    for revision in ["r2", "r3"] {
        decide(&mut fixture, revision, Outcome::Failed);
        back(&mut fixture);
    }
    time_passes(&mut fixture);
    for revision in ["r3", "r2", "r3"] {
        assert_eq!(gate_of(&mut fixture, revision), (TaskPhase::Failed, 2), "{revision}, behind HoldTraffic");
        back(&mut fixture);
    }
}

#[test]
fn a_refusal_that_a_person_has_revised_is_forgotten_with_the_approval() {
    let mut fixture = deployed();
    decide(&mut fixture, "r2", Outcome::Failed);
    back(&mut fixture);
    // The refusal is taken over into the state that is entered again, and is revised there.
    assert_eq!(gate_of(&mut fixture, "r2"), (TaskPhase::Failed, 2));
    fixture.report(Gate, "a", Outcome::Succeeded).unwrap();
    back(&mut fixture);
    time_passes(&mut fixture);
    assert_eq!(gate_of(&mut fixture, "r2"), (TaskPhase::Pending, 2), "it is asked anew");
}

#[test]
fn other_tasks_of_earlier_states_are_dropped() {
    let mut fixture = deployed();
    decide(&mut fixture, "r2", Outcome::Failed);
    back(&mut fixture);
    time_passes(&mut fixture);
    let (gates, others): (Vec<_>, Vec<_>) = fixture.status().tasks.iter().partition(|task| task.kind == Gate);
    assert_eq!(gates.iter().filter(|gate| gate.phase == TaskPhase::Failed).count(), 1);
    assert!(gates.len() + others.len() <= 12, "{} gates and {} other tasks", gates.len(), others.len());
}
