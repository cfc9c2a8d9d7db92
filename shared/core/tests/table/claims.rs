//! Claims: who may take, renew and release the lock, and when.

use berth_core::{
    CLOCK_MARGIN_SECONDS,
    api::{Claim, Executor, Gate, GatePoint, Lock, MachinePhase, Outcome, TaskKind, TaskPhase},
    lifecycle::RefusalReason,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use berth_testing::{Fixture, LOCK, ended_tasks, holder, person, reason, refusal};

use RefusalReason as R;
use TaskKind::{CreateMachine, DeployApp, InstallPackages, RegisterBackend};

/// A Server whose open task is CreateMachine.
fn new() -> Fixture {
    Fixture::registering().decided()
}

fn lock(fixture: &Fixture) -> &Lock {
    fixture.status().lock.as_ref().unwrap()
}

#[test]
fn a_claim_takes_the_lock_and_begins_an_attempt() {
    let mut fixture = new();
    fixture.advance(7);
    fixture.claim(CreateMachine, "a").unwrap();
    let task = fixture.task(CreateMachine).clone();
    let now = Time(fixture.now);
    assert_eq!((task.phase, task.attempts, &task.started_at), (TaskPhase::Running, 1, &Some(now.clone())));
    let expected = Lock {
        holder: "replicaset-controller/a".into(),
        task_id: task.id,
        acquired_at: now.clone(),
        renewed_at: now,
        duration_seconds: LOCK,
    };
    assert_eq!(lock(&fixture), &expected);
    assert_eq!(fixture.status().claim, None);
}

#[test]
fn claiming_create_machine_records_that_a_machine_may_exist() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    assert_eq!(fixture.status().machine.as_ref().unwrap().phase, MachinePhase::Creating);
    let mut stopped = Fixture::registering().running();
    stopped = stopped.fact(|status| status.machine.as_mut().unwrap().phase = MachinePhase::Stopped).decided();
    let known = stopped.status().machine.clone();
    stopped.claim(CreateMachine, "a").unwrap();
    assert_eq!(stopped.status().machine, known);
    let mut other = Fixture::registering().running().decided();
    let known = other.status().machine.clone();
    other.claim(InstallPackages, "a").unwrap();
    assert_eq!(other.status().machine, known);
}

#[test]
fn claiming_destroy_machine_records_that_the_machine_may_be_gone() {
    let mut fixture = Fixture::registering().running().decided();
    fixture = fixture.fact(|status| status.reachability = Some(berth_testing::unreachable(60, berth_testing::start())));
    fixture.declare(|spec| spec.offline = true);
    let known = fixture.status().machine.clone().unwrap();
    fixture.claim(TaskKind::DestroyMachine, "a").unwrap();
    let machine = fixture.status().machine.clone().unwrap();
    assert_eq!((machine.phase, &machine.id), (MachinePhase::Stopped, &known.id));
    assert_eq!(fixture.status().reachability, None);
    // When the retirement is cancelled, CreateMachine finds the machine or creates it again.
    fixture.declare(|spec| spec.offline = false);
    assert_eq!(fixture.steps(), "CreateMachine > InstallPackages + RegisterBackend");
}

#[test]
fn the_first_write_may_claim_the_first_task() {
    let mut fixture = Fixture::registering();
    let claim =
        Claim { task_id: 1, holder: holder(Executor::ReplicasetController, "a"), duration_seconds: LOCK, again: false };
    fixture.write(Executor::ReplicasetController, |write| write.acknowledge().claim(claim)).unwrap();
    assert_eq!((lock(&fixture).task_id, fixture.phase(CreateMachine)), (1, TaskPhase::Running));
}

#[test]
fn a_report_may_claim_the_task_that_it_opens() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    let next = fixture.task(InstallPackages).id;
    let claim = Claim {
        task_id: next,
        holder: holder(Executor::ReplicasetController, "a"),
        duration_seconds: LOCK,
        again: false,
    };
    let fact = berth_testing::machine("m1", "b1");
    fixture
        .report_with(CreateMachine, "a", Outcome::Succeeded, |write| write.machine(Some(fact)).claim(claim))
        .unwrap();
    assert_eq!((lock(&fixture).task_id, fixture.phase(InstallPackages)), (next, TaskPhase::Running));
}

