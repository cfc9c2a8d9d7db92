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
    json!([{"id": id, "kind": "CheckHealth", "step": 1, "phase": "Pending"}])
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
        probes.record(ProbeKind::Health, &ProbeResult::Success, at(0), false);
        generation
    };
    probes.update(&server(1, "Running", &check_health_task(1)));
    let first = record(&mut probes);
    assert!(probes.observation(Trust::Full).health.is_some());
    for changed in [server(1, "Running", &check_health_task(2)), server(2, "Running", &check_health_task(2))] {
        probes.update(&changed);
        assert_eq!(probes.observation(Trust::Full).health, None);
        assert!(!probes.state(ProbeKind::Health).is_current(first), "a probe that was under way does not count");
        record(&mut probes);
    }
    probes.update(&server(2, "Running", &json!([])));
    assert!(probes.observation(Trust::Full).health.is_some(), "the end of the task keeps the verdict");
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
    let changed = results.map(|(second, result)| probes.record(ProbeKind::Reachability, result, at(second), false));
    assert_eq!(changed, [true, false, true, false, true, false], "reachable, failing, unreachable");
    assert_eq!(probes.next_probe_within(ProbeKind::Reachability, at(60)), None);
}

#[test]
fn the_next_probe_of_a_failing_machine_comes_right_after_the_threshold() {
    let mut probes = probes();
    probes.record(ProbeKind::Reachability, &ProbeResult::Failure("refused".into()), at(0), false);
    let left = |second: i64| probes.next_probe_within(ProbeKind::Reachability, at(second));
    assert_eq!(left(25), Some(Duration::from_secs(5) + THRESHOLD_MARGIN));
    assert_eq!(left(40), Some(THRESHOLD_MARGIN), "the threshold has passed without a probe");
    assert_eq!(probes.next_probe_within(ProbeKind::Health, at(25)), None);
}

/// A Server with this state and these further facts, as a target.
fn look_of(state: &str, phase: &str, reachability: &Value) -> Option<Look> {
    let mut server = server(1, phase, &json!([]));
    let status = server.status.as_mut().unwrap();
    status.state = serde_json::from_value(json!(state)).unwrap();
    status.reachability = serde_json::from_value(reachability.clone()).unwrap();
    let mut probes = ServerProbes::new(&server);
    probes.update(&server);
    probes.look()
}

#[test]
fn only_machines_that_ought_to_be_reachable_are_surveyed() {
    let time = at(0).to_string();
    let lost = json!({"reachable": false, "since": time, "observedAt": time});
    let table = [
        ("Ready", "Running", json!(null), true),
        ("Deploying", "Running", json!({"reachable": true, "since": time, "observedAt": time}), true),
        ("Unknown", "Running", lost, false),
        ("Offline", "Running", json!(null), false),
        ("Initializing", "Creating", json!(null), false),
        ("Initializing", "Gone", json!(null), false),
    ];
    for (state, phase, reachability, expected) in table {
        assert_eq!(look_of(state, phase, &reachability).is_some(), expected, "{state} {phase} {reachability}");
    }
    let look = look_of("Ready", "Running", &json!(null)).unwrap();
    assert_eq!(look, Look { round: Duration::from_secs(12), is_lost: false, is_unreachable: false });
}

#[test]
fn the_machine_is_looked_at_when_the_health_check_begins_to_fail() {
    let mut probes = probes();
    let (success, failure) = (ProbeResult::Success, ProbeResult::Failure("refused".into()));
    probes.record(ProbeKind::Reachability, &success, at(0), false);
    probes.record(ProbeKind::Health, &failure, at(5), false);
    assert!(probes.must_look_at_machine());
    let is_news = probes.record(ProbeKind::Reachability, &success, at(6), false);
    assert!(is_news && !probes.must_look_at_machine(), "a reconcile may have waited for that");
    probes.record(ProbeKind::Health, &failure, at(7), false);
    assert!(!probes.must_look_at_machine(), "once per series of failures");
}

#[test]
fn what_was_seen_while_blind_is_forgotten() {
    let failure = ProbeResult::Failure("refused".into());
    let blind = |probes: &mut ServerProbes| {
        for second in [0, 20, 40, 60] {
            probes.record(ProbeKind::Reachability, &failure, at(second), true);
            probes.record(ProbeKind::Health, &failure, at(second), true);
        }
        assert!(probes.look().unwrap().is_unreachable);
        assert_eq!(
            probes.observation(Trust::Nothing).health.map(|verdict| verdict.state),
            Some(HealthState::Unhealthy)
        );
    };
    let forgotten = |probes: &mut ServerProbes| {
        let observation = probes.observation(Trust::Nothing);
        assert!(observation.health.is_none() && observation.health_is_forgotten);
        assert!(!probes.look().unwrap().is_lost);
    };
    let mut all = probes();
    blind(&mut all);
    all.forget_failures();
    forgotten(&mut all);
    // A machine that is seen again while others are not.
    let mut one = probes();
    blind(&mut one);
    one.record(ProbeKind::Reachability, &ProbeResult::Success, at(61), true);
    forgotten(&mut one);
    // An application that fails on a machine that is seen all the time is sick.
    let mut seen = probes();
    for second in [0, 10, 20] {
        seen.record(ProbeKind::Reachability, &ProbeResult::Success, at(second), true);
        seen.record(ProbeKind::Health, &failure, at(second), true);
    }
    seen.forget_failures();
    assert_eq!(seen.observation(Trust::Full).health.map(|verdict| verdict.state), Some(HealthState::Unhealthy));
}
