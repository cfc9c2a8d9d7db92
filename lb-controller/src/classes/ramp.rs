//! Slow start: the weights of Servers that have begun to receive traffic a short while ago. Pure.
//!
//! They follow from when the task ReleaseTraffic has finished, so that nothing is remembered and no Server is written for them. HAProxy's own
//! `slowstart` is not used: servers that are added at run time cannot have it.

use std::{collections::BTreeMap, sync::Arc};

use berth_core::api::{Ramp, Server, TaskKind, TrafficPhase};
use k8s_openapi::jiff::Timestamp;

use super::{driver::EntryKey, view::entries_of};
use crate::{member::ServerRef, plan, subsets::Subsets};

/// The number of steps, so that a load balancer is not changed all the time.
const STEPS: i64 = 10;

/// The weights of entries whose Servers do not have their full share yet, instead of those that they declare.
pub(super) fn weights(
    class: &str,
    servers: &[Arc<Server>],
    subsets: &Subsets,
    now: Timestamp,
) -> BTreeMap<EntryKey, u16> {
    let mut weights = BTreeMap::new();
    for server in servers {
        let Some(step) = step_of(server, now) else { continue };
        let Some(desired) = plan::desired(server, now, subsets.of(server)) else { continue };
        if desired.phase != TrafficPhase::Serving {
            continue;
        }
        let entries = entries_of(class, &ServerRef::of(server), Some(&desired));
        weights.extend(entries.into_iter().map(|(key, entry)| (key, reduced(entry.weight, step))));
    }
    weights
}

/// The step that the Server has come to; none if it has its full share, because it has no ramp or that is over.
fn step_of(server: &Server, now: Timestamp) -> Option<i64> {
    let Ramp { seconds } = server.spec.traffic.as_ref()?.ramp?;
    let release = server.status.as_ref()?.current_tasks().rfind(|task| task.kind == TaskKind::ReleaseTraffic)?;
    let Some(released) = &release.finished_at else { return Some(1) };
    let elapsed = now.duration_since(released.0).as_secs().max(0);
    let step = 1 + elapsed * STEPS / i64::from(seconds.max(1));
    (step < STEPS).then_some(step)
}

/// The weight at a step. It is 0 only if all of it is: 0 is no small share, but none.
fn reduced(weight: u16, step: i64) -> u16 {
    let least = weight.min(1);
    u16::try_from(i64::from(weight) * step / STEPS).unwrap_or(weight).max(least)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn server(ramp: &Value, task: &Value) -> Arc<Server> {
        let backends = json!([{"class": "edge", "name": "web", "port": 80}, {"class": "edge", "name": "few", "port": 80, "weight": 5},
            {"class": "edge", "name": "none", "port": 80, "weight": 0}]);
        Arc::new(berth_testing::server(json!({
            "metadata": {"name": "web-0", "uid": "uid-0"},
            "spec": {"traffic": {"backends": backends, "ramp": ramp}},
            "status": {"state": "Ready", "tasks": [task],
                "traffic": {"phase": "Serving", "backends": backends, "address": "10.0.0.1"}},
        })))
    }

    fn released(finished: &Value) -> Value {
        json!({"id": 7, "kind": "ReleaseTraffic", "step": 1, "phase": "Succeeded", "finishedAt": finished})
    }

    /// The weights that differ from the declared ones: of the backends `few`, `none` and `web`.
    fn at(server: &Arc<Server>, second: i64) -> Vec<u16> {
        let now = Timestamp::from_second(second).unwrap();
        weights("edge", std::slice::from_ref(server), &Subsets::default(), now).into_values().collect()
    }

    #[test]
    fn the_share_grows_in_ten_steps_from_when_traffic_was_released() {
        let server = server(&json!({"seconds": 60}), &released(&json!("1970-01-01T00:01:40Z")));
        assert_eq!(at(&server, 100), [1, 0, 10]);
        assert_eq!(at(&server, 105), [1, 0, 10]);
        assert_eq!(at(&server, 106), [1, 0, 20]);
        assert_eq!(at(&server, 153), [4, 0, 90]);
        assert_eq!(at(&server, 154), [0; 0], "its full share");
        assert_eq!(at(&server, 0), [1, 0, 10], "the clock of another copy is behind");
    }

    #[test]
    fn it_begins_with_a_tenth_and_without_a_ramp_or_a_release_with_all() {
        let running = json!({"id": 7, "kind": "ReleaseTraffic", "step": 1, "phase": "Pending"});
        assert_eq!(at(&server(&json!({"seconds": 60}), &running), 0), [1, 0, 10]);
        assert_eq!(at(&server(&Value::Null, &running), 0), [0; 0]);
        let other = json!({"id": 7, "kind": "CheckHealth", "step": 1, "phase": "Pending"});
        assert_eq!(at(&server(&json!({"seconds": 60}), &other), 0), [0; 0], "it has been serving for long");
    }
}
