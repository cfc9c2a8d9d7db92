//! A deploy system for tests, and attempts on it.

use std::time::Duration;

use berth_core::{
    api::{DeployClass, Outcome},
    protocol::TaskResult,
};
use berth_runtime::ManualClock;
use berth_testing::{DeployFault, FakeDeploySystem, manifest};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    contract::{self, JobRequest},
    follow::{Attempt, Limits},
    system::DeploySystem,
};
use crate::{class_access::SecretData, testing::now};

/// Much less than the production's times, and much more than a request on loopback takes.
pub(super) const CALL: Duration = Duration::from_millis(300);
pub(super) const LIMITS: Limits =
    Limits { silence: Duration::from_secs(30), cancel: Duration::from_secs(2), stop: Duration::from_secs(2) };

pub(super) const LOG: &str = "https://ci.example/runs/1";

/// A deploy system, and how Berth reaches it.
pub(super) struct World {
    pub(super) fake: FakeDeploySystem,
    pub(super) system: DeploySystem,
    pub(super) said: watch::Sender<String>,
    pub(super) limits: Limits,
    pub(super) superseded: CancellationToken,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with_secret(&SecretData::new()).await
    }

    pub(super) async fn with_secret(secret: &SecretData) -> Self {
        // As every process does at its start; another test may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fake = FakeDeploySystem::start().await;
        let spec = json!({"url": format!("{}/", fake.url())});
        let class: DeployClass = serde_json::from_value(manifest("DeployClass", "ci", spec)).unwrap();
        let mut system = DeploySystem::new(&class, secret, CALL).unwrap();
        assert_eq!((system.poll, system.job_limit), (Duration::from_secs(5), Duration::from_hours(1)));
        system.poll = Duration::from_millis(5);
        Self { fake, system, said: watch::Sender::default(), limits: LIMITS, superseded: CancellationToken::new() }
    }

    /// Berth gives up soon.
    pub(super) fn impatient(mut self) -> Self {
        self.limits.silence = Duration::from_millis(500);
        self
    }

    pub(super) fn plan(&self, plan: impl IntoIterator<Item = Value>) {
        self.fake.state().plan = plan.into_iter().collect();
    }

    pub(super) fn faults(&self, faults: impl IntoIterator<Item = DeployFault>) {
        self.fake.state().faults.extend(faults);
    }

    pub(super) async fn attempt(&self, attempt: i32) -> TaskResult {
        let (request, clock) = (request(attempt), ManualClock::new(now()));
        let attempt = Attempt::new(&self.system, &request, self.limits, &clock, &self.said, &self.superseded);
        tokio::time::timeout(Duration::from_secs(30), attempt.carry_out()).await.expect("it never ends")
    }

    pub(super) fn begun(&self) -> Vec<String> {
        self.fake.state().begun.clone()
    }

    pub(super) fn key(attempt: i32) -> String {
        contract::key(&request(attempt), attempt)
    }

    /// The contract was kept.
    pub(super) fn ends(self) {
        assert_eq!(self.fake.state().violations, Vec::<String>::new());
    }
}

pub(super) fn request(attempt: i32) -> JobRequest {
    serde_json::from_value(json!({
        "server": {"namespace": "default", "name": "web-0", "uid": "u-1", "address": "127.0.0.2"},
        "application": {"name": "web", "revision": "v1", "digest": "1f389af820", "command": "./run", "env": {}, "stopSeconds": 10,
            "artifact": {"url": "http://a.example/w.tgz", "sha256": "b".repeat(64)}},
        "task": 7, "attempt": attempt, "timeoutSeconds": 3600,
    }))
    .unwrap()
}

pub(super) fn running() -> Value {
    json!({"state": "Running", "logURL": LOG})
}

pub(super) fn succeeded() -> Value {
    json!({"state": "Succeeded"})
}

/// Waits until this holds.
pub(super) async fn until(holds: impl Fn() -> bool) {
    let held = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    held.await.expect("it never holds");
}

#[track_caller]
pub(super) fn says(result: &TaskResult, outcome: Outcome, words: &[&str]) {
    assert_eq!(result.outcome, outcome, "{}", result.message);
    for word in words {
        assert!(result.message.contains(word), "{word:?} is not in {:?}", result.message);
    }
}
