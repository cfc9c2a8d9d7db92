use serde_json::{Value, json};

use super::*;

fn at_second(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A Server with these tasks, the first of which is current, and this status beside them.
fn server(state: &str, tasks: &[(&str, &str)], more: &Value) -> Server {
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
    status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "web-0", "namespace": "ns", "uid": "u"},
        "spec": {"machine": {"className": "c"}, "monitoring": {"port": 9100},
                 "healthCheck": {"tcpSocket": {"port": 80}, "deadlineSeconds": 60}},
        "status": status
    }))
    .unwrap()
}

fn good() -> Observed {
    let streak = Streak { good: true, count: 3, since: at_second(0), last: at_second(2), message: String::new() };
    Observed { health: Some((HealthState::Healthy, at_second(1))), streak: Some(streak), ..Observed::default() }
}

fn bad(count: u32, verdict: bool) -> Observed {
    let message = "GET: connection refused".to_owned();
    let streak = Streak { good: false, count, since: at_second(0), last: at_second(2), message };
    let health = verdict.then(|| (HealthState::Unhealthy, at_second(2)));
    Observed { health, streak: Some(streak), ..Observed::default() }
}

fn lost(since: i64, observed: i64) -> Observed {
    let (since, observed) = (at_second(since), at_second(observed));
    Observed { reach: Reach::Unreachable { since, observed, message: "refused".into() }, ..Observed::default() }
}

fn found() -> Observed {
    Observed { reach: Reach::Reachable(at_second(50)), ..Observed::default() }
}

fn outcome(due: &Due) -> Option<(TaskKind, Outcome)> {
    due.note.as_ref().map(|note| (note.kind, note.outcome))
}

fn healthy_fact(state: &str, epoch: i64) -> Value {
    json!({"health": {"state": state, "epoch": epoch, "since": at_second(0).to_string()}})
}

#[test]
fn a_fleet_at_rest_writes_nothing() {
    let ready = server("Ready", &[], &healthy_fact("Healthy", 4));
    let seen = Observed { reach: Reach::Reachable(at_second(0)), ..good() };
    assert_eq!(due(&ready, &seen, at_second(9999)), Due::default());
    assert_eq!(due(&ready, &Observed::default(), at_second(9999)), Due::default());
}

#[test]
fn proven_health_is_one_write_with_fact_and_report() {
    let due = due(&server("Deploying", &[("CheckHealth", "Pending")], &json!({})), &good(), at_second(2));
    assert_eq!(outcome(&due), Some((TaskKind::CheckHealth, Outcome::Succeeded)));
    let fact = due.health.unwrap();
    assert_eq!((fact.state, fact.epoch, fact.since.0), (HealthState::Healthy, 4, at_second(1)));
}

#[test]
fn health_is_not_claimed_before_it_is_asked_for() {
    let mut deploying = server("Deploying", &[("CheckHealth", "Pending")], &json!({}));
    let tasks = &mut deploying.status.as_mut().unwrap().tasks;
    let deploy = Task {
        id: 2,
        kind: TaskKind::DeployApp,
        step: 0,
        executor: Executor::DeploymentController,
        ..tasks[0].clone()
    };
    tasks.push(deploy);
    assert!(due(&deploying, &good(), at_second(2)).is_empty());
}

#[test]
fn a_starting_application_costs_no_write_and_a_failing_one_says_what_it_says() {
    let pending = server("Deploying", &[("CheckHealth", "Pending")], &json!({}));
    let early = due(&pending, &bad(1, false), at_second(1));
    assert!(early.is_empty());
    assert_eq!(early.again, Some(at_second(3)));
    let late = due(&pending, &bad(3, true), at_second(3));
    assert_eq!(outcome(&late), Some((TaskKind::CheckHealth, Outcome::Running)));
    assert_eq!(late.note.unwrap().message, "GET: connection refused");
    assert_eq!(late.health, None, "without a Healthy fact nothing has to be taken back");
}

#[test]
fn news_of_a_failing_check_are_rare() {
    let running = server("Deploying", &[("CheckHealth", "Running")], &json!({}));
    let mut seen = bad(9, true);
    assert!(due(&running, &seen, at_second(20)).is_empty(), "the same message");
    seen.streak.as_mut().unwrap().message = "GET: 503".into();
    seen.reported = Some(at_second(10));
    let wait = due(&running, &seen, at_second(20));
    assert!(wait.is_empty());
    assert_eq!(wait.again, Some(at_second(40)));
    assert_eq!(due(&running, &seen, at_second(40)).note.unwrap().message, "GET: 503");
}

#[test]
fn past_the_deadline_the_check_has_failed_and_later_health_is_still_a_fact() {
    let running = server("Deploying", &[("CheckHealth", "Running")], &json!({}));
    assert_eq!(due(&running, &bad(9, true), at_second(59)).again, Some(at_second(60)));
    let failed = due(&running, &bad(9, true), at_second(60));
    assert_eq!(outcome(&failed), Some((TaskKind::CheckHealth, Outcome::Failed)));
    assert_eq!(failed.note.unwrap().message, "not healthy within 60 s: GET: connection refused");
    let stalled = server("Deploying", &[("CheckHealth", "Failed")], &json!({}));
    let recovered = due(&stalled, &good(), at_second(500));
    assert_eq!((recovered.note, recovered.health.map(|fact| fact.state)), (None, Some(HealthState::Healthy)));
}

