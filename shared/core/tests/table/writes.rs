//! `StatusWrite`: its patch changes the right fields of the right object.

use berth_core::{
    api::{AppFact, HealthFact, HealthState, Outcome, TaskKind, TrafficPhase},
    protocol::{GuardedPatch, StatusWrite},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use serde_json::{Value, json};

use berth_testing::{Fixture, environment, machine, report, start, traffic, unreachable};

fn patch(write: StatusWrite) -> Value {
    serde_json::to_value(write.into_patch()).unwrap()
}

fn applied(to: &Fixture, write: StatusWrite) -> Result<Value, json_patch::PatchError> {
    let mut value = to.json();
    json_patch::patch(&mut value, &write.into_patch()).map(|()| value)
}

#[test]
fn a_write_tests_the_uid() {
    let fixture = Fixture::registering().decided();
    let write = StatusWrite::new(&fixture.server).acknowledge();
    assert_eq!(
        patch(write.clone()),
        json!([
            {"op": "test", "path": "/metadata/uid", "value": "uid-1"},
            {"op": "add", "path": "/status/observedGeneration", "value": 1}
        ])
    );
    let mut other = fixture.clone();
    other.server.metadata.uid = Some("uid-2".into());
    assert!(applied(&fixture, write.clone()).is_ok());
    assert!(applied(&other, write).is_err());
}

#[test]
fn if_unchanged_tests_the_resource_version() {
    let fixture = Fixture::registering().decided();
    let write = StatusWrite::new(&fixture.server).acknowledge().if_unchanged();
    assert!(applied(&fixture, write.clone()).is_ok());
    let mut newer = fixture.clone();
    newer.server.metadata.resource_version = Some("2".into());
    assert!(applied(&newer, write).is_err());
}

/// Nobody counts it as disturbed, so its budget may be spent on others by the time at which it serves.
#[test]
fn a_server_that_was_out_of_service_is_left_alone_when_it_may_serve() {
    let server = |state: &str, phase: &str, version: &str| {
        berth_testing::server(json!({
            "metadata": {"resourceVersion": version},
            "spec": {"traffic": {"backends": [{"service": "web", "port": 80}]}},
            "status": {"state": state, "traffic": {"phase": phase, "backends": [], "address": "127.0.0.1"}},
        }))
    };
    let deploying = server("Deploying", "Held", "1");
    let (released, ready) = (server("Ready", "Serving", "2"), server("Ready", "Held", "2"));
    for (read, found, applies) in [
        (&deploying, server("Deploying", "Held", "2"), true),
        (&deploying, ready.clone(), false),
        (&deploying, released.clone(), false),
        (&ready, ready.clone(), true),
        (&ready, server("Ready", "Serving", "3"), false),
        // It is in service: whoever changes it has counted it.
        (&released, server("Deploying", "Serving", "3"), true),
    ] {
        let patch = GuardedPatch::of(&read.metadata).if_still_out_of_service(read).build();
        let result = json_patch::patch(&mut serde_json::to_value(&found).unwrap(), &patch);
        assert_eq!(result.is_ok(), applies, "{:?} {:?}", read.status, found.status);
    }
}

#[test]
fn the_first_write_creates_the_status_but_never_overwrites_one() {
    let fixture = Fixture::registering();
    let write = StatusWrite::new(&fixture.server).acknowledge();
    assert_eq!(
        patch(write.clone()),
        json!([
            {"op": "test", "path": "/metadata/uid", "value": "uid-1"},
            {"op": "test", "path": "/metadata/resourceVersion", "value": "1"},
            {"op": "add", "path": "/status", "value": {"observedGeneration": 1}}
        ])
    );
    let mut newer = fixture.clone().decided();
    newer.server.metadata.resource_version = Some("2".into());
    assert!(applied(&newer, write).is_err());
}

#[test]
fn a_write_without_fields_is_empty() {
    let fixture = Fixture::ready();
    let write = || StatusWrite::new(&fixture.server);
    assert!(write().is_empty());
    assert!(!write().acknowledge().is_empty());
    assert!(!write().traffic(None).is_empty());
    assert!(write().traffic(traffic(&fixture.server, TrafficPhase::Held)).traffic(None).into_patch().0.len() == 2);
    let unknown = Fixture::registering();
    assert!(StatusWrite::new(&unknown.server).machine(None).is_empty(), "nothing to remove");
    assert!(StatusWrite::new(&unknown.decided().server).machine(None).is_empty(), "nothing to remove");
}

#[test]
fn every_fact_is_written_to_its_field() {
    let fixture = Fixture::ready().fact(|status| status.epoch = Some(4));
    let later = Time(start() + SignedDuration::from_secs(1));
    let health = HealthFact { state: HealthState::Unhealthy, epoch: 4, since: later, message: "503".into() };
    let task =
        berth_core::api::Task { id: 5, ..Fixture::registering().decided().task(TaskKind::CreateMachine).clone() };
    let claim = berth_core::api::Claim { task_id: 9, holder: "h".into(), duration_seconds: 3, again: false };
    let write = StatusWrite::new(&fixture.server)
        .machine(Some(machine("m9", "b9")))
        .environment(environment(&fixture.server.spec))
        .app(Some(AppFact {
            revision: "r9".into(),
            digest: "d".into(),
            verified: true,
            deployed_at: None,
            deploy_class: None,
        }))
        .traffic(traffic(&fixture.server, TrafficPhase::Draining))
        .reachability(unreachable(9, start()))
        .health(health)
        .monitoring(None)
        .report(report(&task, "h", Outcome::Succeeded))
        .claim(claim);
    let status = applied(&fixture, write).unwrap()["status"].clone();
    assert_eq!(status["machine"]["id"], "m9");
    assert_eq!(status["environment"]["packages"][0]["name"], "runtime");
    assert_eq!(status["app"]["revision"], "r9");
    assert_eq!(status["traffic"]["phase"], "Draining");
    assert_eq!(status["reachability"]["reachable"], false);
    assert_eq!(status["health"]["message"], "503");
    assert_eq!(status.get("monitoring"), None);
    assert_eq!(status["report"], json!({"taskID": 5, "holder": "h", "outcome": "Succeeded", "message": "Succeeded"}));
    assert_eq!(status["claim"], json!({"taskID": 9, "holder": "h", "durationSeconds": 3}));
}

#[test]
fn a_health_write_tests_the_epoch() {
    let fixture = Fixture::ready().fact(|status| status.epoch = Some(4));
    let fact = |epoch| HealthFact { state: HealthState::Healthy, epoch, since: Time(start()), message: String::new() };
    assert!(applied(&fixture, StatusWrite::new(&fixture.server).health(fact(4))).is_ok());
    assert!(applied(&fixture, StatusWrite::new(&fixture.server).health(fact(3))).is_err());
}

#[test]
fn the_last_value_set_for_a_fact_is_written() {
    let fixture = Fixture::ready();
    let held = traffic(&fixture.server, TrafficPhase::Held);
    let write = StatusWrite::new(&fixture.server).traffic(None).traffic(held);
    assert_eq!(applied(&fixture, write).unwrap()["status"]["traffic"]["phase"], "Held");
    let write = StatusWrite::new(&fixture.server).machine(Some(machine("m9", "b9"))).machine(None).machine(None);
    assert_eq!(applied(&fixture, write).unwrap()["status"].get("machine"), None);
}
