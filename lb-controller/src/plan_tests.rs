use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn backend() -> Value {
    json!([{"name": "web", "port": 8080}])
}

fn fact(phase: &str) -> Value {
    json!({"phase": phase, "services": backend(), "address": "10.0.0.1"})
}

fn task(kind: &str, phase: &str, step: i64) -> Value {
    let executor = if kind == "Gate" { "person" } else { "lb-controller" };
    let started = (phase == "Running").then(|| at(0).to_string());
    json!({"id": step, "kind": kind, "step": step, "phase": phase, "executor": executor, "startedAt": started})
}

fn server(state: &str, traffic: &Value, tasks: &Value) -> Server {
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "web-0", "namespace": "ns", "uid": "u"},
        "spec": {"machine": {"className": "c"}, "traffic": {"services": backend(), "drainSeconds": 30}},
        "status": {"state": state, "traffic": traffic, "firstTaskID": 1, "tasks": tasks,
                   "machine": {"phase": "Running", "address": "10.0.0.1"}}
    }))
    .unwrap()
}

fn phase(plan: &Plan) -> Option<TrafficPhase> {
    plan.target.as_ref().map(|target| target.phase)
}

fn step(plan: &Plan) -> (Outcome, Fact, Order) {
    let step = plan.step.clone().unwrap();
    (step.outcome, step.fact, step.order)
}

fn known(phase: &str) -> Fact {
    Fact::Known(serde_json::from_value(fact(phase)).unwrap())
}

use TrafficPhase::{Draining, Held, Serving};

#[test]
fn a_server_at_rest_shows_what_its_fact_says() {
    for (state, fact_phase, shown) in [
        ("Ready", "Serving", Serving),
        ("Ready", "Held", Held),
        ("Deploying", "Held", Held),
        ("Deploying", "Serving", Draining),
        ("Initializing", "Draining", Draining),
        ("Offline", "Serving", Draining),
        ("Unknown", "Serving", Held),
        ("Unknown", "Draining", Held),
    ] {
        let plan = plan(&server(state, &fact(fact_phase), &json!([])), at(0));
        assert_eq!((phase(&plan), plan.step), (Some(shown), None), "{state} {fact_phase}");
    }
    assert_eq!(plan(&server("Ready", &Value::Null, &json!([])), at(0)), Plan::default());
}

#[test]
fn traffic_drains_before_it_is_held() {
    let begun = plan(&server("Deploying", &fact("Serving"), &json!([task("HoldTraffic", "Pending", 1)])), at(0));
    assert_eq!(phase(&begun), Some(Draining));
    assert_eq!(step(&begun), (Outcome::Running, known("Draining"), Order::AfterTraffic));
    let running = server("Deploying", &fact("Draining"), &json!([task("HoldTraffic", "Running", 1)]));
    let draining = plan(&running, at(29));
    assert_eq!((phase(&draining), &draining.step, draining.again), (Some(Draining), &None, Some(at(30))));
    let held = plan(&running, at(30));
    assert_eq!(phase(&held), Some(Held));
    assert_eq!(step(&held), (Outcome::Succeeded, known("Held"), Order::AfterTraffic));
}

#[test]
fn nobody_waits_for_a_lost_machine_or_for_no_seconds() {
    let lost = plan(&server("Unknown", &fact("Serving"), &json!([task("HoldTraffic", "Pending", 1)])), at(0));
    assert_eq!((phase(&lost), step(&lost).0), (Some(Held), Outcome::Succeeded));
    let mut quick = server("Deploying", &fact("Serving"), &json!([task("HoldTraffic", "Pending", 1)]));
    quick.spec.traffic.as_mut().unwrap().drain_seconds = 0;
    assert_eq!((phase(&plan(&quick, at(0))), step(&plan(&quick, at(0))).0), (Some(Held), Outcome::Succeeded));
}

#[test]
fn a_new_task_drains_anew_though_the_one_before_had_begun() {
    let again = plan(&server("Initializing", &fact("Draining"), &json!([task("HoldTraffic", "Pending", 1)])), at(500));
    assert_eq!((phase(&again), step(&again).0), (Some(Draining), Outcome::Running));
}

#[test]
fn a_gate_before_retirement_keeps_traffic_as_it_is() {
    let tasks = json!([task("Gate", "Pending", 1), task("HoldTraffic", "Pending", 2)]);
    let waiting = plan(&server("Offline", &fact("Serving"), &tasks), at(0));
    assert_eq!((phase(&waiting), waiting.step), (Some(Serving), None));
    let tasks = json!([task("Gate", "Succeeded", 1), task("HoldTraffic", "Pending", 2)]);
    assert_eq!(phase(&plan(&server("Offline", &fact("Serving"), &tasks), at(0))), Some(Draining));
    let elsewhere = plan(
        &server("Deploying", &fact("Serving"), &json!([task("Gate", "Pending", 1), task("HoldTraffic", "Pending", 2)])),
        at(0),
    );
    assert_eq!(phase(&elsewhere), Some(Draining), "only retirement waits");
}

