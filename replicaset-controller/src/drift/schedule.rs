//! When the machine of each Server is checked for drift. Pure.
//!
//! Each Server has fixed check times: one per interval of the wall clock, shifted by an offset that its UID determines. So the
//! checks of a fleet spread evenly over the interval, no check times have to be stored, and a restart neither skips a check nor
//! makes all of them due at once.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use berth_core::api::{MachinePhase, Server, TaskPhase};
use k8s_openapi::jiff::Timestamp;

use super::reading::app_fact;

/// Whether the Server with this UID has a check time after `from` and not after `to`. Never for an interval of zero.
pub(super) fn is_due(uid: &str, interval: Duration, from: Timestamp, to: Timestamp) -> bool {
    let Some(interval) = i128::try_from(interval.as_nanos()).ok().filter(|nanos| *nanos > 0) else { return false };
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    let offset = i128::from(hasher.finish()) % interval;
    let passed = |at: Timestamp| (at.as_nanosecond() - offset).div_euclid(interval);
    passed(to) > passed(from)
}

/// How often to look for Servers that are due: 200 times per interval, so that the checks spread evenly; at most every 50 ms,
/// because each time all Servers are hashed, and at least every second.
pub(super) fn poll_interval(interval: Duration) -> Duration {
    (interval / 200).clamp(Duration::from_millis(50), Duration::from_secs(1))
}

/// Whether the Server's machine can drift unnoticed: the Server is Ready, its machine is believed to run and to be reachable,
/// no task changes it, and there are packages or an application to compare. A Server that a person forced to be Ready is left as
/// it is.
pub(super) fn should_check(server: &Server) -> bool {
    let Some(status) = server.status.as_ref().filter(|_| server.is_ready()) else { return false };
    let runs = status.machine.as_ref().is_some_and(|machine| machine.phase == MachinePhase::Running);
    let is_unreachable = status.reachability.as_ref().is_some_and(|fact| !fact.reachable);
    let is_unfinished = |phase| matches!(phase, TaskPhase::Pending | TaskPhase::Running);
    let changes =
        status.lock.is_some() || status.tasks.iter().any(|task| task.kind.needs_lock() && is_unfinished(task.phase));
    let environment = status.environment.as_ref().filter(|fact| fact.verified);
    let has_packages = environment.is_some_and(|fact| !fact.packages.is_empty() || !server.spec.packages.is_empty());
    let has_app = environment.is_some() && app_fact(server).is_some();
    runs && (has_packages || has_app) && !is_unreachable && !server.is_forced() && !changes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HOUR: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(HOUR + second).unwrap()
    }

    #[test]
    fn every_server_is_due_once_per_interval_however_often_that_is_polled() {
        for interval in [1, 7, 600, 86_400] {
            for step in [1, 2, 5, 300] {
                let polls = 2 * interval / step;
                let times = (0..polls)
                    .filter(|n| is_due("u-1", Duration::from_secs(interval), at_step(*n, step), at_step(n + 1, step)))
                    .count();
                let most = if step >= interval { polls } else { 2 };
                assert!(times as u64 <= most && times as u64 + 1 >= most.min(2), "{interval} s, {step} s: {times}");
            }
        }
    }

    fn at_step(number: u64, step: u64) -> Timestamp {
        at(i64::try_from(number * step).unwrap())
    }

    #[test]
    fn check_times_survive_restarts_and_nothing_is_due_in_no_time_or_without_interval() {
        let ten_minutes = Duration::from_mins(10);
        let seconds = |from: i64| (from..from + 600).find(|n| is_due("u-1", ten_minutes, at(*n), at(n + 1))).unwrap();
        let first = seconds(0);
        assert_eq!(seconds(first + 1), first + 600);
        assert_eq!(seconds(6000) - 6000, first);
        for (interval, from, to) in [(0, 0, 10_000), (600, first + 1, first + 1), (600, first + 1, first - 5000)] {
            assert!(!is_due("u-1", Duration::from_secs(interval), at(from), at(to)), "{interval} {from} {to}");
        }
        // A process that was suspended for hours checks once.
        assert!(is_due("u-1", ten_minutes, at(0), at(36_000)));
    }

    #[test]
    fn the_checks_of_a_fleet_spread_evenly() {
        let uids: Vec<String> = (0..6000).map(|n| format!("0b5e9f1c-8a51-4f0e-9f5e-{n:012}")).collect();
        let due = |n: i64| uids.iter().filter(|uid| is_due(uid, Duration::from_mins(10), at(n), at(n + 10))).count();
        let most = (0..60).map(|n| due(n * 10)).max().unwrap();
        let least = (0..60).map(|n| due(n * 10)).min().unwrap();
        // 100 are expected every ten seconds, with a standard deviation of 10.
        assert!(least >= 60 && most <= 145, "{least} to {most}");
    }

    fn ready() -> Value {
        json!({
            "metadata": {"name": "s", "generation": 1},
            "spec": {"packages": [{"name": "nginx", "version": "1", "apt": {}}]},
            "status": {
                "state": "Ready", "observedGeneration": 1, "machine": {"phase": "Running"},
                "environment": {"verified": true, "packages": [{"name": "nginx", "version": "1"}]},
            },
        })
    }

    #[test]
    fn only_ready_servers_whose_machines_nothing_changes_are_checked() {
        let task = |phase: &str, kind: &str| json!([{"id": 1, "kind": kind, "step": 1, "phase": phase}]);
        let lock = json!({"holder": "h", "taskID": 1, "acquiredAt": "2026-01-01T00:00:00Z",
                          "renewedAt": "2026-01-01T00:00:00Z", "durationSeconds": 30});
        let unreachable =
            json!({"reachable": false, "since": "2026-01-01T00:00:00Z", "observedAt": "2026-01-01T00:00:00Z"});
        let table = [
            ("/metadata/name", json!("s"), true),
            ("/status/state", json!("Deploying"), false),
            ("/metadata/generation", json!(2), false),
            ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"), false),
            ("/spec/offline", json!(true), false),
            ("/status/machine/phase", json!("Stopped"), false),
            ("/status/reachability", unreachable, false),
            ("/status/lock", lock, false),
            ("/spec/force", json!({"state": "Ready", "reason": "mine"}), false),
            ("/status/environment/verified", json!(false), false),
            ("/status/tasks", task("Running", "InstallPackages"), false),
            ("/status/tasks", task("Succeeded", "InstallPackages"), true),
            ("/status/tasks", task("Pending", "ReleaseTraffic"), true),
        ];
        for (path, value, expected) in table {
            let mut server = ready();
            let (parent, field) = path.rsplit_once('/').unwrap();
            server.pointer_mut(parent).unwrap()[field] = value.clone();
            assert_eq!(should_check(&berth_testing::server(server)), expected, "{path} {value}");
        }
        let mut empty = ready();
        empty["spec"]["packages"] = json!([]);
        empty["status"]["environment"]["packages"] = json!([]);
        assert!(!should_check(&berth_testing::server(empty)), "there is nothing to compare");
    }
}
