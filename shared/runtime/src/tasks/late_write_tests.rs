//! Reports that are lost or repeated, or arrive when their sender has given up.

use std::{sync::Arc, time::Duration};

use berth_core::{
    api::{Server, TaskPhase},
    protocol::TaskResult,
};
use berth_testing::{ApiFault, FakeApi};
use kube::{Api, api::Patch};
use tokio::time::sleep;

use super::tests::{created, first, lock, runner};
use crate::TaskRun;

#[tokio::test(start_paused = true)]
async fn a_report_is_retried_while_the_lock_is_valid() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.state().faults.extend([ApiFault::None, ApiFault::Unavailable, ApiFault::NoAnswer]);
    let run = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    assert_eq!((first(&api).phase, api.state().patches.len()), (TaskPhase::Succeeded, 4));
}

#[tokio::test(start_paused = true)]
async fn a_report_whose_answer_was_lost_counts_once() {
    let api = FakeApi::new();
    let (_ctx, runner) = runner(&api, "a").await;
    api.state().faults.extend([ApiFault::None, ApiFault::WrittenWithoutAnswer]);
    let run = runner.run(&api.server(), &first(&api), |_, _| async { created() }).await.unwrap();
    assert!(matches!(run, TaskRun::Stopped { .. }), "the lock is gone with the first report: {run:?}");
    assert_eq!((first(&api).phase, first(&api).attempts), (TaskPhase::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_report_that_arrives_late_does_not_end_the_next_attempt() {
    let api = FakeApi::new();
    let (ctx, runner) = runner(&api, "a").await;
    let failing = |_, _| async { TaskResult::retry("no room") };
    runner.run(&api.server(), &first(&api), failing).await.unwrap();
    let (_, late) = api.state().patches.last().cloned().unwrap();
    sleep(Duration::from_secs(5)).await;
    let (observer, servers) = (api.clone(), Api::<Server>::namespaced(ctx.client.clone(), "default"));
    let work = |server: Arc<Server>, _| async move {
        let late = Patch::Json::<()>(serde_json::from_value(late).unwrap());
        servers.patch_status(server.name(), &ctx.patch_params(), &late).await.unwrap_err();
        assert_eq!(lock(&observer).map(|lock| lock.holder).as_deref(), Some("replicaset-controller/a"));
        created()
    };
    let run = runner.run(&api.server(), &first(&api), work).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    assert_eq!((first(&api).phase, first(&api).attempts), (TaskPhase::Succeeded, 2));
}

/// A holder that did not hear what became of its report goes on under the lock that it has.
#[tokio::test(start_paused = true)]
async fn a_report_that_arrives_late_does_not_end_the_next_attempt_under_the_same_lock() {
    let api = FakeApi::new();
    let (ctx, runner) = runner(&api, "a").await;
    api.state().faults.push_back(ApiFault::None);
    api.state().always = ApiFault::NoAnswer;
    runner.run(&api.server(), &first(&api), |_, _| async { TaskResult::retry("no room") }).await.unwrap_err();
    api.state().always = ApiFault::None;
    let (_, late) = api.state().patches.last().cloned().unwrap();
    let (observer, servers) = (api.clone(), Api::<Server>::namespaced(ctx.client.clone(), "default"));
    let work = |server: Arc<Server>, _| async move {
        let late = Patch::Json::<()>(serde_json::from_value(late).unwrap());
        let answer = servers.patch_status(server.name(), &ctx.patch_params(), &late).await;
        assert_eq!(lock(&observer).map(|lock| lock.holder).as_deref(), Some("replicaset-controller/a"));
        answer.unwrap_err();
        created()
    };
    let run = runner.run(&api.server(), &first(&api), work).await.unwrap();
    assert!(matches!(run, TaskRun::Reported(_)), "{run:?}");
    assert_eq!((first(&api).phase, first(&api).attempts), (TaskPhase::Succeeded, 1));
}
