//! Tasks whose lock was handed over with the report on the task before.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Executor, Lock, Server, Task, TaskKind, TaskPhase},
    protocol::TaskResult,
};
use berth_testing::{ApiFault, FakeApi};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use tokio::{sync::oneshot, time::sleep};

use super::{
    held_lock::HeldLocks,
    tests::{created, first, lock, runner, task},
};
use crate::{Context, ManualClock, ServerCache, TaskRun, TaskRunner, TurnOrder};

/// A Server whose InstallPackages has been handed over to `holder`.
async fn handed_over(holder: &str) -> (FakeApi, Task) {
    let api = FakeApi::new();
    let (ctx, runner) = runner(&api, "before").await;
    ctx.turns.decided_by(Names(holder.to_owned()));
    runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    let next = task(&api, TaskKind::InstallPackages);
    (api, next)
}

struct Names(String);

impl TurnOrder for Names {
    fn is_mine(&self, _: &str) -> bool {
        true
    }

    fn holder(&self, executor: Executor, _: &str) -> Option<String> {
        (executor == Executor::ReplicasetController).then(|| self.0.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_handed_over_takes_one_write() {
    let (api, next) = handed_over("replicaset-controller/a").await;
    assert_eq!((next.phase, lock(&api).unwrap().holder.as_str()), (TaskPhase::Running, "replicaset-controller/a"));
    let written = api.state().patches.len();
    let (_other_ctx, other) = runner(&api, "b").await;
    let run = other.run(&api.server(), &next, |_, _| async { panic!("not its lock") }).await.unwrap();
    assert!(matches!(run, TaskRun::NotYet { .. }), "{run:?}");
    let (_ctx, runner) = runner(&api, "a").await;
    let run = runner.run(&api.server(), &next, |_, _| async { TaskResult::succeeded("installed") }).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    assert_eq!(api.state().patches.len() - written, 1);
    assert_eq!(lock(&api), None);
}

/// Work that did not stop may still go on: only a claim, which the webhook decides on, begins it again.
#[tokio::test(start_paused = true)]
async fn work_is_begun_only_once_under_a_lock_that_was_handed_over() {
    let (api, next) = handed_over("replicaset-controller/a").await;
    let (ctx, runner) = runner(&api, "a").await;
    let shutdown = ctx.shutdown.clone();
    let server = api.server();
    let abandoned = runner.run(&server, &next, |_, _| async move {
        shutdown.cancel();
        std::future::pending().await
    });
    assert!(matches!(abandoned.await.unwrap(), TaskRun::Stopped { .. }));
    let written = api.state().patches.len();
    let result = runner.run(&api.server(), &next, |_, _| async { TaskResult::succeeded("installed") }).await;
    result.unwrap();
    assert!(api.state().patches.len() > written + 1, "a claim, and what the work came to");
}

/// A cache that is behind by several tasks shows a lock that this process has released itself. A clock that is behind the
/// webhook's sees it as new only long after that.
#[tokio::test(start_paused = true)]
async fn a_task_is_not_begun_again_under_a_lock_that_other_tasks_have_followed() {
    for behind in [0, 40] {
        let api = FakeApi::new();
        let clock = ManualClock::new(api.now() - SignedDuration::from_secs(behind));
        let (ctx, _) = runner(&api, "a").await;
        ctx.turns.decided_by(Names("replicaset-controller/a".to_owned()));
        let ctx = Context { clock: Arc::new(clock.clone()), ..ctx };
        let servers = ServerCache::start(&ctx);
        servers.ready().await;
        let runner = TaskRunner::new(&ctx, &servers);
        let (sender, mut claimed) = oneshot::channel();
        let work = |server, _| async move {
            sender.send(server).unwrap();
            created()
        };
        runner.run(&api.server(), &first(&api), work).await.unwrap();
        let next = task(&api, TaskKind::InstallPackages);
        let work = |_, _| async { TaskResult::succeeded("installed") };
        runner.run(&api.server(), &next, work).await.unwrap();
        clock.advance(behind + 1);
        let behind = claimed.try_recv().unwrap();
        let begun = behind.status.as_ref().unwrap().tasks[0].clone();
        assert_eq!(begun.phase, TaskPhase::Running);
        let run = runner.run(&behind, &begun, |_, _| async { panic!("without the lock") }).await.unwrap();
        assert!(matches!(run, TaskRun::NotYet { .. }), "{run:?}");
    }
}

/// Copies of the webhook whose clocks differ: the lock that was begun last may look older than the one before it.
#[test]
fn a_task_is_not_begun_again_under_a_lock_that_a_webhook_ahead_has_given() {
    let (api, now) = (FakeApi::new(), FakeApi::new().now());
    let with_lock = |ago| {
        let (mut server, acquired_at) = (api.server(), Time(now - SignedDuration::from_secs(ago)));
        let status = server.status.as_mut().unwrap();
        let (task, holder) = (&mut status.tasks[0], "replicaset-controller/a".to_owned());
        task.phase = TaskPhase::Running;
        let (task_id, renewed_at) = (task.id, acquired_at.clone());
        status.lock = Some(Lock { holder, task_id, acquired_at, renewed_at, duration_seconds: 30 });
        server
    };
    let (ahead, behind, locks) = (with_lock(2), with_lock(10), HeldLocks::default());
    let accepts = |server: &Server| {
        locks.accept(server, &server.status.as_ref().unwrap().tasks[0], "replicaset-controller/a", now).is_some()
    };
    assert!(accepts(&ahead), "nothing was begun");
    locks.begin(&ahead, now);
    locks.begin(&behind, now);
    assert!(!accepts(&ahead) && !accepts(&behind));
}

/// What a watch shows before the release would let the work begin without the lock.
#[tokio::test(start_paused = true)]
async fn a_report_whose_answer_was_lost_releases_no_lock_that_it_has_handed_over() {
    let api = FakeApi::new();
    let (ctx, runner) = runner(&api, "a").await;
    ctx.turns.decided_by(Names("replicaset-controller/a".to_owned()));
    api.state().faults.extend([ApiFault::None, ApiFault::WrittenWithoutAnswer]);
    let run = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(run, TaskRun::Stopped { .. }), "it cannot know that the first report was written: {run:?}");
    let next = task(&api, TaskKind::InstallPackages);
    assert_eq!(lock(&api).map(|lock| lock.task_id), Some(next.id));
    let run = runner.run(&api.server(), &next, |_, _| async { TaskResult::succeeded("installed") }).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_not_new_any_more_is_claimed() {
    let (api, next) = handed_over("replicaset-controller/a").await;
    let (_ctx, runner) = runner(&api, "a").await;
    sleep(Duration::from_secs(16)).await;
    let written = api.state().patches.len();
    let run = runner.run(&api.server(), &next, |_, _| async { TaskResult::succeeded("installed") }).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    assert_eq!(api.state().patches.len() - written, 2);
}
