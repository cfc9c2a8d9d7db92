//! Rolling an application out over the Servers of a set.

use std::cmp::Reverse;

use berth_core::{
    api::{App, RolloutOrder, Server, VMDeployment},
    budget::{self, Axis, Budget, Roll},
};
use json_patch::{AddOperation, Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::jiff::Timestamp;

use crate::desired;

/// Annotation of Servers with a whole number: with the order `Priority` the highest comes first.
pub const PRIORITY: &str = "berth.dev/rollout-priority";

/// The budget of the application's roll-out.
#[must_use]
pub fn budget(deployment: &VMDeployment) -> Budget {
    let spec = &deployment.spec;
    let count = |n: i32| usize::try_from(n).unwrap_or(0);
    Budget {
        replicas: count(spec.replicas),
        max_unavailable: budget::max_unavailable(&spec.update_strategy, spec.replicas),
        min_ready_seconds: spec.min_ready_seconds,
        partition: count(spec.rollout.partition),
    }
}

/// Why nothing is rolled out, if so.
#[must_use]
pub fn held(deployment: &VMDeployment) -> Option<&'static str> {
    if deployment.spec.paused {
        Some("the roll-out is paused (spec.paused)")
    } else if !deployment.spec.rollout.steps.is_empty() {
        Some("spec.rollout.steps are not supported by this version: nothing is rolled out until they are removed")
    } else {
        None
    }
}

/// Whether the Server is declared to run something else than `app`.
#[must_use]
pub fn is_outdated(server: &Server, app: &App) -> bool {
    server.spec.app.as_ref() != Some(app)
}

/// Whether every Server is declared to run the newest application and is available with it, but for those that the
/// partition holds back.
#[must_use]
pub fn is_complete(deployment: &VMDeployment, servers: &[&Server], now: Timestamp) -> bool {
    let app = desired::newest(deployment);
    let seconds = deployment.spec.min_ready_seconds;
    deployment.spec.rollout.partition == 0
        && servers
            .iter()
            .filter(|s| budget::is_active(s))
            .all(|s| !is_outdated(s, &app) && budget::is_available(s, seconds, now))
}

/// The next move of the roll-out.
#[must_use]
pub fn next<'a>(deployment: &VMDeployment, servers: &[&'a Server], ledger: &[String], now: Timestamp) -> Roll<'a> {
    let app = desired::newest(deployment);
    let mut servers = servers.to_vec();
    servers.sort_by_cached_key(|server| position(deployment.spec.rollout.order, server));
    let hold = held(deployment).is_some();
    budget::roll(&servers, ledger, budget(deployment), now, Axis::App, hold, |s| is_outdated(s, &app))
}

fn position(order: RolloutOrder, server: &Server) -> (Reverse<i64>, i64, String) {
    let created = server.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let annotation = server.metadata.annotations.as_ref().and_then(|a| a.get(PRIORITY));
    let priority = match order {
        RolloutOrder::OldestFirst => 0,
        RolloutOrder::Priority => annotation.and_then(|p| p.parse().ok()).unwrap_or(0),
    };
    (Reverse(priority), created, server.metadata.name.clone().unwrap_or_default())
}

/// The patch that declares the application on this very Server. It replaces the whole field: merged with what the
/// Server was born with, environment variables that left the application would stay.
#[must_use]
pub fn patch(server: &Server, app: &App) -> Patch {
    let to_value = |value| serde_json::to_value(value).unwrap_or_default();
    Patch(vec![
        PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["metadata", "uid"]),
            value: server.metadata.uid.clone().into(),
        }),
        PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(["spec", "app"]), value: to_value(app) }),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deployment, now, server};

    fn names(roll: &Roll<'_>) -> Vec<String> {
        roll.touch.iter().map(|s| s.metadata.name.clone().unwrap()).collect()
    }

    #[test]
    fn the_unready_and_then_the_oldest_come_first_within_the_budget() {
        let newer = deployment("v2", |spec| spec["updateStrategy"] = serde_json::json!({"maxUnavailable": 2}));
        let all = [
            server("web-0", "v1", "Ready", 50),
            server("web-1", "v1", "Ready", 90),
            server("web-2", "v1", "Deploying", 10),
        ];
        let servers: Vec<&Server> = all.iter().collect();
        let roll = next(&newer, &servers, &[], now());
        assert_eq!(names(&roll), ["web-2", "web-1"]);
        assert_eq!(roll.ledger, ["web-2/app", "web-1/app"]);
        assert!(!is_complete(&newer, &servers, now()));
    }

    #[test]
    fn a_priority_comes_before_age() {
        let newer = deployment("v2", |spec| spec["rollout"] = serde_json::json!({"order": "Priority"}));
        let mut all = [
            server("web-0", "v1", "Ready", 90),
            server("web-1", "v1", "Ready", 50),
            server("web-2", "v1", "Ready", 70),
        ];
        all[1].metadata.annotations = Some([(PRIORITY.to_owned(), "5".to_owned())].into());
        assert_eq!(names(&next(&newer, &all.iter().collect::<Vec<_>>(), &[], now())), ["web-1"]);
    }

    #[test]
    fn a_held_roll_out_begins_nothing_and_an_entry_stays_while_its_server_is_at_work() {
        let steps = serde_json::json!([{"servers": 1}]);
        for change in [("paused", true.into()), ("rollout", serde_json::json!({"steps": steps}))] {
            let held = deployment("v2", |spec| spec[change.0] = change.1);
            let all = [server("web-0", "v1", "Ready", 90), server("web-1", "v2", "Deploying", 9)];
            let roll =
                next(&held, &all.iter().collect::<Vec<_>>(), &["web-1/app".into(), "x/environment".into()], now());
            assert_eq!((names(&roll), roll.ledger), (vec![], vec!["web-1/app".to_owned(), "x/environment".to_owned()]));
        }
    }

    #[test]
    fn it_is_complete_when_all_are_available_with_the_newest() {
        let newer = deployment("v2", |spec| spec["minReadySeconds"] = 10.into());
        let complete = |all: &[Server]| is_complete(&newer, &all.iter().collect::<Vec<_>>(), now());
        assert!(complete(&[server("web-0", "v2", "Ready", 10)]));
        assert!(!complete(&[server("web-0", "v2", "Ready", 9)]));
        assert!(!complete(&[server("web-0", "v2", "Ready", 90), server("web-1", "v1", "Ready", 90)]));
        assert!(!complete(&[server("web-0", "v2", "Deploying", 90)]));
    }

    #[test]
    fn the_patch_replaces_the_whole_application_of_one_very_server() {
        let mut old = server("web-0", "v1", "Ready", 5);
        old.spec.app.as_mut().unwrap().env.push(berth_core::api::EnvVar { name: "A".into(), value: "1".into() });
        let app = desired::newest(&deployment("v2", |_| {}));
        let mut value = serde_json::to_value(&old).unwrap();
        json_patch::patch(&mut value, &patch(&old, &app)).unwrap();
        let new: Server = serde_json::from_value(value).unwrap();
        assert_eq!(new.spec.app, Some(app.clone()));
        let mut other = serde_json::to_value(server("web-0", "v1", "Ready", 5)).unwrap();
        other["metadata"]["uid"] = "another".into();
        json_patch::patch(&mut other, &patch(&old, &app)).unwrap_err();
    }
}
