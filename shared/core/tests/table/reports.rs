//! Reports: who may report on which task, and what a report changes.

use berth_core::{
    CLOCK_MARGIN_SECONDS,
    api::{Executor, Outcome, Report, TaskKind, TaskPhase, TrafficPhase},
    lifecycle::RefusalReason,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

use berth_testing::{Fixture, LOCK, holder, machine, person, reason, refusal, report};

use RefusalReason as R;
use TaskKind::{CheckHealth, CreateMachine, HoldTraffic, InstallPackages, RegisterBackend};

fn claimed() -> Fixture {
    let mut fixture = Fixture::registering().decided();
    fixture.claim(CreateMachine, "a").unwrap();
    fixture
}

/// A Server with an open task that needs no lock.
fn unlocked() -> Fixture {
    Fixture::registering().running().installed().decided()
}

#[test]
fn a_successful_report_finishes_the_task_and_releases_the_lock() {
    let mut fixture = claimed();
    fixture.advance(3);
    fixture
        .report_with(CreateMachine, "a", Outcome::Succeeded, |write| write.machine(Some(machine("m1", "b1"))))
        .unwrap();
    let task = fixture.task(CreateMachine);
    assert_eq!((task.phase, task.attempts, task.message.as_str()), (TaskPhase::Succeeded, 1, "Succeeded"));
    assert_eq!(task.finished_at, Some(Time(fixture.now)));
    assert_eq!((&fixture.status().lock, &fixture.status().report), (&None, &None));
    assert_eq!(fixture.status().machine, Some(machine("m1", "b1")));
}

#[test]
fn a_second_report_on_a_finished_task_is_refused() {
    let mut fixture = claimed();
    let again = report(fixture.task(CreateMachine), "replicaset-controller/a", Outcome::Succeeded);
    fixture
        .report_with(CreateMachine, "a", Outcome::Succeeded, |write| write.machine(Some(machine("m1", "b1"))))
        .unwrap();
    let before = fixture.server.clone();
    let result = fixture.write(Executor::ReplicasetController, |write| write.report(again));
    assert_eq!(refusal(result), ("status.report.taskID".into(), R::NotOpen));
    let result = fixture.report(CreateMachine, "a", Outcome::Failed);
    assert_eq!(reason(result), R::NotOpen);
    assert_eq!(fixture.server, before);
}

#[test]
fn only_the_holder_reports_on_a_task_that_needs_the_lock() {
    let mut fixture = claimed();
    assert_eq!(
        refusal(fixture.report(CreateMachine, "b", Outcome::Succeeded)),
        ("status.report.taskID".into(), R::NotHolder)
    );
    let mut unclaimed = Fixture::registering().decided();
    assert_eq!(reason(unclaimed.report(CreateMachine, "a", Outcome::Succeeded)), R::NotHolder);
    let mut released = claimed();
    released.claim_for(CreateMachine, "a", 0).unwrap();
    assert_eq!(reason(released.report(CreateMachine, "a", Outcome::Succeeded)), R::NotHolder);
    // A lock for another task is not enough.
    let mut other = claimed();
    other
        .report_with(CreateMachine, "a", Outcome::Succeeded, |write| write.machine(Some(machine("m1", "b1"))))
        .unwrap();
    let mut wrong = other.clone().fact(|_| {});
    other.claim(InstallPackages, "a").unwrap();
    wrong = wrong.fact(|status| {
        status.lock.clone_from(&other.status().lock);
        status.lock.as_mut().unwrap().task_id = 1;
    });
    assert_eq!(reason(wrong.report(InstallPackages, "a", Outcome::Succeeded)), R::NotHolder);
}

#[test]
fn a_report_on_a_task_that_does_not_run_is_refused() {
    let mut fixture = claimed();
    let id = fixture.task(CreateMachine).id;
    fixture = fixture.fact(|status| status.tasks.iter_mut().find(|t| t.id == id).unwrap().phase = TaskPhase::Pending);
    assert_eq!(reason(fixture.report(CreateMachine, "a", Outcome::Succeeded)), R::NotHolder);
}

#[test]
fn reports_of_another_executor_or_a_person_are_refused() {
    let mut fixture = claimed();
    for executor in [Executor::DeploymentController, Executor::LbController, Executor::MonitorController] {
        let wrong = report(fixture.task(CreateMachine), &holder(executor, "a"), Outcome::Succeeded);
        let result = fixture.write(executor, |write| write.report(wrong));
        assert_eq!(refusal(result), ("status.report.taskID".into(), R::WrongExecutor));
        let posing = report(fixture.task(CreateMachine), "replicaset-controller/a", Outcome::Succeeded);
        let result = fixture.write(executor, |write| write.report(posing));
        assert_eq!(refusal(result), ("status.report.holder".into(), R::Malformed));
    }
    let by_hand = report(fixture.task(CreateMachine), "replicaset-controller/a", Outcome::Succeeded);
    let result = fixture.write_as(&person("ann"), |write| write.report(by_hand));
    assert_eq!(refusal(result), ("status.report".into(), R::WrongExecutor));
}

#[test]
fn a_report_on_an_unknown_task_is_refused() {
    let mut fixture = claimed();
    let unknown =
        Report { task_id: 99, ..report(fixture.task(CreateMachine), "replicaset-controller/a", Outcome::Running) };
    let result = fixture.write(Executor::ReplicasetController, |write| write.report(unknown));
    assert_eq!(refusal(result), ("status.report.taskID".into(), R::UnknownTask));
}

#[test]
fn a_pending_task_without_a_lock_can_be_reported_on() {
    let mut fixture = unlocked();
    fixture.perform(RegisterBackend);
    let now = fixture.now;
    let line = fixture.status().history.iter().find(|line| line.contains("RegisterBackend")).unwrap();
    assert!(line.starts_with(&format!("{now} RegisterBackend (task 1) Succeeded since {now}")), "{line}");
}

#[test]
fn a_running_report_begins_a_task_without_a_lock() {
    let mut fixture = unlocked();
    fixture.report(RegisterBackend, "a", Outcome::Running).unwrap();
    let begun = fixture.now;
    fixture.advance(9);
    fixture.report(RegisterBackend, "b", Outcome::Running).unwrap();
    let task = fixture.task(RegisterBackend);
    assert_eq!((task.phase, task.attempts, &task.started_at), (TaskPhase::Running, 1, &Some(Time(begun))));
    assert_eq!((&task.finished_at, task.message.as_str()), (&None, "Running"));
    fixture.perform(RegisterBackend);
    let line = fixture.status().history.iter().find(|line| line.contains("RegisterBackend")).unwrap();
    assert!(line.contains(&format!("Succeeded since {begun}")), "one attempt, from the first report on: {line}");
}

#[test]
fn a_running_report_keeps_the_lock() {
    let mut fixture = claimed();
    fixture.report(CreateMachine, "a", Outcome::Running).unwrap();
    assert_eq!(fixture.status().lock.as_ref().unwrap().holder, "replicaset-controller/a");
    assert_eq!((fixture.phase(CreateMachine), fixture.task(CreateMachine).attempts), (TaskPhase::Running, 1));
}

#[test]
fn a_report_on_a_task_without_a_lock_keeps_the_lock_of_another_holder() {
    let mut fixture = Fixture::registering().running().decided();
    fixture.claim(InstallPackages, "a").unwrap();
    fixture.perform(RegisterBackend);
    assert_eq!(fixture.status().lock.as_ref().unwrap().holder, "replicaset-controller/a");
}

#[test]
fn a_task_that_is_not_open_cannot_be_reported_on() {
    let mut fixture = Fixture::registering().decided();
    assert_eq!(
        refusal(fixture.report(RegisterBackend, "a", Outcome::Succeeded)),
        ("status.report.taskID".into(), R::NotOpen)
    );
}

#[test]
fn a_retry_sets_not_before_until_the_attempts_are_used_up() {
    let mut fixture = claimed();
    let retry = |fixture: &mut Fixture| {
        let wait = Some(20);
        let retry = report(fixture.task(CreateMachine), "replicaset-controller/a", Outcome::Retry);
        fixture
            .write(Executor::ReplicasetController, |write| write.report(Report { retry_after_seconds: wait, ..retry }))
    };
    for attempt in 1..3 {
        retry(&mut fixture).unwrap();
        let task = fixture.task(CreateMachine).clone();
        let then = fixture.now + SignedDuration::from_secs(20);
        assert_eq!((task.phase, task.attempts, task.not_before), (TaskPhase::Pending, attempt, Some(Time(then))));
        assert_eq!((&fixture.status().lock, &task.finished_at), (&None, &None));
        fixture.advance(20);
        fixture.claim(CreateMachine, "a").unwrap();
    }
    retry(&mut fixture).unwrap();
    let task = fixture.task(CreateMachine);
    assert_eq!((task.phase, task.attempts, &task.not_before), (TaskPhase::Failed, 3, &None));
    assert_eq!((&task.finished_at, &fixture.status().lock), (&Some(Time(fixture.now)), &None));
    assert_eq!(fixture.steps(), "InstallPackages + RegisterBackend", "what is behind it waits");
    assert_eq!(reason(fixture.claim(InstallPackages, "a")), R::NotOpen);
}

#[test]
fn a_retry_of_a_task_without_a_lock_counts_attempts() {
    let mut fixture = unlocked();
    for attempt in 1..3 {
        fixture.report(RegisterBackend, "a", Outcome::Retry).unwrap();
        let task = fixture.task(RegisterBackend);
        assert_eq!((task.phase, task.attempts), (TaskPhase::Pending, attempt));
        assert_eq!(task.not_before, Some(Time(fixture.now)), "no time means at once");
    }
    fixture.report(RegisterBackend, "a", Outcome::Running).unwrap();
    assert_eq!((fixture.task(RegisterBackend).attempts, &fixture.task(RegisterBackend).not_before), (3, &None));
    fixture.report(RegisterBackend, "a", Outcome::Retry).unwrap();
    assert_eq!(fixture.phase(RegisterBackend), TaskPhase::Failed);
}

#[test]
fn a_negative_retry_delay_is_no_delay() {
    let mut fixture = unlocked();
    let retry = report(fixture.task(RegisterBackend), "lb-controller/a", Outcome::Retry);
    fixture
        .write(Executor::LbController, |write| write.report(Report { retry_after_seconds: Some(-5), ..retry }))
        .unwrap();
    assert_eq!(fixture.task(RegisterBackend).not_before, Some(Time(fixture.now)));
}

#[test]
fn a_failed_report_ends_the_task_at_once() {
    let mut fixture = claimed();
    fixture.report(CreateMachine, "a", Outcome::Failed).unwrap();
    assert_eq!((fixture.phase(CreateMachine), fixture.task(CreateMachine).attempts), (TaskPhase::Failed, 1));
    fixture.acknowledge();
    assert_eq!(fixture.phase(CreateMachine), TaskPhase::Failed, "nobody asked for another try");
    let failed = fixture.status().tasks.iter().filter(|task| task.kind == CreateMachine).count();
    assert_eq!(failed, 1);
}

#[test]
fn a_report_on_a_cancelled_task_is_refused_but_its_facts_are_accepted() {
    let mut fixture = claimed();
    fixture.declare(|spec| spec.offline = true);
    let late =
        fixture.report_with(CreateMachine, "a", Outcome::Succeeded, |write| write.machine(Some(machine("m1", "b1"))));
    assert_eq!(reason(late), R::NotOpen);
    let release = berth_core::api::Claim {
        task_id: fixture.task(CreateMachine).id,
        holder: holder(Executor::ReplicasetController, "a"),
        duration_seconds: 0,
        again: false,
    };
    fixture
        .write(Executor::ReplicasetController, |write| write.machine(Some(machine("m1", "b1"))).claim(release))
        .unwrap();
    assert_eq!(fixture.status().machine, Some(machine("m1", "b1")));
    assert_eq!((&fixture.status().lock, fixture.steps().as_str()), (&None, "DestroyMachine"));
}

#[test]
fn a_report_is_refused_after_another_holder_took_the_lock() {
    let mut fixture = claimed();
    fixture.advance(i64::from(LOCK + CLOCK_MARGIN_SECONDS) + 1);
    fixture.claim(CreateMachine, "b").unwrap();
    assert_eq!(reason(fixture.report(CreateMachine, "a", Outcome::Succeeded)), R::NotHolder);
    fixture
        .report_with(CreateMachine, "b", Outcome::Succeeded, |write| write.machine(Some(machine("m1", "b1"))))
        .unwrap();
    assert_eq!(reason(fixture.report(CreateMachine, "a", Outcome::Succeeded)), R::NotOpen);
}

#[test]
fn a_success_that_the_facts_contradict_is_planned_again() {
    let mut fixture = claimed();
    let first = fixture.task(CreateMachine).id;
    fixture.report(CreateMachine, "a", Outcome::Succeeded).unwrap();
    assert_eq!((fixture.phase(CreateMachine), fixture.task(CreateMachine).id > first), (TaskPhase::Pending, true));
}

#[test]
fn any_instance_may_report_on_a_task_without_a_lock() {
    let mut fixture = Fixture::registering().running().installed().registered().deployed().decided();
    fixture.report(CheckHealth, "a", Outcome::Running).unwrap();
    fixture.report(CheckHealth, "b", Outcome::Failed).unwrap();
    assert_eq!(fixture.phase(CheckHealth), TaskPhase::Failed);
}

#[test]
fn draining_is_visible_in_the_traffic_fact() {
    let mut fixture = Fixture::ready();
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    let fact = berth_testing::traffic(&fixture.server, TrafficPhase::Draining);
    fixture.report_with(HoldTraffic, "a", Outcome::Running, |write| write.traffic(fact)).unwrap();
    assert_eq!(
        (fixture.phase(HoldTraffic), fixture.steps().as_str()),
        (TaskPhase::Running, "HoldTraffic > DeployApp > CheckHealth")
    );
    fixture.perform(HoldTraffic);
    assert_eq!(fixture.steps(), "DeployApp > CheckHealth");
}

#[test]
fn traffic_is_not_released_while_a_lock_is_held() {
    use berth_core::api::{Force, State};
    let mut fixture = Fixture::registering().running().registered().decided();
    fixture.claim(InstallPackages, "a").unwrap();
    let reason_given = "it is fine as it is".to_owned();
    fixture.declare(|spec| {
        spec.force = Some(Force { state: State::Ready, reason: reason_given, by: None, at: None, declaration: None });
    });
    assert_eq!(fixture.steps(), "ReleaseTraffic + BindMonitoring");
    for outcome in [Outcome::Running, Outcome::Succeeded] {
        let early = fixture.report(TaskKind::ReleaseTraffic, "a", outcome);
        assert_eq!(refusal(early), ("status.report.taskID".into(), R::Locked));
    }
    fixture.perform(TaskKind::BindMonitoring);
    let mut expired = fixture.clone();
    expired.advance(i64::from(LOCK + CLOCK_MARGIN_SECONDS) + 1);
    expired.perform(TaskKind::ReleaseTraffic);
    fixture.claim_for(InstallPackages, "a", 0).unwrap();
    fixture.perform(TaskKind::ReleaseTraffic);
}

#[test]
fn an_attempt_that_only_waits_does_not_count_and_says_what_it_waits_for() {
    let mut fixture = Fixture::declaring(|spec| spec.task_attempts = 1).decided();
    for _ in 0..3 {
        fixture.claim(CreateMachine, "a").unwrap();
        let mut waiting = report(fixture.task(CreateMachine), "replicaset-controller/a", Outcome::Waiting);
        waiting.message = "Secret shop/db is missing".into();
        waiting.retry_after_seconds = Some(15);
        fixture.write(Executor::ReplicasetController, |write| write.report(waiting)).unwrap();
        let task = fixture.task(CreateMachine);
        assert_eq!((task.phase, task.attempts), (TaskPhase::Pending, 0));
        assert_eq!(task.not_before, Some(Time(fixture.now + SignedDuration::from_secs(15))));
        assert_eq!(fixture.status().lock, None);
        let waiting_for = "CreateMachine by replicaset-controller: Secret shop/db is missing";
        assert_eq!(fixture.waiting_for(), waiting_for);
        fixture.advance(15);
    }
    fixture.claim(CreateMachine, "a").unwrap();
    assert_eq!(fixture.waiting_for(), "CreateMachine by replicaset-controller");
}
