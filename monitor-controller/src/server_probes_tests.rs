use serde_json::{Value, json};

use super::*;

fn server(epoch: i64, phase: &str, tasks: &Value) -> Server {
    berth_testing::server(json!({"metadata": {"name": "web-0", "namespace": "ns", "uid": "u"},
        "spec": {"machine": {"className": "c"}, "healthCheck": {"tcpSocket": {"port": 80}}},
        "status": {"state": "Deploying", "epoch": epoch, "firstTaskID": 1, "tasks": tasks, "machine": {
            "phase": phase, "address": "10.0.0.1", "ssh": {"port": 22, "user": "b", "hostKey": "k", "root": "r"}}}
    }))
}

fn check_health_task(id: i64) -> Value {
    json!([{"id": id, "kind": "CheckHealth", "step": 1, "executor": "monitor-controller", "phase": "Pending"}])
}

/// The probes of a running Server without tasks.
fn probes() -> ServerProbes {
    let server = server(1, "Running", &json!([]));
    let mut probes = ServerProbes::new(&server);
    probes.update(&server);
    probes
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn start(period: Duration, at_once: bool) -> ScheduleChange {
    ScheduleChange::Start { period, at_once }
}

const TEN: Duration = Duration::from_secs(10);

#[test]
fn an_unchanged_declaration_changes_no_schedule() {
    let server = server(1, "Running", &json!([]));
    let mut probes = ServerProbes::new(&server);
    let both = vec![(ProbeKind::Reachability, start(TEN, false)), (ProbeKind::Health, start(TEN, false))];
    assert_eq!(probes.update(&server), both);
    assert_eq!(probes.update(&server), vec![]);
}

#[test]
fn wanted_proof_of_health_is_probed_at_once_and_every_second() {
    let mut probes = probes();
    let urgent = vec![(ProbeKind::Health, start(URGENT_PERIOD, true))];
    assert_eq!(probes.update(&server(1, "Running", &check_health_task(1))), urgent);
    assert_eq!(probes.update(&server(1, "Running", &json!([]))), vec![(ProbeKind::Health, start(TEN, false))]);
}

#[test]
fn results_from_before_a_check_health_task_opened_prove_nothing() {
    let mut probes = probes();
    let record = |probes: &mut ServerProbes| {
        let (_, generation) = probes.state(ProbeKind::Health).target().unwrap();
        assert!(probes.state(ProbeKind::Health).is_current(generation));
        probes.record(ProbeKind::Health, &ProbeResult::Success, at(0));
        generation
    };
    probes.update(&server(1, "Running", &check_health_task(1)));
    let first = record(&mut probes);
    assert!(probes.observation().health.is_some());
    for changed in [server(1, "Running", &check_health_task(2)), server(2, "Running", &check_health_task(2))] {
        probes.update(&changed);
        assert_eq!(probes.observation().health, None);
        assert!(!probes.state(ProbeKind::Health).is_current(first), "a probe that was under way does not count");
        record(&mut probes);
    }
    probes.update(&server(2, "Running", &json!([])));
    assert!(probes.observation().health.is_some(), "the end of the task keeps the verdict");
}

#[test]
fn a_machine_that_is_gone_is_not_probed() {
    let mut probes = probes();
    let stop = vec![(ProbeKind::Reachability, ScheduleChange::Stop), (ProbeKind::Health, ScheduleChange::Stop)];
    assert_eq!(probes.update(&server(1, "Gone", &json!([]))), stop);
    assert!(probes.is_idle());
    assert_eq!(probes.update(&server(2, "Gone", &json!([]))), vec![]);
}

#[test]
fn only_changed_verdicts_are_acted_on() {
    let mut probes = probes();
    let (success, failure) = (ProbeResult::Success, ProbeResult::Failure("refused".into()));
    let results = [(0, &success), (10, &success), (20, &failure), (30, &failure), (50, &failure), (60, &failure)];
    let changed = results.map(|(second, result)| probes.record(ProbeKind::Reachability, result, at(second)));
    assert_eq!(changed, [true, false, true, false, true, false], "reachable, failing, unreachable");
    assert_eq!(probes.next_probe_within(ProbeKind::Reachability, at(60)), None);
}

#[test]
fn the_next_probe_of_a_failing_machine_comes_right_after_the_threshold() {
    let mut probes = probes();
    probes.record(ProbeKind::Reachability, &ProbeResult::Failure("refused".into()), at(0));
    let left = |second: i64| probes.next_probe_within(ProbeKind::Reachability, at(second));
    assert_eq!(left(25), Some(Duration::from_secs(5) + THRESHOLD_MARGIN));
    assert_eq!(left(40), Some(THRESHOLD_MARGIN), "the threshold has passed without a probe");
    assert_eq!(probes.next_probe_within(ProbeKind::Health, at(25)), None);
}
