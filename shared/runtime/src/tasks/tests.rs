//! Runs of tasks against the real rules of the webhook, with a network that fails.

use berth_core::api::{Executor, Gate, GatePoint, Lock, MachineFact, MachinePhase, Task, TaskPhase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Context, ServerCache, WriteError,
    testing::{FakeApi, Fault, LOCK},
};

fn machine() -> MachineFact {
    MachineFact {
        phase: MachinePhase::Running,
        id: Some("m-1".into()),
        address: Some("127.1.0.1".into()),
        ssh: None,
        boot_id: None,
        created_at: None,
    }
}

fn created() -> Done {
    Done::succeeded("created").with_facts(|write| write.machine(Some(machine())))
}

fn task(api: &FakeApi, kind: TaskKind) -> Task {
    api.server().status.unwrap().tasks.into_iter().rfind(|t| t.kind == kind).unwrap()
}

fn first(api: &FakeApi) -> Task {
    task(api, TaskKind::CreateMachine)
}

fn lock(api: &FakeApi) -> Option<Lock> {
    api.server().status.unwrap().lock
}

async fn runner(api: &FakeApi, instance: &str) -> (Context, TaskRunner) {
    let ctx = api.context(instance);
    let servers = ServerCache::start(&ctx);
    servers.ready().await;
    let runner = TaskRunner::new(&ctx, &servers);
    (ctx, runner)
}

/// Work that stops only when it is told to.
async fn until_cancelled(cancel: CancellationToken) -> Done {
    cancel.cancelled().await;
    Done::retry("stopped").with_facts(|write| write.machine(Some(machine())))
}