#[test]
fn a_ready_server_that_turns_sick_is_one_write() {
    let ready = server("Ready", &[], &healthy_fact("Healthy", 4));
    assert!(due(&ready, &bad(2, false), at_second(2)).is_empty());
    assert_eq!(due(&ready, &bad(3, true), at_second(2)).health.unwrap().state, HealthState::Unhealthy);
    let known = server("Deploying", &[("CheckHealth", "Running")], &healthy_fact("Unhealthy", 4));
    assert!(due(&known, &bad(4, true), at_second(2)).is_empty());
    let unknown = server("Unknown", &[], &healthy_fact("Healthy", 4));
    assert!(due(&unknown, &bad(4, true), at_second(2)).is_empty(), "nobody can tell");
}

#[test]
fn reachability_is_written_when_it_changes() {
    let quiet = server("Ready", &[], &healthy_fact("Healthy", 4));
    let fact = due(&quiet, &lost(0, 30), at_second(30)).reachability.unwrap();
    assert_eq!((fact.reachable, fact.since.0, fact.observed_at.0), (false, at_second(0), at_second(30)));
    assert!(due(&quiet, &found(), at_second(60)).is_empty(), "no fact means reachable");

    let told = json!({"reachability": {"reachable": false, "since": at_second(0).to_string(), "observedAt": at_second(30).to_string()}});
    let unknown = server("Unknown", &[("AwaitRecovery", "Pending")], &told);
    assert!(due(&unknown, &lost(0, 90), at_second(90)).is_empty());
    let back = due(&unknown, &found(), at_second(90));
    assert_eq!(outcome(&back), Some((TaskKind::AwaitRecovery, Outcome::Succeeded)));
    assert!(back.reachability.unwrap().reachable);

    let mut stricter = unknown;
    stricter.spec.reachability.unreachable_after_seconds = 60;
    let fact = due(&stricter, &lost(0, 90), at_second(90)).reachability.unwrap();
    assert_eq!(fact.observed_at.0, at_second(90), "the fact must meet the threshold that is declared now");
}

#[test]
fn a_retired_machine_that_goes_away_is_no_news() {
    let offline = server("Offline", &[], &healthy_fact("Healthy", 4));
    assert!(due(&offline, &Observed { reach: lost(0, 90).reach, ..bad(3, true) }, at_second(90)).is_empty());
}

#[test]
fn the_proof_of_health_binds_monitoring_unless_a_person_has_to_agree_first() {
    let check = [("CheckHealth", "Running")];
    let proven = due(&server("Deploying", &check, &json!({})), &good(), at_second(3));
    let fact = proven.monitoring.clone().unwrap().unwrap();
    assert_eq!(
        (outcome(&proven), fact.phase),
        (Some((TaskKind::CheckHealth, Outcome::Succeeded)), MonitoringPhase::Bound)
    );

    let bound = json!({"monitoring": {"phase": "Bound", "digest": fact.digest}});
    assert_eq!(due(&server("Deploying", &check, &bound), &good(), at_second(3)).monitoring, None, "it is bound");
    let paused = json!({"monitoring": {"phase": "Paused", "digest": fact.digest}});
    assert_eq!(due(&server("Deploying", &check, &paused), &good(), at_second(3)).monitoring, Some(Some(fact)));

    let mut gated = server("Deploying", &check, &json!({}));
    gated.spec.gates = serde_json::from_value(json!([{"before": "DeployApp"}])).unwrap();
    assert!(due(&gated, &good(), at_second(3)).monitoring.is_some(), "that gate was passed");
    gated.spec.gates = serde_json::from_value(json!([{"before": "ReleaseTraffic"}])).unwrap();
    assert_eq!(due(&gated, &good(), at_second(3)).monitoring, None);
    let mut unwatched = server("Deploying", &check, &json!({}));
    unwatched.spec.monitoring = None;
    assert_eq!(due(&unwatched, &good(), at_second(3)).monitoring, None, "none is declared");
    let sick = due(&server("Deploying", &check, &json!({})), &bad(3, true), at_second(70));
    assert_eq!((outcome(&sick), sick.monitoring), (Some((TaskKind::CheckHealth, Outcome::Failed)), None));
}

#[test]
fn monitoring_is_bound_paused_and_unbound() {
    let bind = server("Ready", &[("BindMonitoring", "Pending")], &json!({}));
    let bound = due(&bind, &Observed::default(), at_second(0));
    let fact = bound.monitoring.clone().unwrap().unwrap();
    assert_eq!((fact.phase, Some(fact.digest)), (MonitoringPhase::Bound, lifecycle::monitoring_digest(&bind)));
    assert_eq!(outcome(&bound), Some((TaskKind::BindMonitoring, Outcome::Succeeded)));

    let fact = json!({"monitoring": {"phase": "Bound", "digest": "d"}});
    let pause = due(&server("Unknown", &[("PauseMonitoring", "Pending")], &fact), &Observed::default(), at_second(0));
    let paused = pause.monitoring.clone().unwrap().unwrap();
    assert_eq!((paused.phase, paused.digest.as_str()), (MonitoringPhase::Paused, "d"));
    let unbind = due(&server("Offline", &[("UnbindMonitoring", "Pending")], &fact), &Observed::default(), at_second(0));
    assert_eq!(
        (unbind.monitoring.clone(), outcome(&unbind)),
        (Some(None), Some((TaskKind::UnbindMonitoring, Outcome::Succeeded)))
    );
}