#[test]
fn registering_replaces_what_was_registered() {
    let old = json!({"phase": "Held", "services": [{"name": "old", "port": 1}], "address": "10.0.0.9"});
    let plan = plan(&server("Initializing", &old, &json!([task("RegisterBackend", "Pending", 1)])), at(0));
    let target = plan.target.clone().unwrap();
    assert_eq!((target.phase, target.services[0].name.as_str(), target.address.as_str()), (Held, "web", "10.0.0.1"));
    assert_eq!(step(&plan), (Outcome::Succeeded, known("Held"), Order::AfterTraffic));
}

#[test]
fn registering_nothing_means_that_no_load_balancer_knows_it() {
    let mut server = server("Initializing", &fact("Held"), &json!([task("RegisterBackend", "Pending", 1)]));
    server.spec.traffic = None;
    let plan = plan(&server, at(0));
    assert_eq!((plan.target.clone(), step(&plan).1), (None, Fact::Unknown));
}

#[test]
fn a_release_counts_before_it_shows() {
    let releasing = server("Ready", &fact("Held"), &json!([task("ReleaseTraffic", "Pending", 1)]));
    let plan_before = plan(&releasing, at(0));
    assert_eq!(phase(&plan_before), Some(Held));
    assert_eq!(step(&plan_before), (Outcome::Succeeded, known("Serving"), Order::BeforeTraffic));
    let late = server("Deploying", &fact("Held"), &json!([task("ReleaseTraffic", "Pending", 1)]));
    assert_eq!((phase(&plan(&late, at(0))), plan(&late, at(0)).step), (Some(Held), None));
}

#[test]
fn removal_is_complete() {
    let plan = plan(&server("Offline", &fact("Held"), &json!([task("RemoveBackend", "Pending", 1)])), at(0));
    assert_eq!(plan.target, None);
    assert_eq!(step(&plan), (Outcome::Succeeded, Fact::Unknown, Order::AfterTraffic));
}

#[test]
fn a_retired_server_is_removed_as_soon_as_it_is_drained() {
    let draining = server("Offline", &fact("Draining"), &json!([task("HoldTraffic", "Running", 1)]));
    let before = plan(&draining, at(29));
    assert_eq!((phase(&before), before.step.clone()), (Some(Draining), None));
    let over = plan(&draining, at(30));
    assert_eq!(over.target, None);
    assert_eq!(step(&over), (Outcome::Succeeded, Fact::Unknown, Order::AfterTraffic));
}

#[test]
fn an_haproxy_that_is_not_there_is_refused_with_words() {
    let mut server = server("Initializing", &Value::Null, &json!([task("RegisterBackend", "Pending", 1)]));
    server.spec.traffic.as_mut().unwrap().haproxy =
        serde_json::from_value(json!([{"name": "edge", "port": 80}])).unwrap();
    let step = plan(&server, at(0)).step.unwrap();
    assert_eq!(step.outcome, Outcome::Failed);
    assert!(step.message.contains("spec.traffic.haproxy") && step.message.contains("\"edge\""), "{}", step.message);
}

#[test]
fn a_task_that_waits_for_its_next_attempt_is_left_alone() {
    let mut tasks = json!([task("HoldTraffic", "Pending", 1)]);
    tasks[0]["notBefore"] = json!(at(60).to_string());
    let plan = plan(&server("Deploying", &fact("Serving"), &tasks), at(0));
    assert_eq!((phase(&plan), plan.step, plan.again), (Some(Draining), None, Some(at(60))));
}

proptest! {
    /// Whatever the state, the tasks and the facts are: the load balancers show traffic only when the fact says
    /// Serving, so that it is sure to be drained, and the Server is Ready, or waits for a person to retire it.
    #[test]
    fn nothing_but_a_ready_server_with_a_serving_fact_takes_traffic(
        state in prop::sample::select(&["Initializing", "Deploying", "Ready", "Unknown", "Offline"][..]),
        traffic in prop::sample::select(&["Held", "Serving", "Draining", ""][..]),
        kinds in prop::collection::vec((prop::sample::select(&["Gate", "HoldTraffic", "RegisterBackend", "ReleaseTraffic", "RemoveBackend"][..]),
            prop::sample::select(&["Pending", "Running", "Succeeded", "Failed", "Cancelled"][..])), 0..4),
        now in -100..100i64,
    ) {
        let fact = if traffic.is_empty() { Value::Null } else { fact(traffic) };
        let tasks: Vec<_> = (1..).zip(&kinds).map(|(step, (kind, phase))| task(kind, phase, step)).collect();
        let server = server(state, &fact, &json!(tasks));
        let plan = plan(&server, at(now));
        if phase(&plan) == Some(Serving) {
            prop_assert_eq!(traffic, "Serving");
            prop_assert!(state == "Ready" || state == "Offline" && kinds.iter().any(|(kind, _)| *kind == "HoldTraffic"));
        }
        if let Some(Step { fact: Fact::Known(fact), order, .. }) = &plan.step {
            prop_assert_eq!(fact.phase == Serving, *order == Order::BeforeTraffic);
            prop_assert!(fact.phase != Serving || state == "Ready");
        }
    }
}