/// Gives the others, and the network, time to do what they can do at once.
async fn settle() {
    sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_is_claimed_done_and_reported_with_two_writes() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let seen = api.clone();
    let ran = runner
        .run(&api.server(), &first(&api), |server, _| async move {
            let phase = server.status.as_ref().unwrap().machine.as_ref().unwrap().phase;
            assert_eq!(phase, MachinePhase::Creating, "work gets the Server as the claim left it");
            assert_eq!(lock(&seen).unwrap().holder, "replicaset-controller/a");
            created()
        })
        .await
        .unwrap();
    let Ran::Reported(server) = ran else { panic!("{ran:?}") };
    assert_eq!(server.status.as_ref().unwrap().machine, Some(machine()));
    assert_eq!((first(&api).phase, first(&api).attempts, lock(&api)), (TaskPhase::Succeeded, 1, None));
    assert_eq!(api.state().patches.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn quick_work_is_reported_once_the_cache_has_brought_its_claim_or_after_a_moment() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.hold_watch(true);
    let begun = tokio::time::Instant::now();
    let ran = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(ran, Ran::Reported(_)), "{ran:?}");
    assert_eq!(begun.elapsed().as_millis() / 10, 25, "a watch that brings nothing holds nobody up for long");

    api.hold_watch(false);
    let next = task(&api, TaskKind::InstallPackages);
    let begun = tokio::time::Instant::now();
    let ran = runner.run(&api.server(), &next, |_, _| async { Done::succeeded("installed") }).await.unwrap();
    assert!(matches!(ran, Ran::Reported(_)) && begun.elapsed().as_millis() < 25, "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn the_next_task_is_claimed_with_the_report() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let ran = runner
        .run(&api.server(), &first(&api), |_, _| async { created().and_claim(TaskKind::InstallPackages) })
        .await
        .unwrap();
    let Ran::Reported(server) = ran else { panic!("{ran:?}") };
    let next = task(&api, TaskKind::InstallPackages);
    assert_eq!((next.phase, lock(&api).unwrap().task_id), (TaskPhase::Running, next.id));
    let ran = runner.run(&server, &next, |_, _| async { Done::retry("mirror is down") }).await.unwrap();
    assert!(matches!(ran, Ran::Reported(_)), "{ran:?}");
    let next = task(&api, TaskKind::InstallPackages);
    assert_eq!((next.phase, next.attempts, next.message.as_str()), (TaskPhase::Pending, 1, "mirror is down"));
    assert!(next.not_before.as_ref().is_some_and(|at| at.0 > api.clock.now()), "the next attempt waits");
    assert_eq!(api.state().patches.len(), 3, "the lock was there already: no second claim");
    let ran = runner.run(&api.server(), &next, |_, _| async { panic!("must wait") }).await.unwrap();
    assert!(matches!(ran, Ran::NotYet(wait) if wait >= Duration::from_secs(1)), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn a_next_task_that_is_not_open_is_left_out_of_the_report() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let seen = api.clone();
    let ran = runner
        .run(&api.server(), &first(&api), |_, _| async move {
            let gate = Gate { before: GatePoint::InstallPackages, policy: None };
            seen.declare(|server| server.spec.gates.push(gate));
            created().and_claim(TaskKind::InstallPackages)
        })
        .await
        .unwrap();
    assert!(matches!(ran, Ran::Reported(_)), "{ran:?}");
    assert_eq!((first(&api).phase, lock(&api)), (TaskPhase::Succeeded, None));
    assert_eq!(api.state().patches.len(), 3, "claim, report with a claim, report");
}

#[tokio::test(start_paused = true)]
async fn a_held_lock_is_waited_for_without_a_write() {
    let api = FakeApi::new();
    let (_ctx, a) = runner(&api, "a").await;
    let (_other, b) = runner(&api, "b").await;
    let (server, task) = (api.server(), first(&api));
    let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
    let (go, end) = (stop.clone(), stopped.clone());
    let holder = tokio::spawn(async move {
        let ran = a.run(&server, &task, |_, _| async move {
            go.cancelled().await;
            created()
        });
        let ran = ran.await;
        end.cancel();
        ran
    });
    settle().await;
    let writes = api.state().patches.len();
    let ran = b.run(&api.server(), &first(&api), |_, _| async { panic!("locked") }).await.unwrap();
    assert!(matches!(ran, Ran::NotYet(wait) if wait + Duration::from_secs(2) > LOCK), "{ran:?}");
    assert_eq!(api.state().patches.len(), writes);
    stop.cancel();
    stopped.cancelled().await;
    assert!(matches!(holder.await.unwrap().unwrap(), Ran::Reported(_)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_claim_does_no_work_and_looks_again() {
    let api = FakeApi::new();
    let (_ctx, b) = runner(&api, "b").await;
    let (stale, task) = (api.server(), first(&api));
    let claim = api.context("a").claim(&task);
    api.write_as(Executor::ReplicasetController, |status| status.claim = Some(claim));
    let ran = b.run(&stale, &task, |_, _| async { panic!("somebody else has the lock") }).await.unwrap();
    assert!(matches!(ran, Ran::NotYet(_)), "{ran:?}");
    assert_eq!(lock(&api).unwrap().holder, "replicaset-controller/a");
}

#[tokio::test(start_paused = true)]
async fn an_expired_lock_is_taken_over() {
    let api = FakeApi::new();
    let claim = api.context("dead").claim(&first(&api));
    api.write_as(Executor::ReplicasetController, |status| status.claim = Some(claim));
    let (_ctx, runner) = runner(&api, "a").await;
    let ran = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    let Ran::NotYet(wait) = ran else { panic!("{ran:?}") };
    sleep(wait).await;
    let ran = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(ran, Ran::Reported(_)), "{ran:?}");
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
    let ran = runner.run(&api.server(), &first(&api), work).await.unwrap();
    assert!(matches!(ran, Ran::Reported(_)), "{ran:?}");
    let state = api.state();
    let at: Vec<u64> = state.patches.iter().map(|(at, _)| (*at - state.patches[0].0).as_secs()).collect();
    assert_eq!(at, [0, 15, 30, 45, 60, 75, 90, 100]);
    drop(state);
    assert_eq!(first(&api).attempts, 1, "a renewal is no attempt");
}

#[tokio::test(start_paused = true)]
async fn a_lost_claim_answer_is_not_a_second_attempt() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.state().faults.push_back(Fault::LostAnswer);
    let error = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap_err();
    assert!(matches!(error, WriteError::Unavailable { .. }), "{error}");
    let ran = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(ran, Ran::Reported(_)), "{ran:?}");
    assert_eq!(first(&api).attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn renewals_outlive_a_short_outage() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.state().faults.extend([Fault::None, Fault::Unavailable, Fault::Unavailable, Fault::Unavailable]);
    let work = |_, _| async {
        sleep(Duration::from_secs(40)).await;
        created()
    };
    let ran = runner.run(&api.server(), &first(&api), work).await.unwrap();
    assert!(matches!(ran, Ran::Reported(_)), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn work_stops_before_a_lock_ends_that_cannot_be_renewed() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let seen = api.clone();
    let error = runner
        .run(&api.server(), &first(&api), |_, cancel| async move {
            let begun = tokio::time::Instant::now();
            seen.state().always = Fault::Silence;
            cancel.cancelled().await;
            assert!(begun.elapsed() < LOCK, "stopped after {:?}", begun.elapsed());
            created()
        })
        .await
        .unwrap_err();
    assert!(matches!(error, WriteError::Unavailable { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_task_stops_its_work_and_leaves_facts_and_a_free_lock() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let seen = api.clone();
    let begun = tokio::time::Instant::now();
    let ran = runner
        .run(&api.server(), &first(&api), |_, cancel| async move {
            seen.declare(|server| server.spec.offline = true);
            until_cancelled(cancel).await
        })
        .await
        .unwrap();
    assert!(matches!(&ran, Ran::Stopped { why } if why.contains("Cancelled")), "{ran:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "seen in the cache, not at the renewal");
    assert_eq!((first(&api).phase, lock(&api)), (TaskPhase::Cancelled, None));
    assert_eq!(api.server().status.unwrap().machine, Some(machine()), "what is true was written");
}

#[tokio::test(start_paused = true)]
async fn a_refused_report_leaves_facts_and_a_free_lock() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let seen = api.clone();
    // The work ends before it sees that it is no longer wanted.
    let ran = runner
        .run(&api.server(), &first(&api), |_, _| async move {
            seen.declare(|server| server.spec.offline = true);
            created()
        })
        .await
        .unwrap();
    assert!(matches!(&ran, Ran::Stopped { why } if why.contains("already Cancelled")), "{ran:?}");
    assert_eq!((first(&api).phase, lock(&api)), (TaskPhase::Cancelled, None));
    assert_eq!(api.server().status.unwrap().machine, Some(machine()));
}

#[tokio::test(start_paused = true)]
async fn a_lock_lost_mid_work_stops_it_and_nothing_is_written_over_the_new_holder() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    let seen = api.clone();
    let ran = runner
        .run(&api.server(), &first(&api), |_, cancel| async move {
            sleep(Duration::from_secs(2)).await;
            let mut server = seen.server();
            let lock = server.status.as_mut().unwrap().lock.as_mut().unwrap();
            lock.holder = "replicaset-controller/b".into();
            (lock.acquired_at, lock.renewed_at) = (Time(seen.clock.now()), Time(seen.clock.now()));
            seen.store(serde_json::to_value(server).unwrap());
            until_cancelled(cancel).await
        })
        .await
        .unwrap();
    assert!(matches!(&ran, Ran::Stopped { why } if why.contains("replicaset-controller/b")), "{ran:?}");
    assert_eq!(lock(&api).unwrap().holder, "replicaset-controller/b");
    assert_eq!(api.server().status.unwrap().machine.unwrap().phase, MachinePhase::Creating, "no stale facts");
}

#[tokio::test(start_paused = true)]
async fn a_report_is_tried_again_while_the_lock_lasts() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.state().faults.extend([Fault::None, Fault::Unavailable, Fault::Silence]);
    let ran = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(ran, Ran::Reported(_)), "{ran:?}");
    assert_eq!((first(&api).phase, api.state().patches.len()), (TaskPhase::Succeeded, 4));
}

#[tokio::test(start_paused = true)]
async fn a_report_whose_answer_was_lost_counts_once() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.state().faults.extend([Fault::None, Fault::LostAnswer]);
    let ran = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(ran, Ran::Stopped { .. }), "the lock is gone with the first report: {ran:?}");
    assert_eq!((first(&api).phase, first(&api).attempts), (TaskPhase::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn shutdown_stops_work_and_frees_the_lock_for_the_next_copy() {
    let api = FakeApi::new();
    let (ctx, runner) = runner(&api, "a").await;
    let (server, task) = (api.server(), first(&api));
    let run = tokio::spawn(async move {
        let work = |_, cancel: CancellationToken| async move {
            cancel.cancelled().await;
            Done::retry("stopped")
        };
        runner.run(&server, &task, work).await
    });
    settle().await;
    ctx.shutdown.cancel();
    let ran = run.await.unwrap().unwrap();
    assert!(matches!(ran, Ran::Stopped { .. }), "{ran:?}");
    assert_eq!((first(&api).phase, lock(&api)), (TaskPhase::Pending, None));
}

#[tokio::test(start_paused = true)]
async fn work_that_does_not_stop_keeps_the_lock_until_it_expires() {
    let api = FakeApi::new();
    let (ctx, runner) = runner(&api, "a").await;
    let (server, task) = (api.server(), first(&api));
    let run = tokio::spawn(async move { runner.run(&server, &task, |_, _| std::future::pending()).await });
    settle().await;
    ctx.shutdown.cancel();
    let begun = tokio::time::Instant::now();
    let ran = run.await.unwrap().unwrap();
    assert!(matches!(ran, Ran::Stopped { .. }), "{ran:?}");
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert!(lock(&api).is_some(), "the machine may still be in somebody's hands");
}
