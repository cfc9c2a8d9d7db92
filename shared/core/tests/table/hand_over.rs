//! The hand-over of the lock with a report of success.

use berth_core::{
    api::{Claim, Executor, GatePoint, Outcome, Report, TaskKind, TaskPhase},
    lifecycle::RefusalReason,
};
use berth_testing::{Fixture, holder, refusal, report};

use RefusalReason as R;
use TaskKind::{CreateMachine, DeployApp, InstallPackages};

/// The instances that a success names.
const SUCCESSORS: [&str; 2] = ["deployment-controller/d", "replicaset-controller/r"];

/// A report of success by the task's executor, which names who may go on.
fn succeed(fixture: &mut Fixture, kind: TaskKind, successors: &[&str]) {
    let task = fixture.task(kind).clone();
    let executor = if kind == TaskKind::Gate { Executor::ReplicasetController } else { task.executor() };
    let holder = holder(executor, "a");
    let successors = successors.iter().map(ToString::to_string).collect();
    let report = Report { successors, ..report(&task, &holder, Outcome::Succeeded) };
    let server = fixture.server.clone();
    fixture.write(executor, |write| berth_testing::facts_of(kind, &server, "b1", write).report(report)).unwrap();
}

#[test]
fn a_success_hands_the_lock_over_to_the_executor_of_the_next_task() {
    let mut fixture = Fixture::new().running().decided();
    fixture.claim(InstallPackages, "a").unwrap();
    succeed(&mut fixture, InstallPackages, &SUCCESSORS);
    let (lock, task) = (fixture.server.lock().unwrap().clone(), fixture.task(DeployApp).clone());
    assert_eq!((lock.holder.as_str(), lock.task_id, lock.duration_seconds), ("deployment-controller/d", task.id, 30));
    assert_eq!((task.phase, task.attempts), (TaskPhase::Running, 1));
    assert!(!fixture.status().app.as_ref().is_some_and(|app| app.verified), "it may have taken effect from now on");
    // Its report is its first write.
    fixture.report(DeployApp, "d", Outcome::Succeeded).unwrap();
    assert!(fixture.server.lock().is_none());
}

#[test]
fn a_lock_that_was_handed_over_to_nobody_who_works_expires() {
    let mut fixture = Fixture::new().running().decided();
    fixture.claim(InstallPackages, "a").unwrap();
    succeed(&mut fixture, InstallPackages, &SUCCESSORS);
    assert_eq!(refusal(fixture.claim(DeployApp, "other")).1, R::Locked);
    fixture.advance(91);
    fixture.claim(DeployApp, "other").unwrap();
    assert_eq!(fixture.task(DeployApp).attempts, 2);
}

#[test]
fn a_lock_is_not_handed_over_where_the_next_task_must_not_begin_or_belongs_to_nobody_who_is_named() {
    let installed = |gate: bool, successors: &[&str]| {
        let fixture = Fixture::new().running();
        let mut fixture = if gate { fixture.gate(GatePoint::DeployApp) } else { fixture }.decided();
        fixture.claim(InstallPackages, "a").unwrap();
        succeed(&mut fixture, InstallPackages, successors);
        assert_eq!(fixture.phase(DeployApp), TaskPhase::Pending);
        fixture
    };
    let gated = installed(true, &SUCCESSORS);
    assert!(gated.server.lock().is_none(), "a person decides first");
    for named in [&[][..], &["replicaset-controller/r"], &["deployment-controller/"], &["lb-controller/x", "nonsense"]]
    {
        assert!(installed(false, named).server.lock().is_none(), "{named:?}");
    }
}

#[test]
fn traffic_that_is_held_hands_the_lock_over_only_when_nothing_else_is_open_before() {
    let mut fixture = Fixture::ready();
    fixture.declare(|spec| spec.app.as_mut().unwrap().revision = Some("r2".into()));
    succeed(&mut fixture, TaskKind::HoldTraffic, &SUCCESSORS);
    assert_eq!(fixture.phase(DeployApp), TaskPhase::Running);
    let mut retired = Fixture::ready();
    retired.declare(|spec| spec.offline = true);
    succeed(&mut retired, TaskKind::HoldTraffic, &SUCCESSORS);
    assert!(retired.server.lock().is_none(), "its monitoring is still bound");
    succeed(&mut retired, TaskKind::RemoveBackend, &SUCCESSORS);
    succeed(&mut retired, TaskKind::UnbindMonitoring, &SUCCESSORS);
    assert_eq!(retired.server.lock().unwrap().holder, "replicaset-controller/r");
}

/// A report whose answer was lost is sent again, refused, and followed by a release. The lock is that of the next task by then.
#[test]
fn the_release_of_one_task_leaves_the_lock_that_was_handed_over_for_the_next() {
    let mut fixture = Fixture::new().running().decided();
    fixture.claim(InstallPackages, "a").unwrap();
    let reported = fixture.task(InstallPackages).id;
    succeed(&mut fixture, InstallPackages, &["deployment-controller/a"]);
    let release = |task_id| Claim {
        task_id,
        holder: holder(Executor::DeploymentController, "a"),
        duration_seconds: 0,
        again: false,
    };
    let late = release(reported);
    fixture.write(Executor::DeploymentController, |write| write.claim(late)).unwrap();
    let task = fixture.task(DeployApp).clone();
    assert_eq!(fixture.server.lock().map(|lock| lock.task_id), Some(task.id));
    assert_eq!(task.phase, TaskPhase::Running);
    fixture.write(Executor::DeploymentController, |write| write.claim(release(task.id))).unwrap();
    assert_eq!((fixture.server.lock(), fixture.phase(DeployApp)), (None, TaskPhase::Pending));
}

/// The claim of CreateMachine brings the place where the machine is going to be.
#[test]
fn creation_is_never_handed_over() {
    let mut fixture = Fixture::new().gate(GatePoint::CreateMachine).decided();
    succeed(&mut fixture, TaskKind::Gate, &SUCCESSORS);
    assert_eq!((fixture.phase(CreateMachine), fixture.server.lock()), (TaskPhase::Pending, None));
}
