//! Runs of tasks against the real rules of the webhook, with a network that fails.

use std::time::Duration;

use berth_core::{
    api::{Executor, Gate, GatePoint, Lock, MachineFact, MachinePhase, Task, TaskKind, TaskPhase},
    protocol::{Fact, TaskResult},
};
use berth_testing::{ApiFault, FakeApi, ended_tasks};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Context, ServerCache,
    testing::{LOCK, context},
};

fn machine() -> MachineFact {
    MachineFact {
        phase: MachinePhase::Running,
        provider: Some("p".into()),
        place: Some("here".into()),
        id: Some("m-1".into()),
        address: Some("127.1.0.1".into()),
        ssh: None,
        boot_id: None,
        created_at: None,
    }
}

pub(super) fn created() -> TaskResult {
    TaskResult::succeeded("created").with(Fact::Machine(machine()))
}

pub(super) fn task(api: &FakeApi, kind: TaskKind) -> Task {
    api.server().status.unwrap().tasks.into_iter().rfind(|t| t.kind == kind).unwrap()
}

pub(super) fn first(api: &FakeApi) -> Task {
    task(api, TaskKind::CreateMachine)
}

/// How often the creation of the machine was cancelled.
fn cancelled(api: &FakeApi) -> usize {
    ended_tasks(&api.server().status.unwrap(), TaskKind::CreateMachine, TaskPhase::Cancelled)
}

pub(super) fn lock(api: &FakeApi) -> Option<Lock> {
    api.server().status.unwrap().lock
}

pub(super) async fn runner(api: &FakeApi, instance: &str) -> (Context, TaskRunner) {
    let ctx = context(api, instance);
    let servers = ServerCache::start(&ctx);
    servers.ready().await;
    let runner = TaskRunner::new(&ctx, &servers);
    (ctx, runner)
}

/// Work that stops only when it is cancelled.
async fn until_cancelled(cancel: CancellationToken) -> TaskResult {
    cancel.cancelled().await;
    TaskResult::retry("stopped").with(Fact::Machine(machine()))
}

/// Lets other tasks run until they wait for time to pass.
async fn run_other_tasks() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_takes_two_writes_claim_and_report() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let observer = api.clone();
    let run = runner
        .run(&api.server(), &first(&api), |server, _| async move {
            let phase = server.status.as_ref().unwrap().machine.as_ref().unwrap().phase;
            assert_eq!(phase, MachinePhase::Creating, "work gets the Server as the claim left it");
            assert_eq!(lock(&observer).unwrap().holder, "replicaset-controller/a");
            created()
        })
        .await
        .unwrap();
    let TaskRun::Reported(server) = run else { panic!("{run:?}") };
    assert_eq!(server.status.as_ref().unwrap().machine, Some(machine()));
    assert_eq!((first(&api).phase, first(&api).attempts, lock(&api)), (TaskPhase::Succeeded, 1, None));
    assert_eq!(api.state().patches.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_report_waits_until_the_cache_shows_the_claim_but_not_for_long() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.pause_watch();
    let begun = tokio::time::Instant::now();
    let run = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    assert_eq!(begun.elapsed().as_millis() / 10, 25, "a watch that brings nothing holds nobody up for long");

    api.resume_watch();
    let next = task(&api, TaskKind::InstallPackages);
    let begun = tokio::time::Instant::now();
    let run = runner.run(&api.server(), &next, |_, _| async { TaskResult::succeeded("installed") }).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)) && begun.elapsed().as_millis() < 25, "{run:?}");
}

#[tokio::test(start_paused = true)]
async fn the_next_task_is_claimed_with_the_report() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let run = runner
        .run(&api.server(), &first(&api), |_, _| async { created().and_claim(TaskKind::InstallPackages) })
        .await
        .unwrap();
    let TaskRun::Reported(server) = run else { panic!("{run:?}") };
    let next = task(&api, TaskKind::InstallPackages);
    assert_eq!((next.phase, lock(&api).unwrap().task_id), (TaskPhase::Running, next.id));
    let run = runner.run(&server, &next, |_, _| async { TaskResult::retry("mirror is down") }).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    let next = task(&api, TaskKind::InstallPackages);
    assert_eq!((next.phase, next.attempts, next.message.as_str()), (TaskPhase::Pending, 1, "mirror is down"));
    assert!(next.not_before.as_ref().is_some_and(|at| at.0 > api.now()), "the next attempt waits");
    assert_eq!(api.state().patches.len(), 3, "the lock was there already: no second claim");
    let run = runner.run(&api.server(), &next, |_, _| async { panic!("must wait") }).await.unwrap();
    assert!(matches!(run, TaskRun::NotYet { requeue_after: wait } if wait >= Duration::from_secs(1)), "{run:?}");
}

