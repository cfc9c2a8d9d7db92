//! Copies of the webhook whose clocks differ judge the expiry of locks without losing one.

use crate::requests::{LocalWebhook, Reply, review, stored};
use berth_core::{
    CLOCK_MARGIN_SECONDS,
    api::{Claim, Executor, TaskKind},
    identity::Identities,
    protocol::StatusWrite,
};
use berth_testing::{Fixture, holder, start};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use webhook::body::RequestLimits;

/// Seconds for which the claims ask, and after which a holder that could not renew its lock stops.
const SECONDS: i32 = 30;
/// By how much the clock of the second copy is ahead.
const SKEW: i64 = 60;

/// Two copies of the webhook over one stored Server.
struct Copies {
    /// Seconds since the start.
    time: Arc<AtomicI64>,
    on_time: LocalWebhook,
    ahead: LocalWebhook,
    server: Value,
}

impl Copies {
    fn new() -> Self {
        let time = Arc::new(AtomicI64::new(0));
        let copy = |skew: i64| {
            let time = time.clone();
            let clock = move || start() + SignedDuration::from_secs(time.load(Ordering::Relaxed) + skew);
            LocalWebhook::with(RequestLimits::default(), clock)
        };
        let (on_time, ahead) = (copy(0), copy(SKEW));
        Self { time, on_time, ahead, server: stored(Fixture::new().decided().json()) }
    }

    /// A claim of CreateMachine by this instance, answered by this copy; stored if it is allowed.
    async fn claim(&mut self, ahead: bool, instance: &str, seconds: i32) -> Reply {
        let server: berth_core::api::Server = serde_json::from_value(self.server.clone()).unwrap();
        let task = server.tasks().iter().find(|task| task.kind == TaskKind::CreateMachine).unwrap();
        let holder = holder(Executor::ReplicasetController, instance);
        let claim = Claim { task_id: task.id, holder, duration_seconds: seconds, again: false };
        let mut new = self.server.clone();
        json_patch::patch(&mut new, &StatusWrite::new(&server).claim(claim).into_patch()).unwrap();
        let user = Identities::default().username(Executor::ReplicasetController);
        let review = review("servers/status", "UPDATE", &user, &self.server, &new);
        let reply = if ahead { &self.ahead } else { &self.on_time }.review(&review).await;
        if reply.is_allowed() {
            self.server = reply.apply(&new);
        }
        reply
    }

    fn renewed_at(&self) -> Timestamp {
        self.server["status"]["lock"]["renewedAt"].as_str().unwrap().parse().unwrap()
    }

    fn holder(&self) -> &str {
        self.server["status"]["lock"]["holder"].as_str().unwrap()
    }
}

#[tokio::test]
async fn two_copies_a_minute_apart_lose_no_lock() {
    let mut copies = Copies::new();
    assert!(copies.claim(false, "a", SECONDS).await.is_allowed());
    let mut renewed_at = copies.renewed_at();
    for second in 1..=300_i64 {
        copies.time.store(second, Ordering::Relaxed);
        // The latest renewal that its holder still trusts; either copy may answer it.
        if second % i64::from(SECONDS) == 0 {
            assert!(copies.claim(second % 20 == 0, "a", SECONDS).await.is_allowed(), "renewal after {second} s");
        }
        for ahead in [false, true] {
            let reply = copies.claim(ahead, "b", SECONDS).await;
            assert_eq!(reply.denial().1, "Locked", "after {second} s, by the copy that is ahead: {ahead}");
        }
        assert!(copies.renewed_at() >= renewed_at, "the lock's time went back after {second} s");
        renewed_at = copies.renewed_at();
    }
}

#[tokio::test]
async fn the_lock_of_a_holder_that_is_gone_is_taken_in_the_end_by_whichever_copy() {
    for (renewed_ahead, judged_ahead) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut copies = Copies::new();
        assert!(copies.claim(renewed_ahead, "a", SECONDS).await.is_allowed());
        let skew = SKEW * (i64::from(renewed_ahead) - i64::from(judged_ahead));
        let expiry = i64::from(SECONDS + CLOCK_MARGIN_SECONDS) + skew;
        copies.time.store(expiry, Ordering::Relaxed);
        assert_eq!(copies.claim(judged_ahead, "b", SECONDS).await.denial().1, "Locked");
        copies.time.store(expiry + 1, Ordering::Relaxed);
        assert!(copies.claim(judged_ahead, "b", SECONDS).await.is_allowed());
        assert_eq!(copies.holder(), "replicaset-controller/b");
    }
}

#[tokio::test]
async fn a_copy_measures_how_far_its_clock_is_behind() {
    let mut copies = Copies::new();
    let metric = "webhook_clock_behind_seconds";
    copies.claim(true, "a", SECONDS).await;
    copies.claim(true, "a", SECONDS).await;
    copies.claim(false, "a", SECONDS).await;
    assert_eq!((copies.on_time.metric(metric), copies.ahead.metric(metric)), (Some(60.0), Some(0.0)));
    copies.time.store(100, Ordering::Relaxed);
    copies.claim(false, "a", SECONDS).await;
    assert_eq!(copies.on_time.metric(metric), Some(0.0));
}
