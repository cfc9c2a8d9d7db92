//! How a decision changes the task list: entering a state, planning again, dropping old tasks.

use berth_core::api::{
    Executor, GatePoint, HealthState, Outcome, Request, State, Task, TaskKind, TaskPhase, TrafficPhase,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use berth_testing::{Fixture, ended_tasks, entered_states, environment, start, unreachable};

use TaskKind::{CreateMachine, DeployApp, HoldTraffic, InstallPackages, RegisterBackend};

fn ids(fixture: &Fixture) -> Vec<i64> {
    fixture.status().tasks.iter().map(|task| task.id).collect()
}

fn by_id(fixture: &Fixture, id: i64) -> &Task {
    fixture.status().tasks.iter().find(|task| task.id == id).unwrap()
}

#[test]
fn new_tasks_are_pending_and_numbered_from_one() {
    let mut fixture = Fixture::registering();
    fixture.acknowledge();
    assert_eq!(
        (ids(&fixture), fixture.status().last_task_id, fixture.status().first_task_id),
        (vec![1, 2, 3], Some(3), Some(1))
    );
    for task in &fixture.status().tasks {
        assert_eq!((task.phase, task.attempts), (TaskPhase::Pending, 0));
        assert!(task.not_before.is_none() && task.started_at.is_none() && task.finished_at.is_none());
        assert!(!task.digest.is_empty() && task.message.is_empty());
    }
}

#[test]
fn leaving_a_state_cancels_its_unfinished_tasks() {
    let mut fixture = Fixture::registering().decided();
    fixture.perform(CreateMachine);
    fixture.report(RegisterBackend, "a", Outcome::Retry).unwrap();
    fixture.advance(4);
    fixture.declare(|spec| spec.offline = true);
    for (kind, since) in [(InstallPackages, String::new()), (RegisterBackend, format!(" since {}", start()))] {
        assert_eq!(ended_tasks(fixture.status(), kind, TaskPhase::Cancelled), 1);
        let line = fixture.status().history.iter().find(|line| line.contains(&kind.to_string())).unwrap();
        assert!(line.starts_with(&fixture.now.to_string()), "{line}");
        assert!(line.ends_with(&format!("Cancelled{since}: the Server left Initializing")), "{line}");
    }
    assert_eq!(ended_tasks(fixture.status(), CreateMachine, TaskPhase::Succeeded), 1);
    assert_eq!((fixture.steps().as_str(), ids(&fixture)), ("DestroyMachine", vec![4]));
    assert_eq!((fixture.status().first_task_id, fixture.status().last_task_id), (Some(4), Some(4)));
}

#[test]
fn deciding_again_changes_nothing() {
    let mut fixture = Fixture::registering().decided();
    let before = fixture.server.clone();
    fixture.advance(100);
    fixture.acknowledge();
    assert_eq!(fixture.server, before);
}

#[test]
fn tasks_that_are_no_longer_planned_are_cancelled() {
    let mut fixture = Fixture::registering().running().decided();
    assert_eq!(fixture.steps(), "InstallPackages + RegisterBackend");
    fixture.advance(1);
    fixture.declare(|spec| spec.traffic = None);
    let task = fixture.task(RegisterBackend);
    assert_eq!((task.phase, task.message.as_str()), (TaskPhase::Cancelled, "no longer needed"));
    assert_eq!((fixture.steps().as_str(), fixture.state()), ("InstallPackages", State::Initializing));
}

#[test]
fn a_task_that_was_never_begun_takes_the_newer_declaration() {
    let mut fixture = Fixture::registering().running().decided();
    let before = fixture.task(InstallPackages).clone();
    fixture.declare(|spec| spec.packages[0].version = "1.1".into());
    let after = fixture.task(InstallPackages);
    assert_eq!((after.id, after.phase), (before.id, TaskPhase::Pending));
    assert_ne!(after.digest, before.digest);
}

#[test]
fn an_attempted_task_is_replaced_when_its_declaration_changes() {
    let mut fixture = Fixture::registering().running().decided();
    let before = fixture.task(InstallPackages).clone();
    fixture.claim(InstallPackages, "a").unwrap();
    fixture.report(InstallPackages, "a", Outcome::Retry).unwrap();
    fixture.declare(|spec| spec.packages[0].version = "1.1".into());
    assert_eq!(by_id(&fixture, before.id).phase, TaskPhase::Cancelled);
    let after = fixture.task(InstallPackages);
    assert_eq!((after.id > before.id, after.attempts, after.phase), (true, 0, TaskPhase::Pending));
}

#[test]
fn a_task_that_runs_under_the_lock_continues() {
    let mut fixture = Fixture::registering().running().decided();
    fixture.claim(InstallPackages, "a").unwrap();
    let running = fixture.task(InstallPackages).clone();
    let old = environment(&fixture.server.spec);
    fixture.declare(|spec| spec.packages[0].version = "1.1".into());
    assert_eq!(fixture.task(InstallPackages), &running);
    fixture.report_with(InstallPackages, "a", Outcome::Succeeded, |write| write.environment(old)).unwrap();
    let next = fixture.task(InstallPackages);
    assert_eq!((next.id > running.id, next.phase), (true, TaskPhase::Pending));
}

#[test]
fn a_running_task_without_a_lock_is_replaced() {
    let mut fixture = Fixture::registering().running().decided();
    fixture.report(RegisterBackend, "a", Outcome::Running).unwrap();
    let running = fixture.task(RegisterBackend).id;
    fixture.declare(|spec| spec.traffic.as_mut().unwrap().backends[0].port = 1);
    assert_eq!(by_id(&fixture, running).phase, TaskPhase::Cancelled);
    assert_eq!(fixture.phase(RegisterBackend), TaskPhase::Pending);
}

#[test]
fn steps_are_renumbered_when_a_step_is_inserted_or_removed() {
    let mut fixture = Fixture::registering().running().installed().registered().decided();
    let (step, id) = (fixture.task(DeployApp).step, fixture.task(DeployApp).id);
    assert_eq!(step, 1);
    fixture.declare(|spec| spec.gates.push(berth_core::api::Gate { before: GatePoint::DeployApp }));
    assert_eq!((fixture.task(DeployApp).step, fixture.task(DeployApp).id), (2, id));
    assert_eq!(fixture.steps(), "Gate(DeployApp) > DeployApp > CheckHealth");
    // This also holds for a task with a changed declaration, and for a running one.
    fixture.declare(|spec| {
        spec.gates.clear();
        spec.app.as_mut().unwrap().revision = Some("r2".into());
    });
    assert_eq!((fixture.task(DeployApp).step, fixture.task(DeployApp).id), (1, id));
    fixture.claim(DeployApp, "a").unwrap();
    fixture.declare(|spec| {
        spec.app.as_mut().unwrap().revision = Some("r3".into());
        spec.gates.push(berth_core::api::Gate { before: GatePoint::DeployApp });
    });
    assert_eq!((fixture.task(DeployApp).step, fixture.phase(DeployApp)), (2, TaskPhase::Running));
}

#[test]
fn the_same_kind_of_task_in_another_state_is_a_new_task() {
    let mut fixture = Fixture::ready();
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    let hold = fixture.task(HoldTraffic).id;
    fixture.declare(|spec| spec.packages[0].version = "1.1".into());
    assert_eq!(fixture.steps(), "HoldTraffic > InstallPackages");
    assert!(fixture.task(HoldTraffic).id > hold);
    assert!(fixture.status().history.iter().any(|line| line.contains(&format!("HoldTraffic (task {hold}) Cancelled"))));
}

#[test]
fn the_last_twenty_things_that_happened_are_kept_in_their_order() {
    let mut fixture = Fixture::ready();
    for _ in 0..8 {
        fixture.advance(60);
        let lost = unreachable(60, fixture.now);
        fixture.write(Executor::MonitorController, |write| write.reachability(lost)).unwrap();
        fixture.perform_all();
    }
    let history = &fixture.status().history;
    assert_eq!(history.len(), 20);
    let last = format!("{} Deploying -> Ready (", fixture.now);
    assert!(history[19].starts_with(&last), "{}", history[19]);
    assert!(history.windows(2).all(|pair| pair[0][..20] <= pair[1][..20]), "{history:?}");
    let states = entered_states(fixture.status());
    let end = [State::Unknown, State::Initializing, State::Deploying, State::Ready];
    assert!(states.ends_with(&end), "{history:?}");
}

/// Makes the application unhealthy, and carries out the tasks that make the Server Ready again, CheckHealth among them.
fn fail_and_recover(fixture: &mut Fixture) {
    fixture
        .write(Executor::MonitorController, |write| {
            let sick = berth_core::api::HealthFact {
                state: HealthState::Unhealthy,
                epoch: 0,
                since: Time(berth_testing::start()),
                message: String::new(),
            };
            write.health(sick)
        })
        .unwrap();
    fixture.perform_all();
}

#[test]
fn finished_tasks_of_earlier_states_are_history_and_ids_keep_rising() {
    let mut fixture = Fixture::ready().fact(|status| status.epoch = Some(0));
    for _ in 0..10 {
        fail_and_recover(&mut fixture);
    }
    // Each time HoldTraffic, CheckHealth and ReleaseTraffic.
    assert_eq!(fixture.status().last_task_id, Some(30));
    assert_eq!(ids(&fixture), [30], "of the current state");
    let ended: Vec<&String> = fixture.status().history.iter().filter(|line| line.contains("Succeeded")).collect();
    assert!(ended.len() >= 10 && ended.last().unwrap().contains("CheckHealth (task 29)"), "{ended:?}");
}

#[test]
fn failures_and_gates_of_the_current_state_are_kept() {
    let mut fixture = Fixture::ready().fact(|status| {
        status.epoch = Some(0);
        status.traffic.as_mut().unwrap().phase = TrafficPhase::Held;
    });
    fixture = fixture.gate(GatePoint::ReleaseTraffic);
    fixture.acknowledge();
    let gate = fixture.task(TaskKind::Gate).id;
    fixture.report(TaskKind::Gate, "a", Outcome::Succeeded).unwrap();
    // In this state the task fails and is retried many times.
    for n in 0..14 {
        fixture.report(TaskKind::ReleaseTraffic, "a", Outcome::Failed).unwrap();
        fixture.declare(|spec| {
            spec.retry = Some(Request { id: n.to_string(), reason: String::new(), by: None, at: None });
        });
    }
    let tasks = fixture.status().tasks.clone();
    assert_eq!(by_id(&fixture, gate).phase, TaskPhase::Succeeded);
    assert_eq!(tasks.iter().filter(|task| task.phase == TaskPhase::Failed).count(), 14);
    // In the next state the failures are history; the gate stays, because a person has decided on it.
    fixture.declare(|spec| spec.offline = true);
    let finished: Vec<i64> = fixture.status().tasks.iter().filter(|t| t.phase.is_finished()).map(|t| t.id).collect();
    assert_eq!(finished, [gate]);
    assert_eq!(ended_tasks(fixture.status(), TaskKind::ReleaseTraffic, TaskPhase::Failed), 14);
}

/// Each change of what is declared cancels a task that was begun.
#[test]
fn of_the_current_states_finished_tasks_the_last_ten_are_listed_and_the_others_are_history() {
    let mut fixture = Fixture::registering().running().decided();
    for n in 0..13 {
        fixture.report(RegisterBackend, "a", Outcome::Running).unwrap();
        fixture.declare(|spec| spec.traffic.as_mut().unwrap().backends[0].port = 100 + n);
    }
    let finished = fixture.status().tasks.iter().filter(|task| task.phase.is_finished()).count();
    assert_eq!(
        (finished, fixture.status().tasks.len(), fixture.steps().as_str()),
        (10, 12, "InstallPackages + RegisterBackend")
    );
    assert_eq!(ended_tasks(fixture.status(), RegisterBackend, TaskPhase::Cancelled), 13);
}