#[tokio::test(start_paused = true)]
async fn a_next_task_that_is_not_open_is_not_claimed_with_the_report() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let observer = api.clone();
    let run = runner
        .run(&api.server(), &first(&api), |_, _| async move {
            let gate = Gate { before: GatePoint::InstallPackages };
            observer.declare(|server| server.spec.gates.push(gate));
            created().and_claim(TaskKind::InstallPackages)
        })
        .await
        .unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    assert_eq!((first(&api).phase, lock(&api)), (TaskPhase::Succeeded, None));
    assert_eq!(api.state().patches.len(), 3, "claim, report with a claim, report");
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_lock_is_held_is_requeued_without_a_write() {
    let api = FakeApi::new();
    let (_ctx, a) = runner(&api, "a").await;
    let (_other, b) = runner(&api, "b").await;
    let (server, task) = (api.server(), first(&api));
    let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
    let (go, end) = (stop.clone(), stopped.clone());
    let holder = tokio::spawn(async move {
        let run = a.run(&server, &task, |_, _| async move {
            go.cancelled().await;
            created()
        });
        let run = run.await;
        end.cancel();
        run
    });
    run_other_tasks().await;
    let writes = api.state().patches.len();
    let run = b.run(&api.server(), &first(&api), |_, _| async { panic!("locked") }).await.unwrap();
    assert!(matches!(run, TaskRun::NotYet { requeue_after: wait } if wait + Duration::from_secs(2) > LOCK), "{run:?}");
    assert_eq!(api.state().patches.len(), writes);
    stop.cancel();
    stopped.cancelled().await;
    assert!(matches!(holder.await.unwrap().unwrap(), TaskRun::Reported(_)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_claim_is_requeued_without_work() {
    let api = FakeApi::new();
    let (_ctx, b) = runner(&api, "b").await;
    let (stale, task) = (api.server(), first(&api));
    let claim = context(&api, "a").claim(&task);
    api.write_as(Executor::ReplicasetController, |status| status.claim = Some(claim));
    let run = b.run(&stale, &task, |_, _| async { panic!("somebody else has the lock") }).await.unwrap();
    assert!(matches!(run, TaskRun::NotYet { .. }), "{run:?}");
    assert_eq!(lock(&api).unwrap().holder, "replicaset-controller/a");
}

#[tokio::test(start_paused = true)]
async fn an_expired_lock_is_claimed_by_another_instance() {
    let api = FakeApi::new();
    let claim = context(&api, "dead").claim(&first(&api));
    api.write_as(Executor::ReplicasetController, |status| status.claim = Some(claim));
    let (_ctx, runner) = runner(&api, "a").await;
    let run = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    let TaskRun::NotYet { requeue_after: wait } = run else { panic!("{run:?}") };
    sleep(wait).await;
    let run = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    assert_eq!((first(&api).phase, first(&api).attempts), (TaskPhase::Succeeded, 2));
}

#[tokio::test(start_paused = true)]
async fn the_lock_is_renewed_at_half_of_its_duration() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let work = |_, _| async {
        sleep(Duration::from_secs(100)).await;
        created()
    };
    let run = runner.run(&api.server(), &first(&api), work).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    let state = api.state();
    let at: Vec<u64> = state.patches.iter().map(|(at, _)| (*at - state.patches[0].0).as_secs()).collect();
    assert_eq!(at, [0, 15, 30, 45, 60, 75, 90, 100]);
    drop(state);
    assert_eq!(first(&api).attempts, 1, "a renewal is no attempt");
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_counts_one_attempt() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.state().faults.push_back(ApiFault::WrittenWithoutAnswer);
    let error = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let run = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    assert_eq!(first(&api).attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn renewals_survive_a_short_outage() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.state().faults.extend([ApiFault::None, ApiFault::Unavailable, ApiFault::Unavailable, ApiFault::Unavailable]);
    let work = |_, _| async {
        sleep(Duration::from_secs(40)).await;
        created()
    };
    let run = runner.run(&api.server(), &first(&api), work).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
}

#[tokio::test(start_paused = true)]
async fn work_stops_before_a_lock_that_cannot_be_renewed_expires() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let observer = api.clone();
    let error = runner
        .run(&api.server(), &first(&api), |_, cancel| async move {
            let begun = tokio::time::Instant::now();
            observer.state().always = ApiFault::NoAnswer;
            cancel.cancelled().await;
            assert!(begun.elapsed() < LOCK, "stopped after {:?}", begun.elapsed());
            created()
        })
        .await
        .unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_stops_its_work_writes_its_facts_and_releases_the_lock() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let observer = api.clone();
    let begun = tokio::time::Instant::now();
    let run = runner
        .run(&api.server(), &first(&api), |_, cancel| async move {
            observer.declare(|server| server.spec.offline = true);
            until_cancelled(cancel).await
        })
        .await
        .unwrap();
    assert!(matches!(&run, TaskRun::Stopped { message } if message.contains("Cancelled")), "{run:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "observer in the cache, not at the renewal");
    assert_eq!((cancelled(&api), lock(&api)), (1, None));
    assert_eq!(api.server().status.unwrap().machine, Some(machine()), "what is true was written");
}

#[tokio::test(start_paused = true)]
async fn work_whose_effect_may_still_come_keeps_the_lock_until_it_expires() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let observer = api.clone();
    let run = runner
        .run(&api.server(), &first(&api), |_, cancel| async move {
            observer.declare(|server| server.spec.offline = true);
            until_cancelled(cancel).await.and_may_still_run()
        })
        .await
        .unwrap();
    assert!(matches!(&run, TaskRun::Stopped { message } if message.contains("Cancelled")), "{run:?}");
    assert_eq!(first(&api).phase, TaskPhase::Cancelled);
    assert!(lock(&api).is_some(), "the machine has not said that nothing runs");
}

#[tokio::test(start_paused = true)]
async fn a_refused_report_still_writes_its_facts_and_releases_the_lock() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let observer = api.clone();
    // The work ends before it notices that it was cancelled.
    let run = runner
        .run(&api.server(), &first(&api), |_, _| async move {
            observer.declare(|server| server.spec.offline = true);
            created()
        })
        .await
        .unwrap();
    assert!(matches!(&run, TaskRun::Stopped { message } if message.contains("already Cancelled")), "{run:?}");
    assert_eq!((cancelled(&api), lock(&api)), (1, None));
    assert_eq!(api.server().status.unwrap().machine, Some(machine()));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_stops_the_work_and_nothing_is_written() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let observer = api.clone();
    let run = runner
        .run(&api.server(), &first(&api), |_, cancel| async move {
            sleep(Duration::from_secs(2)).await;
            let mut server = observer.server();
            let lock = server.status.as_mut().unwrap().lock.as_mut().unwrap();
            lock.holder = "replicaset-controller/b".into();
            (lock.acquired_at, lock.renewed_at) = (Time(observer.now()), Time(observer.now()));
            observer.store(serde_json::to_value(server).unwrap());
            until_cancelled(cancel).await
        })
        .await
        .unwrap();
    assert!(matches!(&run, TaskRun::Stopped { message } if message.contains("replicaset-controller/b")), "{run:?}");
    assert_eq!(lock(&api).unwrap().holder, "replicaset-controller/b");
    assert_eq!(api.server().status.unwrap().machine.unwrap().phase, MachinePhase::Creating, "no stale facts");
}

#[tokio::test(start_paused = true)]
async fn shutdown_stops_the_work_and_releases_the_lock() {
    let api = FakeApi::new();
    let (ctx, runner) = runner(&api, "a").await;
    let (server, task) = (api.server(), first(&api));
    let run = tokio::spawn(async move {
        let work = |_, cancel: CancellationToken| async move {
            cancel.cancelled().await;
            TaskResult::retry("stopped")
        };
        runner.run(&server, &task, work).await
    });
    run_other_tasks().await;
    ctx.shutdown.cancel();
    let run = run.await.unwrap().unwrap();
    assert!(matches!(run, TaskRun::Stopped { .. }), "{run:?}");
    assert_eq!((first(&api).phase, lock(&api)), (TaskPhase::Pending, None));
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_stop_keeps_its_lock_until_it_expires() {
    let api = FakeApi::new();
    let (ctx, runner) = runner(&api, "a").await;
    let (server, task) = (api.server(), first(&api));
    let run = tokio::spawn(async move { runner.run(&server, &task, |_, _| std::future::pending()).await });
    run_other_tasks().await;
    ctx.shutdown.cancel();
    let begun = tokio::time::Instant::now();
    let run = run.await.unwrap().unwrap();
    assert!(matches!(run, TaskRun::Stopped { .. }), "{run:?}");
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert!(lock(&api).is_some(), "the machine may still be in somebody's hands");
}

#[tokio::test(start_paused = true)]
async fn work_that_was_stopped_longer_than_its_lock_lasts_begins_no_other_step() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let ((answer, answered), server, task) = (tokio::sync::oneshot::channel(), api.server(), first(&api));
    let mut run = std::pin::pin!(runner.run(&server, &task, |_, cancel| async move {
        let _ = answered.await;
        assert!(cancel.is_cancelled(), "the next step begins without the lock");
        created()
    }));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut run).await.is_err(), "the first step takes longer");
    // Nothing of the process runs meanwhile, and then everything is due at once.
    tokio::time::advance(LOCK * 4).await;
    answer.send(()).unwrap();
    assert!(matches!(run.await.unwrap(), TaskRun::Stopped { .. }));
}
