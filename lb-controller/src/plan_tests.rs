use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn backend() -> Value {
    json!([{"service": "web", "port": 8080}])
}

fn fact(phase: &str) -> Value {
    json!({"phase": phase, "backends": backend(), "address": "10.0.0.1"})
}

fn task(kind: &str, phase: &str, step: i64) -> Value {
    let executor = if kind == "Gate" { "person" } else { "lb-controller" };
    let started = (phase == "Running").then(|| at(0).to_string());
    json!({"id": step, "kind": kind, "step": step, "phase": phase, "executor": executor, "startedAt": started})
}

fn server(state: &str, traffic: &Value, tasks: &Value) -> Server {
    berth_testing::server(json!({
        "spec": {"traffic": {"backends": backend(), "drain": {"seconds": 30}}},
        "status": {"state": state, "traffic": traffic, "firstTaskID": 1, "tasks": tasks,
                   "machine": {"phase": "Running", "address": "10.0.0.1"}}
    }))
}

/// The plan with requests under way.
fn plan_at(server: &Server, second: i64) -> TrafficPlan {
    plan(server, Seen { now: at(second), is_idle: false, belongs: Belongs::BOTH })
}

fn phase(plan: &TrafficPlan) -> Option<TrafficPhase> {
    plan.desired.as_ref().map(|desired| desired.phase)
}

fn report(plan: &TrafficPlan) -> (Outcome, Vec<Fact>, ReportOrder) {
    let report = plan.report.clone().unwrap();
    (report.result.outcome, report.result.facts, report.order)
}

fn facts(phase: &str) -> Vec<Fact> {
    vec![Fact::Traffic(Some(serde_json::from_value(fact(phase)).unwrap()))]
}

fn removed() -> Vec<Fact> {
    vec![Fact::Traffic(None)]
}

use TrafficPhase::{Draining, Held, Serving};

#[test]
fn a_server_that_is_deleted_drains_before_that_is_decided() {
    let deleted = |change: &Value| {
        let mut value = serde_json::to_value(server("Ready", &fact("Serving"), &json!([]))).unwrap();
        value["metadata"]["deletionTimestamp"] = json!(at(0).to_string());
        json_patch::merge(&mut value, change);
        plan_at(&serde_json::from_value(value).unwrap(), 1)
    };
    let planned = deleted(&json!({}));
    assert_eq!((phase(&planned), planned.held_for), (Some(Draining), None));
    assert_eq!(report(&planned), (Outcome::Running, facts("Draining"), ReportOrder::AfterTraffic));
    assert_eq!(planned.report.unwrap().task, None, "there is no task yet");
    let removes = deleted(&json!({"spec": {"traffic": {"drain": {"seconds": 0}}}}));
    assert_eq!((phase(&removes), report(&removes)), (None, (Outcome::Running, removed(), ReportOrder::AfterTraffic)));
    for (why, change) in [
        ("a person has to agree", json!({"spec": {"gates": [{"before": "DestroyMachine"}]}})),
        ("the decision is there", json!({"status": {"state": "Offline"}})),
        ("it drains already", json!({"status": {"traffic": {"phase": "Draining"}}})),
        ("nothing is deleted", json!({"metadata": {"deletionTimestamp": null}})),
    ] {
        assert_eq!(deleted(&change).report, None, "{why}");
    }
}

#[test]
fn without_a_task_load_balancers_show_what_the_fact_promises() {
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
        let planned = plan_at(&server(state, &fact(fact_phase), &json!([])), 0);
        assert_eq!((phase(&planned), planned.report), (Some(shown), None), "{state} {fact_phase}");
    }
    assert_eq!(plan_at(&server("Ready", &Value::Null, &json!([])), 0), TrafficPlan::default());
}

