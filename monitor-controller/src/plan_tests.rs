use serde_json::{Value, json};

use super::*;
use crate::{
    sight::Trust,
    verdict::{ConsecutiveResults, HealthVerdict},
};

fn at_second(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A Server in this state with these tasks (kind and phase), the first of which is current, and these further facts.
fn server(state: &str, tasks: &[(&str, &str)], facts: &Value) -> Server {
    let tasks: Vec<_> = (1..)
        .zip(tasks)
        .map(|(id, (kind, phase))| {
            let started = (*phase == "Running").then(|| at_second(0).to_string());
            json!({"id": id, "kind": kind, "phase": phase, "step": 1, "executor": "monitor-controller",
                   "startedAt": started, "message": "GET: connection refused"})
        })
        .collect();
    let mut status = json!({"state": state, "epoch": 4, "firstTaskID": 1, "lastTaskID": tasks.len(), "tasks": tasks,
                            "machine": {"phase": "Running", "id": "m", "address": "10.0.0.1"}});
    status.as_object_mut().unwrap().extend(facts.as_object().unwrap().clone());
    berth_testing::server(json!({"metadata": {"name": "web-0", "namespace": "ns", "uid": "u"},
        "spec": {"machine": {"className": "c"}, "monitoring": {"port": 9100},
                 "healthCheck": {"tcpSocket": {"port": 80}, "deadlineSeconds": 60}},
        "status": status
    }))
}

fn healthy() -> Observation {
    let results =
        ConsecutiveResults { success: true, count: 3, since: at_second(0), last: at_second(2), message: String::new() };
    let verdict = HealthVerdict { state: HealthState::Healthy, since: at_second(1) };
    Observation { health: Some(verdict), health_results: Some(results), ..Observation::default() }
}

/// So many failures since second 0, enough for a verdict or not.
fn failing(count: u32, is_unhealthy: bool) -> Observation {
    let message = "GET: connection refused".to_owned();
    let results = ConsecutiveResults { success: false, count, since: at_second(0), last: at_second(2), message };
    let health = is_unhealthy.then(|| HealthVerdict { state: HealthState::Unhealthy, since: at_second(2) });
    Observation { health, health_results: Some(results), ..Observation::default() }
}

fn unreachable(since: i64, observed: i64) -> Observation {
    let (since, observed_at) = (at_second(since), at_second(observed));
    let reachability = ReachabilityVerdict::Unreachable { since, observed_at, message: "refused".into() };
    Observation { reachability, ..Observation::default() }
}

fn reachable(since: i64) -> Observation {
    let reachability = ReachabilityVerdict::Reachable { since: at_second(since) };
    Observation { reachability, ..Observation::default() }
}

/// What a write says, taken apart.
impl DueWrite {
    fn outcome(&self) -> Option<(TaskKind, Outcome)> {
        self.report.as_ref().map(|report| (report.kind, report.result.outcome))
    }

    fn message(&self) -> &str {
        &self.report.as_ref().unwrap().result.message
    }

    fn all_facts(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().chain(self.report.iter().flat_map(|report| &report.result.facts))
    }

    fn health(&self) -> Option<&HealthFact> {
        self.all_facts().find_map(|fact| if let Fact::Health(fact) = fact { Some(fact) } else { None })
    }

    fn reachability(&self) -> Option<&ReachabilityFact> {
        self.all_facts().find_map(|fact| if let Fact::Reachability(fact) = fact { Some(fact) } else { None })
    }

    /// The outer none: no new fact. The inner none: the fact is removed.
    fn monitoring(&self) -> Option<&Option<MonitoringFact>> {
        self.all_facts().find_map(|fact| if let Fact::Monitoring(fact) = fact { Some(fact) } else { None })
    }
}

fn healthy_fact(state: &str, epoch: i64) -> Value {
    json!({"health": {"state": state, "epoch": epoch, "since": at_second(0).to_string()}})
}

#[test]
fn a_fleet_at_rest_writes_nothing() {
    let ready = server("Ready", &[], &healthy_fact("Healthy", 4));
    let observation = Observation { reachability: reachable(0).reachability, ..healthy() };
    assert_eq!(plan(&ready, &observation, at_second(9999)), DueWrite::default());
    assert_eq!(plan(&ready, &Observation::default(), at_second(9999)), DueWrite::default());
}

#[test]
fn proven_health_is_one_write_with_fact_and_report() {
    let due = plan(&server("Deploying", &[("CheckHealth", "Pending")], &json!({})), &healthy(), at_second(2));
    assert_eq!(due.outcome(), Some((TaskKind::CheckHealth, Outcome::Succeeded)));
    let fact = due.health().unwrap();
    assert_eq!((fact.state, fact.epoch, fact.since.0), (HealthState::Healthy, 4, at_second(1)));
}

#[test]
fn health_is_not_proven_before_a_check_health_task_opens() {
    let mut deploying = server("Deploying", &[("CheckHealth", "Pending")], &json!({}));
    let tasks = &mut deploying.status.as_mut().unwrap().tasks;
    let deploy = Task { id: 2, kind: TaskKind::DeployApp, step: 0, ..tasks[0].clone() };
    tasks.push(deploy);
    assert!(plan(&deploying, &healthy(), at_second(2)).is_empty());
}

#[test]
fn a_start_costs_no_write_and_lasting_failures_are_reported() {
    let pending = server("Deploying", &[("CheckHealth", "Pending")], &json!({}));
    let early = plan(&pending, &failing(1, false), at_second(1));
    assert!(early.is_empty());
    assert_eq!(early.requeue_at, Some(at_second(3)));
    let late = plan(&pending, &failing(3, true), at_second(3));
    assert_eq!(late.outcome(), Some((TaskKind::CheckHealth, Outcome::Running)));
    assert_eq!(late.message(), "GET: connection refused");
    assert_eq!(late.health(), None, "without a Healthy fact nothing has to be taken back");
}

#[test]
fn changing_failures_are_reported_at_most_every_30_seconds() {
    let running = server("Deploying", &[("CheckHealth", "Running")], &json!({}));
    let mut observation = failing(9, true);
    assert!(plan(&running, &observation, at_second(20)).is_empty(), "the same message");
    observation.health_results.as_mut().unwrap().message = "GET: 503".into();
    observation.failure_reported_at = Some(at_second(10));
    let wait = plan(&running, &observation, at_second(20));
    assert!(wait.is_empty());
    assert_eq!(wait.requeue_at, Some(at_second(40)));
    assert_eq!(plan(&running, &observation, at_second(40)).message(), "GET: 503");
}

#[test]
fn past_the_deadline_the_check_has_failed_and_later_health_is_still_a_fact() {
    let running = server("Deploying", &[("CheckHealth", "Running")], &json!({}));
    assert_eq!(plan(&running, &failing(9, true), at_second(59)).requeue_at, Some(at_second(60)));
    let failed = plan(&running, &failing(9, true), at_second(60));
    assert_eq!(failed.outcome(), Some((TaskKind::CheckHealth, Outcome::Failed)));
    assert_eq!(failed.message(), "not healthy within 60 s: GET: connection refused");
    let stalled = server("Deploying", &[("CheckHealth", "Failed")], &json!({}));
    let recovered = plan(&stalled, &healthy(), at_second(500));
    assert_eq!((recovered.outcome(), recovered.health().map(|fact| fact.state)), (None, Some(HealthState::Healthy)));
}

#[test]
fn a_ready_server_that_becomes_unhealthy_is_one_write() {
    let ready = server("Ready", &[], &healthy_fact("Healthy", 4));
    assert!(plan(&ready, &failing(2, false), at_second(2)).is_empty());
    assert_eq!(plan(&ready, &failing(3, true), at_second(2)).health().unwrap().state, HealthState::Unhealthy);
    let known = server("Deploying", &[("CheckHealth", "Running")], &healthy_fact("Unhealthy", 4));
    assert!(plan(&known, &failing(4, true), at_second(2)).is_empty());
    let unknown = server("Unknown", &[], &healthy_fact("Healthy", 4));
    assert!(plan(&unknown, &failing(4, true), at_second(2)).is_empty(), "the machine does not answer anyway");
}

#[test]
fn reachability_is_written_when_it_changes() {
    let ready = server("Ready", &[], &healthy_fact("Healthy", 4));
    let due = plan(&ready, &unreachable(0, 30), at_second(30));
    let fact = due.reachability().unwrap();
    assert_eq!((fact.reachable, fact.since.0, fact.observed_at.0), (false, at_second(0), at_second(30)));
    assert!(plan(&ready, &reachable(50), at_second(60)).is_empty(), "no fact means reachable");

    let known = json!({"reachability": {"reachable": false, "since": at_second(0).to_string(), "observedAt": at_second(30).to_string()}});
    let unknown = server("Unknown", &[("AwaitRecovery", "Pending")], &known);
    assert!(plan(&unknown, &unreachable(0, 90), at_second(90)).is_empty());
    let recovered = plan(&unknown, &reachable(50), at_second(90));
    assert_eq!(recovered.outcome(), Some((TaskKind::AwaitRecovery, Outcome::Succeeded)));
    assert!(recovered.reachability().unwrap().reachable);

    let mut raised = unknown;
    raised.spec.reachability.unreachable_after_seconds = 60;
    let due = plan(&raised, &unreachable(0, 90), at_second(90));
    let observed_at = due.reachability().unwrap().observed_at.0;
    assert_eq!(observed_at, at_second(90), "the fact must meet the threshold that is declared now");
}

#[test]
fn nothing_is_written_when_a_retired_machine_goes_away() {
    let offline = server("Offline", &[], &healthy_fact("Healthy", 4));
    let observation = Observation { reachability: unreachable(0, 90).reachability, ..failing(3, true) };
    assert!(plan(&offline, &observation, at_second(90)).is_empty());
}

#[test]
fn the_proof_of_health_binds_monitoring_unless_traffic_is_gated() {
    let check = [("CheckHealth", "Running")];
    let proven = plan(&server("Deploying", &check, &json!({})), &healthy(), at_second(3));
    let bound = proven.monitoring().unwrap().as_ref().unwrap();
    assert_eq!(proven.outcome(), Some((TaskKind::CheckHealth, Outcome::Succeeded)));
    assert_eq!(bound.phase, MonitoringPhase::Bound);

    let in_phase = |phase: &str| json!({"monitoring": {"phase": phase, "digest": bound.digest}});
    let due = plan(&server("Deploying", &check, &in_phase("Bound")), &healthy(), at_second(3));
    assert_eq!(due.monitoring(), None, "it is bound already");
    let due = plan(&server("Deploying", &check, &in_phase("Paused")), &healthy(), at_second(3));
    assert_eq!(due.monitoring(), Some(&Some(bound.clone())));

    let mut gated = server("Deploying", &check, &json!({}));
    gated.spec.gates = serde_json::from_value(json!([{"before": "DeployApp"}])).unwrap();
    assert!(plan(&gated, &healthy(), at_second(3)).monitoring().is_some(), "that gate was passed");
    gated.spec.gates = serde_json::from_value(json!([{"before": "ReleaseTraffic"}])).unwrap();
    assert_eq!(plan(&gated, &healthy(), at_second(3)).monitoring(), None);
    let mut unmonitored = server("Deploying", &check, &json!({}));
    unmonitored.spec.monitoring = None;
    assert_eq!(plan(&unmonitored, &healthy(), at_second(3)).monitoring(), None, "none is declared");
    let failed = plan(&server("Deploying", &check, &json!({})), &failing(3, true), at_second(70));
    assert_eq!((failed.outcome(), failed.monitoring()), (Some((TaskKind::CheckHealth, Outcome::Failed)), None));
}

#[test]
fn monitoring_is_bound_paused_and_unbound() {
    let pending = server("Ready", &[("BindMonitoring", "Pending")], &json!({}));
    let due = plan(&pending, &Observation::default(), at_second(0));
    let bound = due.monitoring().unwrap().as_ref().unwrap();
    assert_eq!((bound.phase, Some(&bound.digest)), (MonitoringPhase::Bound, pending.monitoring_digest().as_ref()));
    assert_eq!(due.outcome(), Some((TaskKind::BindMonitoring, Outcome::Succeeded)));

    let fact = json!({"monitoring": {"phase": "Bound", "digest": "d"}});
    let pause = server("Unknown", &[("PauseMonitoring", "Pending")], &fact);
    let due = plan(&pause, &Observation::default(), at_second(0));
    let paused = due.monitoring().unwrap().as_ref().unwrap();
    assert_eq!((paused.phase, paused.digest.as_str()), (MonitoringPhase::Paused, "d"));
    let unbind = server("Offline", &[("UnbindMonitoring", "Pending")], &fact);
    let due = plan(&unbind, &Observation::default(), at_second(0));
    assert_eq!(
        (due.monitoring(), due.outcome()),
        (Some(&None), Some((TaskKind::UnbindMonitoring, Outcome::Succeeded)))
    );
}

/// What a process has found that may be blind.
fn doubtful(observation: Observation) -> Observation {
    Observation { trust: Trust::Nothing, ..observation }
}

/// The machine's probe, with this result from then to then.
fn machine(success: bool, since: i64, last: i64) -> ConsecutiveResults {
    let (since, last) = (at_second(since), at_second(last));
    ConsecutiveResults { success, count: 2, since, last, message: String::new() }
}

#[test]
fn who_may_be_blind_writes_what_is_good_and_nothing_bad() {
    let ready = server("Ready", &[], &healthy_fact("Healthy", 4));
    let lost = Observation { machine_results: Some(machine(false, 0, 30)), ..unreachable(0, 30) };
    assert!(plan(&ready, &lost, at_second(30)).reachability().is_some());
    assert_eq!(plan(&ready, &doubtful(lost), at_second(30)), DueWrite::default());
    let known = json!({"reachability": {"reachable": false, "since": at_second(0).to_string(), "observedAt": at_second(30).to_string()}});
    let unknown = server("Unknown", &[("AwaitRecovery", "Pending")], &known);
    let back = Observation { machine_results: Some(machine(true, 50, 60)), ..reachable(50) };
    let due = plan(&unknown, &doubtful(back), at_second(60));
    assert!(due.reachability().unwrap().reachable);
    assert_eq!(due.outcome(), Some((TaskKind::AwaitRecovery, Outcome::Succeeded)));
    let due = plan(&server("Deploying", &[("CheckHealth", "Pending")], &json!({})), &doubtful(healthy()), at_second(2));
    assert_eq!(due.health().unwrap().state, HealthState::Healthy);
}

#[test]
fn a_sick_application_is_reported_if_its_machine_is_seen_and_not_if_it_is_lost_with_the_others() {
    let ready = server("Ready", &[], &healthy_fact("Healthy", 4));
    let sick = |results| Observation { machine_results: Some(results), ..failing(3, true) };
    let reported = |observation: &Observation| plan(&ready, observation, at_second(2)).health().is_some();
    assert!(reported(&doubtful(sick(machine(true, 0, 1)))), "the machine was seen since");
    assert!(!reported(&doubtful(sick(machine(false, 1, 2)))), "it is lost");
    assert!(!reported(&doubtful(sick(machine(true, -60, -1)))), "it was not looked at since");
    // Nothing is suspicious so far, and a round takes two seconds.
    let after = |second, results| {
        let trust = Trust::AfterRound { surveyed_at: at_second(second), round: std::time::Duration::from_secs(2) };
        Observation { trust, ..sick(results) }
    };
    assert!(reported(&after(1, machine(true, -60, 1))));
    assert!(!reported(&after(9, machine(true, -60, -1))), "it has to be looked at first");
    let waits = plan(&ready, &after(1, machine(false, 1, 1)), at_second(1));
    assert!(waits.is_empty() && waits.requeue_at > Some(at_second(3)), "the others are looked at first");
    assert!(reported(&after(3, machine(false, 1, 3))), "the others are seen");
}

#[test]
fn a_check_of_health_does_not_fail_while_its_machine_is_out_of_sight_nor_before_it_is_seen_again() {
    let running = server("Deploying", &[("CheckHealth", "Running")], &json!({}));
    let lost = Observation { machine_results: Some(machine(false, 0, 60)), ..failing(9, true) };
    let outcome = |observation: &Observation| plan(&running, observation, at_second(61)).outcome();
    assert_eq!(outcome(&lost), Some((TaskKind::CheckHealth, Outcome::Failed)));
    assert_eq!(outcome(&doubtful(lost)), None);
    let forgotten = Observation { health_is_forgotten: true, ..Observation::default() };
    assert_eq!(outcome(&forgotten), None);
}
