//! The cache and the controller loop on an API server in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use berth_testing::FakeApi;
use futures::StreamExt;
use kube::runtime::controller::Action;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::{Controller, EventType, ReconcileError, reference, testing::context};

const SOON: Duration = Duration::from_secs(5);

async fn next<K>(changes: &mut (impl Stream<Item = Change<K>> + Unpin)) -> Change<K> {
    timeout(SOON, changes.next()).await.expect("a change").expect("the cache lives")
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_object_is_ignored_and_reported_and_does_not_stop_the_watch() {
    let api = FakeApi::new();
    let ctx = context(&api, "a");
    let servers = ServerCache::start(&ctx);
    let mut changes = Box::pin(servers.changes());
    let Change::Present(first) = next(&mut changes).await else { panic!("the first list") };
    assert_eq!(first.metadata.managed_fields, None, "nobody reads them");
    let mut follower = servers.follow(&first);

    let good = api.state().server.clone();
    let mut bad = good.clone();
    bad["spec"]["machine"] = "small".into();
    api.store(bad);
    assert!(matches!(next(&mut changes).await, Change::Undecodable(_)));
    assert!(matches!(&*follower.borrow_and_update(), CachedObject::Undecodable));
    assert!(servers.get(Some("default"), "web-1").is_none());
    assert_eq!(servers.undecodable()[0].name.as_deref(), Some("web-1"));
    assert!(ctx.metrics.encode().unwrap().contains(r#"berth_undecodable_objects{kind="Server"} 1"#));
    sleep(SOON).await;
    let events = api.state().events.clone();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0].1["reason"], &events[0].1["type"]), (&"Undecodable".into(), &"Warning".into()));
    assert!(events[0].1["message"].as_str().unwrap().contains("small"), "{events:?}");

    api.store(good);
    assert!(matches!(next(&mut changes).await, Change::Present(_)));
    assert!(servers.undecodable().is_empty() && servers.get(Some("default"), "web-1").is_some());
    assert_eq!(api.state().lists, 1, "the watch went on");
}

#[tokio::test(start_paused = true)]
async fn all_tasks_that_wait_for_the_first_list_go_on_when_it_is_there() {
    let servers = ServerCache::start(&context(&FakeApi::new(), "a"));
    let waiting = (0..3).map(|_| {
        let servers = servers.clone();
        tokio::spawn(async move { servers.ready().await })
    });
    let all = futures::future::join_all(waiting.collect::<Vec<_>>());
    timeout(SOON, all).await.expect("each of them was woken");
}