#[test]
fn traffic_drains_before_it_is_held() {
    let begun = plan_at(&server("Deploying", &fact("Serving"), &json!([task("HoldTraffic", "Pending", 1)])), 0);
    assert_eq!(phase(&begun), Some(Draining));
    assert_eq!(report(&begun), (Outcome::Running, facts("Draining"), ReportOrder::AfterTraffic));
    let running = server("Deploying", &fact("Draining"), &json!([task("HoldTraffic", "Running", 1)]));
    let draining = plan_at(&running, 29);
    assert_eq!((phase(&draining), &draining.report, draining.requeue_at), (Some(Draining), &None, Some(at(30))));
    let held = plan_at(&running, 30);
    assert_eq!(phase(&held), Some(Held));
    assert_eq!(report(&held), (Outcome::Succeeded, facts("Held"), ReportOrder::AfterTraffic));
}

#[test]
fn an_unreachable_machine_and_zero_drain_seconds_are_not_drained() {
    let unreachable = plan_at(&server("Unknown", &fact("Serving"), &json!([task("HoldTraffic", "Pending", 1)])), 0);
    assert_eq!((phase(&unreachable), report(&unreachable).0), (Some(Held), Outcome::Succeeded));
    let mut quick = server("Deploying", &fact("Serving"), &json!([task("HoldTraffic", "Pending", 1)]));
    quick.spec.traffic.as_mut().unwrap().drain = Some(api::Drain { seconds: 0, min_seconds: 0 });
    assert_eq!((phase(&plan_at(&quick, 0)), report(&plan_at(&quick, 0)).0), (Some(Held), Outcome::Succeeded));
}

#[test]
fn only_what_takes_traffic_from_a_sick_server_may_be_withheld() {
    let hold = || json!([task("HoldTraffic", "Pending", 1)]);
    let held_for =
        |state: &str, fact_phase: &str, tasks: &Value| plan_at(&server(state, &fact(fact_phase), tasks), 0).held_for;
    assert_eq!(held_for("Unknown", "Serving", &hold()), Some(HoldCause::Sick));
    assert_eq!(held_for("Unknown", "Serving", &json!([])), Some(HoldCause::Sick), "also without a task");
    assert_eq!(held_for("Unknown", "Draining", &hold()), None, "it has gone already");
    assert_eq!(held_for("Ready", "Serving", &json!([])), None);
    // Its packages are not known to be as declared.
    assert_eq!(held_for("Deploying", "Serving", &hold()), None);
    assert_eq!(held_for("Offline", "Serving", &hold()), None);
    let mut retained = server("Unknown", &fact("Serving"), &hold());
    retained.spec.retain = serde_json::from_value(json!({"until": at(0).to_string(), "reason": "x"})).unwrap();
    assert_eq!(plan_at(&retained, 0).held_for, None);
}

#[test]
fn a_new_task_drains_again_although_an_earlier_one_had_begun() {
    let again = plan_at(&server("Initializing", &fact("Draining"), &json!([task("HoldTraffic", "Pending", 1)])), 500);
    assert_eq!((phase(&again), report(&again).0), (Some(Draining), Outcome::Running));
}

#[test]
fn a_gate_before_retirement_keeps_traffic_as_it_is() {
    let tasks = json!([task("Gate", "Pending", 1), task("HoldTraffic", "Pending", 2)]);
    let waiting = plan_at(&server("Offline", &fact("Serving"), &tasks), 0);
    assert_eq!((phase(&waiting), waiting.report), (Some(Serving), None));
    let tasks = json!([task("Gate", "Succeeded", 1), task("HoldTraffic", "Pending", 2)]);
    assert_eq!(phase(&plan_at(&server("Offline", &fact("Serving"), &tasks), 0)), Some(Draining));
    let elsewhere = plan_at(
        &server("Deploying", &fact("Serving"), &json!([task("Gate", "Pending", 1), task("HoldTraffic", "Pending", 2)])),
        0,
    );
    assert_eq!(phase(&elsewhere), Some(Draining), "only retirement waits");
}