#[test]
fn claims_of_another_executors_task_are_refused() {
    let mut fixture = new();
    let task_id = fixture.task(CreateMachine).id;
    for executor in [Executor::DeploymentController, Executor::LbController, Executor::MonitorController] {
        let claim = Claim { task_id, holder: holder(executor, "a"), duration_seconds: LOCK, again: false };
        let result = fixture.write(executor, |write| write.claim(claim));
        assert_eq!(refusal(result), ("status.claim.taskID".into(), R::WrongExecutor));
    }
    let claim =
        Claim { task_id, holder: holder(Executor::ReplicasetController, "a"), duration_seconds: LOCK, again: false };
    let result = fixture.write_as(&person("ann"), |write| write.claim(claim));
    assert_eq!(refusal(result), ("status.claim".into(), R::WrongExecutor));
    assert_eq!(fixture.status().lock, None);
}

#[test]
fn a_holder_must_be_an_instance_of_the_writer() {
    let mut fixture = new();
    let task_id = fixture.task(CreateMachine).id;
    for bad in
        ["a", "", "replicaset-controller", "replicaset-controller/", "lb-controller/a", "replicaset-controllers/a"]
    {
        let claim = Claim { task_id, holder: bad.into(), duration_seconds: LOCK, again: false };
        let result = fixture.write(Executor::ReplicasetController, |write| write.claim(claim));
        assert_eq!(refusal(result), ("status.claim.holder".into(), R::Malformed), "{bad:?}");
    }
}

#[test]
fn a_negative_lock_duration_is_refused() {
    let result = new().claim_for(CreateMachine, "a", -1);
    assert_eq!(refusal(result), ("status.claim.durationSeconds".into(), R::Malformed));
}

#[test]
fn an_unknown_task_cannot_be_claimed() {
    let claim = Claim {
        task_id: 99,
        holder: holder(Executor::ReplicasetController, "a"),
        duration_seconds: LOCK,
        again: false,
    };
    let result = new().write(Executor::ReplicasetController, |write| write.claim(claim));
    assert_eq!(refusal(result), ("status.claim.taskID".into(), R::UnknownTask));
}

#[test]
fn claims_of_tasks_without_a_lock_are_refused() {
    let mut fixture = new();
    fixture.perform(CreateMachine);
    assert_eq!(refusal(fixture.claim(RegisterBackend, "a")), ("status.claim.taskID".into(), R::Malformed));
}

#[test]
fn other_holders_cannot_claim_a_locked_server() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.advance(i64::from(LOCK + CLOCK_MARGIN_SECONDS));
    assert_eq!(refusal(fixture.claim(CreateMachine, "b")), ("status.claim.taskID".into(), R::Locked));
    assert_eq!(lock(&fixture).holder, "replicaset-controller/a");
}

#[test]
fn an_expired_lock_can_be_claimed_by_another_holder() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    let begun = fixture.task(CreateMachine).started_at.clone();
    fixture.advance(i64::from(LOCK + CLOCK_MARGIN_SECONDS) + 1);
    fixture.claim(CreateMachine, "b").unwrap();
    let task = fixture.task(CreateMachine);
    assert_eq!((task.attempts, &task.started_at), (2, &begun));
    assert_eq!(
        (lock(&fixture).holder.as_str(), lock(&fixture).acquired_at.0),
        ("replicaset-controller/b", fixture.now)
    );
    assert_eq!(reason(fixture.report(CreateMachine, "a", Outcome::Succeeded)), R::NotHolder);
    fixture.report(CreateMachine, "b", Outcome::Running).unwrap();
}

/// Another copy of the webhook may have a clock that is behind.
#[test]
fn the_time_of_a_lock_never_moves_backwards() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    let renewed_at = lock(&fixture).renewed_at.clone();
    fixture.advance(-20);
    fixture.claim(CreateMachine, "a").unwrap();
    assert_eq!(lock(&fixture).renewed_at, renewed_at);
    fixture.declare(|spec| spec.offline = true);
    fixture.claim(TaskKind::DestroyMachine, "a").unwrap();
    assert_eq!((&lock(&fixture).acquired_at, &lock(&fixture).renewed_at), (&renewed_at, &renewed_at));
}