#[tokio::test(start_paused = true)]
async fn keep_change_times_keeps_the_time_of_the_last_change() {
    let api = FakeApi::new();
    let mut changes =
        Box::pin(ServerCache::start_with(&context(&api, "a"), CacheOptions::servers().keep_change_times()).changes());
    let server = next(&mut changes).await.object().clone();
    assert_eq!(changed_at(&*server), Some("2026-01-01T00:00:05Z".parse().unwrap()));
    let entries = server.metadata.managed_fields.as_ref().unwrap();
    assert!(entries.len() == 1 && entries[0].fields_v1.is_none(), "{entries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_published_with_the_last_version() {
    let api = FakeApi::new();
    let servers = ServerCache::start(&context(&api, "a"));
    let mut changes = Box::pin(servers.changes());
    let first = next(&mut changes).await.object().clone();
    let follower = servers.follow(&first);
    let gone = api.state().server.clone();
    api.notify_watchers("DELETED", &gone);
    assert!(matches!(next(&mut changes).await, Change::Gone(last) if last.name_any() == "web-1"));
    assert!(matches!(&*follower.borrow(), CachedObject::Absent));
}

#[tokio::test(start_paused = true)]
async fn waiting_changes_of_an_object_become_one_and_a_new_list_publishes_only_changes() {
    let api = FakeApi::new();
    let servers = ServerCache::start(&context(&api, "a"));
    let mut changes = Box::pin(servers.changes());
    next(&mut changes).await;
    for attempts in 1..=5 {
        api.declare(|server| server.spec.task_attempts = attempts);
    }
    sleep(Duration::from_millis(10)).await;
    let Change::Present(newest) = next(&mut changes).await else { panic!("a change") };
    assert_eq!(newest.spec.task_attempts, 5);
    assert!(timeout(SOON, changes.next()).await.is_err(), "the others were older");

    // The server has forgotten where the watch was: the cache lists again.
    api.notify_watchers("ERROR", &serde_json::json!({"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"}));
    timeout(Duration::from_mins(1), changes.next()).await.expect_err("nothing has changed");
    assert_eq!(api.state().lists, 2);
}

#[derive(Debug, thiserror::Error)]
#[error("it failed")]
struct Failed {
    terminal: bool,
}

impl ReconcileError for Failed {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

/// What a reconcile counts.
#[derive(Default)]
struct Counted {
    reconciles: AtomicU32,
    at: parking_lot::Mutex<Vec<Instant>>,
}

impl Counted {
    fn count(&self) -> u32 {
        self.at.lock().push(Instant::now());
        self.reconciles.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> u32 {
        self.reconciles.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_server_is_reconciled_once_without_calls() {
    let api = FakeApi::new();
    let ctx = context(&api, "a");
    let servers = ServerCache::start(&ctx);
    let counted = Arc::new(Counted::default());
    let (app, loop_ctx) = (counted.clone(), ctx.clone());
    let controller = Controller::new("servers", &servers);
    let run = tokio::spawn(async move {
        let reconcile = |_, app: Arc<Counted>| async move {
            app.count();
            Ok::<_, Failed>(Action::await_change())
        };
        controller.run(&loop_ctx, app, reconcile).await;
    });
    sleep(Duration::from_hours(1)).await;
    assert_eq!(counted.get(), 1);
    api.declare(|server| server.spec.task_attempts += 1);
    sleep(SOON).await;
    assert_eq!(counted.get(), 2);
    assert_eq!(api.state().lists, 1, "nothing is listed again");
    assert!(api.state().patches.is_empty(), "nothing is written");
    ctx.shutdown.cancel();
    timeout(SOON, run).await.expect("the loop ends at shutdown").unwrap();
}

#[tokio::test(start_paused = true)]
async fn failed_reconciles_back_off_and_a_terminal_failure_waits_for_a_change() {
    let api = FakeApi::new();
    let ctx = context(&api, "a");
    let servers = ServerCache::start(&ctx);
    let counted = Arc::new(Counted::default());
    let (app, loop_ctx) = (counted.clone(), ctx.clone());
    let controller = Controller::new("servers", &servers);
    tokio::spawn(async move {
        let reconcile = |_, app: Arc<Counted>| async move { Err(Failed { terminal: app.count() > 6 }) };
        controller.run(&loop_ctx, app, reconcile).await;
    });
    sleep(Duration::from_hours(1)).await;
    let at = counted.at.lock().clone();
    assert_eq!(at.len(), 7, "six failures, and one that no repetition mends");
    let pauses: Vec<f64> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    for (pause, full) in pauses.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0, 16.0]) {
        assert!((full / 2.0 - 0.01..=full + 0.01).contains(pause), "{pauses:?}");
    }
    api.declare(|_| ());
    sleep(SOON).await;
    assert_eq!(counted.get(), 8);
    let metrics = ctx.metrics.encode().unwrap();
    assert!(metrics.contains(r#"berth_reconciles_total{controller="servers",result="retry"} 6"#), "{metrics}");
    assert!(metrics.contains(r#"berth_reconciles_total{controller="servers",result="terminal"} 2"#), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_a_running_reconcile() {
    let api = FakeApi::new();
    let ctx = context(&api, "a");
    let servers = ServerCache::start(&ctx);
    let counted = Arc::new(Counted::default());
    let (app, loop_ctx) = (counted.clone(), ctx.clone());
    let controller = Controller::new("servers", &servers);
    let run = tokio::spawn(async move {
        let reconcile = |_, app: Arc<Counted>| async move {
            sleep(Duration::from_secs(10)).await;
            app.count();
            Ok::<_, Failed>(Action::await_change())
        };
        controller.run(&loop_ctx, app, reconcile).await;
    });
    sleep(Duration::from_secs(1)).await;
    ctx.shutdown.cancel();
    timeout(Duration::from_secs(20), run).await.expect("it ends").unwrap();
    assert_eq!(counted.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn repeated_events_are_one_event_with_a_count() {
    let api = FakeApi::new();
    let ctx = context(&api, "a");
    let about = reference(&api.server());
    for n in 0..3 {
        ctx.events.publish(&about, EventType::Warning, "Failed", format!("attempt {n}"));
        sleep(Duration::from_secs(2)).await;
    }
    sleep(Duration::from_secs(30)).await;
    let events = api.state().events.clone();
    let written: Vec<_> =
        events.iter().map(|(method, body)| (method.as_str(), &body["count"], &body["message"])).collect();
    assert_eq!(written, [("POST", &1.into(), &"attempt 0".into()), ("PATCH", &3.into(), &"attempt 2".into())]);
    assert_eq!(events[0].1["involvedObject"]["uid"], "u-1");
}

#[test]
fn the_mark_of_a_controller_is_no_change() {
    let entry = |manager: &str, at: &str| serde_json::json!({"manager": manager, "time": at});
    let server = |entries: Vec<serde_json::Value>| {
        berth_testing::server(serde_json::json!({"metadata": {"managedFields": entries}}))
    };
    let by_a_person = entry("kubectl", "2026-01-01T00:00:05Z");
    let marked = server(vec![by_a_person, entry("replicaset-controller", "2026-01-01T00:00:09Z")]);
    assert_eq!(changed_at(&marked), Some("2026-01-01T00:00:05Z".parse().unwrap()));
}