#[test]
fn registration_replaces_an_earlier_one() {
    let old = json!({"phase": "Held", "backends": [{"service": "old", "port": 1}], "address": "10.0.0.9"});
    let planned = plan_at(&server("Initializing", &old, &json!([task("RegisterBackend", "Pending", 1)])), 0);
    let desired = planned.desired.clone().unwrap();
    assert_eq!((desired.phase, desired.services[0].name.as_str(), desired.address.as_str()), (Held, "web", "10.0.0.1"));
    assert_eq!(report(&planned), (Outcome::Succeeded, facts("Held"), ReportOrder::AfterTraffic));
}

#[test]
fn registering_without_a_declared_backend_removes_the_server() {
    let mut server = server("Initializing", &fact("Held"), &json!([task("RegisterBackend", "Pending", 1)]));
    server.spec.traffic = None;
    let planned = plan_at(&server, 0);
    assert_eq!((planned.desired.clone(), report(&planned).1), (None, removed()));
}

#[test]
fn a_release_is_reported_before_load_balancers_change() {
    let releasing = server("Ready", &fact("Held"), &json!([task("ReleaseTraffic", "Pending", 1)]));
    let planned = plan_at(&releasing, 0);
    assert_eq!(phase(&planned), Some(Held));
    assert_eq!(report(&planned), (Outcome::Succeeded, facts("Serving"), ReportOrder::BeforeTraffic));
    let late = server("Deploying", &fact("Held"), &json!([task("ReleaseTraffic", "Pending", 1)]));
    assert_eq!((phase(&plan_at(&late, 0)), plan_at(&late, 0).report), (Some(Held), None));
}

/// What a load balancer refuses, such as a port or an address, is found before the Server counts as serving.
#[test]
fn a_server_that_load_balancers_do_not_know_is_registered_before_its_release_is_reported() {
    let elsewhere = json!({"phase": "Held", "backends": backend(), "address": "10.0.0.9"});
    for known in [Value::Null, elsewhere] {
        let planned = plan_at(&server("Ready", &known, &json!([task("ReleaseTraffic", "Pending", 1)])), 0);
        let desired = planned.desired.clone().unwrap();
        assert_eq!((desired.phase, desired.address.as_str()), (Held, "10.0.0.1"));
        assert_eq!(report(&planned), (Outcome::Succeeded, facts("Serving"), ReportOrder::AfterTraffic));
    }
}

/// The holder of a lock may have crashed, and then nothing changes when the lock expires: the release must not wait for a change.
#[test]
fn a_release_waits_until_the_lock_of_an_earlier_task_has_expired() {
    let mut releasing = server("Ready", &fact("Held"), &json!([task("ReleaseTraffic", "Pending", 1)]));
    let renewed = at(0).to_string();
    let lock = json!({"holder": "deployment-controller/a", "taskID": 1, "acquiredAt": renewed, "renewedAt": renewed,
                      "durationSeconds": 30});
    releasing.status.as_mut().unwrap().lock = Some(serde_json::from_value(lock).unwrap());
    let locked = plan_at(&releasing, 10);
    assert_eq!((phase(&locked), &locked.report), (Some(Held), &None));
    assert_eq!(locked.requeue_at, Some(at(91)));
    assert_eq!(report(&plan_at(&releasing, 91)).0, Outcome::Succeeded);
}

#[test]
fn removal_takes_the_server_out_of_all_load_balancers() {
    let planned = plan_at(&server("Offline", &fact("Held"), &json!([task("RemoveBackend", "Pending", 1)])), 0);
    assert_eq!(planned.desired, None);
    assert_eq!(report(&planned), (Outcome::Succeeded, removed(), ReportOrder::AfterTraffic));
}

#[test]
fn a_retired_server_is_removed_as_soon_as_it_is_drained() {
    let draining = server("Offline", &fact("Draining"), &json!([task("HoldTraffic", "Running", 1)]));
    let before = plan_at(&draining, 29);
    assert_eq!((phase(&before), before.report.clone()), (Some(Draining), None));
    let over = plan_at(&draining, 30);
    assert_eq!(over.desired, None);
    assert_eq!(report(&over), (Outcome::Succeeded, removed(), ReportOrder::AfterTraffic));
}