#[test]
fn claiming_the_same_task_again_renews_the_lock() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    let acquired = lock(&fixture).acquired_at.clone();
    fixture.advance(15);
    fixture.claim_for(CreateMachine, "a", 60).unwrap();
    let renewed = lock(&fixture).clone();
    assert_eq!((renewed.acquired_at, renewed.renewed_at.0), (acquired, fixture.now));
    assert_eq!((renewed.duration_seconds, fixture.task(CreateMachine).attempts), (60, 1));
    fixture.advance(60);
    assert_eq!(reason(fixture.claim(CreateMachine, "b")), R::Locked);
}

#[test]
fn an_expired_lock_can_be_renewed_until_another_holder_claims_it() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.advance(1000);
    fixture.claim(CreateMachine, "a").unwrap();
    assert_eq!((fixture.task(CreateMachine).attempts, lock(&fixture).renewed_at.0), (1, fixture.now));
}

#[test]
fn releasing_the_lock_makes_the_task_pending() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.claim_for(CreateMachine, "b", 0).unwrap();
    assert_eq!(lock(&fixture).holder, "replicaset-controller/a", "nobody releases another's lock");
    fixture.claim_for(CreateMachine, "a", 0).unwrap();
    assert_eq!((&fixture.status().lock, fixture.phase(CreateMachine)), (&None, TaskPhase::Pending));
    fixture.claim_for(CreateMachine, "a", 0).unwrap();
    fixture.claim(CreateMachine, "b").unwrap();
    assert_eq!(fixture.task(CreateMachine).attempts, 2);
}

#[test]
fn releasing_the_lock_keeps_a_finished_task_finished() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.declare(|spec| spec.offline = true);
    assert_eq!(
        (fixture.phase(CreateMachine), lock(&fixture).holder.as_str()),
        (TaskPhase::Cancelled, "replicaset-controller/a")
    );
    let other = fixture.task(TaskKind::DestroyMachine).id;
    assert_eq!(
        reason(fixture.claim(TaskKind::DestroyMachine, "b")),
        R::Locked,
        "whoever is at the machine stops first"
    );
    fixture.claim_for(CreateMachine, "a", 0).unwrap();
    assert_eq!(
        (ended_tasks(fixture.status(), CreateMachine, TaskPhase::Cancelled), &fixture.status().lock),
        (1, &None)
    );
    assert_eq!(fixture.status().tasks.iter().filter(|task| task.kind == CreateMachine).count(), 0, "it is history");
    fixture.claim(TaskKind::DestroyMachine, "b").unwrap();
    assert_eq!(lock(&fixture).task_id, other);
}

#[test]
fn the_lock_of_a_cancelled_task_cannot_be_renewed() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.declare(|spec| spec.offline = true);
    let taken = lock(&fixture).renewed_at.clone();
    fixture.advance(10);
    assert_eq!(reason(fixture.claim(CreateMachine, "a")), R::NotOpen);
    assert_eq!(lock(&fixture).renewed_at, taken);
}

#[test]
fn the_holder_may_claim_another_task_of_its_own() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    fixture.declare(|spec| spec.offline = true);
    fixture.claim(TaskKind::DestroyMachine, "a").unwrap();
    assert_eq!(lock(&fixture).task_id, fixture.task(TaskKind::DestroyMachine).id);
}

#[test]
fn a_task_that_is_not_open_cannot_be_claimed() {
    assert_eq!(reason(new().claim(InstallPackages, "a")), R::NotOpen);
    let mut done = new();
    done.perform(CreateMachine);
    assert_eq!(reason(done.claim(CreateMachine, "a")), R::NotOpen);
    let mut gated = Fixture::registering().gate(GatePoint::CreateMachine).decided();
    assert_eq!(reason(gated.claim(CreateMachine, "a")), R::NotOpen);
    gated.perform(TaskKind::Gate);
    gated.claim(CreateMachine, "a").unwrap();
}

#[test]
fn a_task_after_a_failed_one_cannot_be_claimed() {
    let mut gated = Fixture::registering().gate(GatePoint::CreateMachine).decided();
    gated.report(TaskKind::Gate, "a", Outcome::Failed).unwrap();
    assert_eq!(reason(gated.claim(CreateMachine, "a")), R::NotOpen);
    let mut sideways = Fixture::registering().running().decided();
    sideways.report(RegisterBackend, "a", Outcome::Failed).unwrap();
    sideways.claim(InstallPackages, "a").unwrap();
}

#[test]
fn a_claim_before_not_before_is_refused() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    let report = berth_core::api::Report {
        retry_after_seconds: Some(10),
        ..berth_testing::report(fixture.task(CreateMachine), "replicaset-controller/a", Outcome::Retry)
    };
    fixture.write(Executor::ReplicasetController, |write| write.report(report)).unwrap();
    fixture.advance(9);
    assert_eq!(reason(fixture.claim(CreateMachine, "a")), R::NotOpen);
    fixture.advance(1);
    fixture.claim(CreateMachine, "a").unwrap();
    assert_eq!(fixture.task(CreateMachine).not_before, None);
}

/// By `acquiredAt` a holder's write names the attempt that it belongs to.
#[test]
fn another_attempt_under_the_same_lock_is_told_apart_also_within_a_second() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    let (task, first) = (fixture.task(CreateMachine).clone(), lock(&fixture).clone());
    let again = || Claim { task_id: task.id, holder: first.holder.clone(), duration_seconds: LOCK, again: true };
    fixture.write(Executor::ReplicasetController, |write| write.claim(again())).unwrap();
    let second = lock(&fixture).clone();
    assert!(second.acquired_at.0.as_second() > first.acquired_at.0.as_second());
    assert_eq!((&second.renewed_at, &second.holder), (&second.acquired_at, &first.holder));
    assert_eq!(fixture.task(CreateMachine), &task, "no other attempt is counted");
    fixture.advance(7);
    fixture.write(Executor::ReplicasetController, |write| write.claim(again())).unwrap();
    assert_eq!(lock(&fixture).acquired_at, Time(fixture.now));
    fixture.write(Executor::ReplicasetController, |write| write.claim(Claim { again: false, ..again() })).unwrap();
    assert_eq!(lock(&fixture).acquired_at, Time(fixture.now), "a renewal changes nothing about that");
}

#[test]
fn a_gate_that_is_declared_while_a_task_runs_stops_another_attempt_and_not_the_work() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    let (task_id, holder) = (fixture.task(CreateMachine).id, lock(&fixture).holder.clone());
    fixture.declare(|spec| spec.gates = vec![Gate { before: GatePoint::CreateMachine }]);
    let claim = |again| Claim { task_id, holder: holder.clone(), duration_seconds: LOCK, again };
    let another = fixture.write(Executor::ReplicasetController, |write| write.claim(claim(true)));
    assert_eq!(reason(another), R::NotOpen);
    fixture.write(Executor::ReplicasetController, |write| write.claim(claim(false))).unwrap();
    fixture.report(CreateMachine, "a", Outcome::Succeeded).unwrap();
}

#[test]
fn a_finished_task_leaves_the_lock_to_the_next_executor() {
    let mut fixture = new();
    fixture.perform(CreateMachine);
    fixture.perform(InstallPackages);
    assert_eq!(fixture.status().lock, None);
    fixture.perform(RegisterBackend);
    fixture.claim(DeployApp, "x").unwrap();
    assert_eq!(lock(&fixture).holder, "deployment-controller/x");
}

#[test]
fn a_refused_claim_discards_the_facts_of_its_write() {
    let mut fixture = new();
    fixture.claim(CreateMachine, "a").unwrap();
    let before = fixture.server.clone();
    let claim = Claim {
        task_id: fixture.task(CreateMachine).id,
        holder: holder(Executor::ReplicasetController, "b"),
        duration_seconds: LOCK,
        again: false,
    };
    let fact = berth_testing::machine("m1", "b1");
    let result = fixture.write(Executor::ReplicasetController, |write| write.machine(Some(fact)).claim(claim));
    assert_eq!(reason(result), R::Locked);
    assert_eq!(fixture.server, before);
}