#[test]
fn draining_ends_early_once_no_request_is_under_way() {
    let mut server = server("Deploying", &fact("Draining"), &json!([task("HoldTraffic", "Running", 1)]));
    server.spec.traffic.as_mut().unwrap().drain = Some(api::Drain { seconds: 30, min_seconds: 2 });
    let at = |second, is_idle| plan(&server, Seen { now: at(second), is_idle, belongs: Belongs::BOTH });
    assert_eq!(phase(&at(1, true)), Some(Draining), "too early to trust the count");
    assert_eq!(at(1, true).idle_from, Some(self::at(2)));
    assert_eq!(phase(&at(29, false)), Some(Draining), "requests are under way");
    assert_eq!((phase(&at(2, true)), report(&at(2, true)).0), (Some(Held), Outcome::Succeeded));
}

#[test]
fn weights_are_those_that_are_declared_now() {
    let backends = json!([{"class": "edge", "name": "web", "port": 80}, {"class": "edge", "name": "api", "port": 81}]);
    let fact = json!({"phase": "Serving", "backends": backends, "address": "10.0.0.1"});
    let mut server = server("Ready", &fact, &json!([]));
    let weights = |server: &Server| {
        let desired = plan_at(server, 0).desired.unwrap();
        desired.classes.iter().map(|backend| backend.weight).collect::<Vec<_>>()
    };
    assert_eq!(weights(&server), [100, 100], "what is no longer declared counts as much as the others");
    let mut declared: Vec<api::Backend> = serde_json::from_value(backends).unwrap();
    declared[1].weight = Some(0);
    server.spec.traffic.as_mut().unwrap().backends = declared;
    assert_eq!(weights(&server), [100, 0]);
}

#[test]
fn a_task_does_not_begin_before_its_time() {
    let mut tasks = json!([task("HoldTraffic", "Pending", 1)]);
    tasks[0]["notBefore"] = json!(at(60).to_string());
    let planned = plan_at(&server("Deploying", &fact("Serving"), &tasks), 0);
    assert_eq!((phase(&planned), planned.report, planned.requeue_at), (Some(Draining), None, Some(at(60))));
}

proptest! {
    /// Whatever the state, the tasks and the facts are: load balancers send traffic only when the fact says Serving, so that
    /// the Server is sure to be drained, and when it is Ready, or its retirement waits for a person.
    #[test]
    fn only_a_ready_server_with_a_serving_fact_receives_traffic(
        state in prop::sample::select(&["Initializing", "Deploying", "Ready", "Unknown", "Offline"][..]),
        traffic in prop::sample::select(&["Held", "Serving", "Draining", ""][..]),
        kinds in prop::collection::vec((prop::sample::select(&["Gate", "HoldTraffic", "RegisterBackend", "ReleaseTraffic", "RemoveBackend"][..]),
            prop::sample::select(&["Pending", "Running", "Succeeded", "Failed", "Cancelled"][..])), 0..4),
        now in -100..100i64,
    ) {
        let fact = if traffic.is_empty() { Value::Null } else { fact(traffic) };
        let tasks: Vec<_> = (1..).zip(&kinds).map(|(step, (kind, phase))| task(kind, phase, step)).collect();
        let server = server(state, &fact, &json!(tasks));
        let planned = plan_at(&server, now);
        if phase(&planned) == Some(Serving) {
            prop_assert_eq!(traffic, "Serving");
            prop_assert!(state == "Ready" || state == "Offline" && kinds.iter().any(|(kind, _)| *kind == "HoldTraffic"));
        }
        if let Some(TrafficReport { result, order, .. }) = &planned.report
            && let [Fact::Traffic(Some(fact))] = result.facts.as_slice()
        {
            let is_registered_now = fact.phase == Serving && traffic.is_empty() && phase(&planned) == Some(Held);
            prop_assert_eq!(fact.phase == Serving && !is_registered_now, *order == ReportOrder::BeforeTraffic);
            prop_assert!(fact.phase != Serving || state == "Ready");
        }
    }
}
