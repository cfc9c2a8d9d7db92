//! Guards: who may write which field.

use berth_core::{
    api::{Executor, HealthFact, HealthState, MachineFact, MachinePhase, Server},
    identity::Identities,
    lifecycle::{RefusalReason, admit_status},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use berth_testing::{Fixture, controller, person, reason, refusal, start};

/// Every stored field of the status, another value for it, and the executor that may write it.
fn fields() -> Vec<(&'static str, Value, Option<Executor>)> {
    use Executor::{DeploymentController, LbController, MonitorController, ReplicasetController};
    let time = "2020-01-01T00:00:00Z";
    vec![
        ("state", json!("Deploying"), None),
        ("stateSince", json!(time), None),
        ("waitingFor", json!("nobody"), None),
        ("lastTaskID", json!(99), None),
        ("firstTaskID", json!(99), None),
        ("tasks", json!([]), None),
        (
            "lock",
            json!({"holder": "lb-controller/x", "taskID": 1, "acquiredAt": time, "renewedAt": time, "durationSeconds": 5}),
            None,
        ),
        ("previousState", json!("Offline"), None),
        ("cameFrom", json!("Offline"), None),
        ("history", json!(["a line"]), None),
        ("transitions", json!([{"to": "Ready", "at": "2020-01-01T00:00:00Z", "reason": "r", "author": "a"}]), None),
        ("epoch", json!(77), None),
        ("force", json!({"id": "x", "active": true}), None),
        ("observedRetry", json!("again"), None),
        ("observedReboot", json!("again"), None),
        ("conditions", json!([]), None),
        ("observedGeneration", json!(55), Some(ReplicasetController)),
        ("machine", json!({"phase": "Stopped", "provider": "p", "place": "here"}), Some(ReplicasetController)),
        ("environment", json!({"verified": false}), Some(ReplicasetController)),
        ("app", json!({"revision": "r0", "verified": false}), Some(DeploymentController)),
        ("traffic", json!({"phase": "Held"}), Some(LbController)),
        ("reachability", json!({"reachable": true, "since": time, "observedAt": time}), Some(MonitorController)),
        ("health", json!({"state": "Unhealthy", "epoch": 1, "since": time}), Some(MonitorController)),
        ("monitoring", json!({"phase": "Paused", "digest": "x"}), Some(MonitorController)),
    ]
}

/// A Server with a value in every field of its status.
fn known() -> Fixture {
    let mut fixture = Fixture::registering().decided();
    fixture.perform_all();
    fixture
}

fn authors() -> Vec<(String, Option<Executor>)> {
    let controllers = Executor::CONTROLLERS.into_iter().map(|e| (controller(e).username, Some(e)));
    let others = ["ann", "system:serviceaccount:default:lb-controller", "system:serviceaccount:berth-system:webhook"];
    controllers.chain(others.into_iter().map(|name| (name.to_owned(), None))).collect()
}

#[test]
fn only_its_owner_writes_a_status_field() {
    let old = known().server;
    for (name, value, owner) in fields() {
        for (username, executor) in authors() {
            let mut json = serde_json::to_value(&old).unwrap();
            json["status"][name] = value.clone();
            if name == "health" {
                json["status"]["health"]["epoch"] = json["status"]["epoch"].clone();
            }
            let new: Server = serde_json::from_value(json).unwrap();
            assert_ne!(new.status, old.status, "the case of {name} changes nothing");
            let result = admit_status(&old, new, &person(&username), &Identities::default(), start());
            if owner.is_some() && owner == executor {
                assert!(result.is_ok(), "{username} owns {name}: {result:?}");
            } else {
                let refusal = result.unwrap_err();
                assert_eq!(
                    (refusal.reason, refusal.field),
                    (RefusalReason::Field, format!("status.{name}")),
                    "{username}"
                );
                let said = match owner {
                    None => "only the webhook writes this field".to_owned(),
                    Some(owner) => format!("only {owner} reports this fact"),
                };
                assert_eq!(refusal.message, said);
            }
        }
    }
}

#[test]
fn the_table_of_fields_covers_the_whole_status() {
    let mut every = json!({"claim": null, "report": null});
    for (name, value, _) in fields() {
        every[name] = value;
    }
    every["claim"] = json!({"taskID": 1, "holder": "lb-controller/x", "durationSeconds": 1});
    every["report"] = json!({"taskID": 1, "holder": "lb-controller/x", "outcome": "Running"});
    every["tasks"] = json!([{"id": 1, "kind": "Gate", "step": 1, "phase": "Pending"}]);
    every["history"] = json!(["a line"]);
    every["transitions"] = json!([{"to": "Ready", "at": "2020-01-01T00:00:00Z", "reason": "r", "author": "a"}]);
    every["conditions"] = json!([{"type": "Ready", "status": "True", "reason": "R", "message": "",
        "lastTransitionTime": "2020-01-01T00:00:00Z"}]);
    let status: berth_core::api::ServerStatus = serde_json::from_value(every.clone()).unwrap();
    // Every field has a value here, so a field that the table lacks would be missing in the JSON.
    let names = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let berth_core::api::ServerStatus {
        observed_generation: Some(_),
        state: Some(_),
        state_since: Some(_),
        waiting_for: Some(_),
        last_task_id: Some(_),
        first_task_id: Some(_),
        tasks: _,
        lock: Some(_),
        previous_state: Some(_),
        came_from: Some(_),
        history: _,
        transitions: _,
        epoch: Some(_),
        force: Some(_),
        observed_retry: Some(_),
        observed_reboot: Some(_),
        machine: Some(_),
        environment: Some(_),
        app: Some(_),
        traffic: Some(_),
        reachability: Some(_),
        health: Some(_),
        monitoring: Some(_),
        conditions: _,
        claim: Some(_),
        report: Some(_),
    } = &status
    else {
        panic!("a field was not read: {status:?}")
    };
    let mut written = names(&serde_json::to_value(&status).unwrap());
    let mut expected = names(&every);
    written.sort();
    expected.sort();
    assert_eq!(written, expected);
}

#[test]
fn anybody_may_write_without_changing_anything() {
    for (username, _) in authors() {
        let mut fixture = known();
        let before = fixture.server.clone();
        fixture.write_as(&person(&username), |write| write).unwrap();
        assert_eq!(fixture.server, before);
    }
}

#[test]
fn a_machine_fact_from_another_place_is_refused_while_the_machine_may_exist() {
    let mut fixture = known();
    let here = fixture.status().machine.clone().unwrap();
    let gone = MachineFact { phase: MachinePhase::Gone, id: None, ..here.clone() };
    let there = |fact: &MachineFact| MachineFact { place: Some("there".into()), ..fact.clone() };
    let nowhere = MachineFact { provider: None, place: None, ..gone.clone() };
    for wrong in [Some(there(&here)), Some(there(&gone)), Some(nowhere), None] {
        let result = fixture.write(Executor::ReplicasetController, |write| write.machine(wrong));
        assert_eq!(refusal(result), ("status.machine.place".into(), RefusalReason::Malformed));
    }
    for right in [gone, there(&here)] {
        fixture.write(Executor::ReplicasetController, |write| write.machine(Some(right))).unwrap();
    }
}

#[test]
fn health_of_another_epoch_is_refused() {
    let old = known().server;
    let epoch = old.status.as_ref().unwrap().epoch.unwrap();
    for wrong in [epoch - 1, epoch + 1] {
        let mut new = old.clone();
        new.status.as_mut().unwrap().health = Some(HealthFact {
            state: HealthState::Unhealthy,
            epoch: wrong,
            since: Time(start()),
            message: String::new(),
        });
        let author = controller(Executor::MonitorController);
        let refusal = admit_status(&old, new, &author, &Identities::default(), start()).unwrap_err();
        assert_eq!((refusal.field.as_str(), refusal.reason), ("status.health.epoch", RefusalReason::Malformed));
        assert!(refusal.to_string().starts_with("status.health.epoch: health was judged in epoch"), "{refusal}");
    }
}

#[test]
fn health_of_an_earlier_epoch_does_not_block_other_writes() {
    let mut fixture = known().fact(|status| status.epoch = Some(status.epoch.unwrap() + 1));
    fixture.acknowledge();
    assert!(fixture.status().health.is_some());
}

#[test]
fn controllers_cannot_write_fields_that_only_people_change() {
    use berth_core::api::{Force, Request, State};
    type Change = fn(&mut Server);
    let changes: [(&str, Change); 3] = [
        ("spec.force", |server| {
            let reason = "x".into();
            server.spec.force = Some(Force { state: State::Ready, reason, by: None, at: None, declaration: None });
        }),
        ("spec.retry", |server| {
            server.spec.retry = Some(Request { id: "1".into(), reason: String::new(), by: None, at: None });
        }),
        ("spec.offline", |server| server.spec.offline = false),
    ];
    for (field, change) in changes {
        // replicaset-controller may retry, see `unreachable.rs`.
        let may = |executor: &Executor| field == "spec.retry" && *executor == Executor::ReplicasetController;
        for executor in Executor::CONTROLLERS.into_iter().filter(|e| !may(e)) {
            let mut fixture = Fixture::registering().spec(|spec| spec.offline = true);
            let result = fixture.update(&controller(executor), change);
            let Err(berth_testing::Denied::Refused(refusal)) = result else { panic!("{field}: {result:?}") };
            assert_eq!((refusal.field.as_str(), refusal.reason), (field, RefusalReason::NotAPerson));
            assert_eq!(refusal.message, format!("only a person changes this, not {executor}"));
        }
        let mut fixture = Fixture::registering().spec(|spec| spec.offline = true);
        fixture.update(&person("ann"), change).unwrap();
    }
}

#[test]
fn only_a_person_retires_or_changes_a_server_that_a_person_forced() {
    use berth_core::api::{Force, State};
    let mut fixture = Fixture::registering();
    let force = Force { state: State::Ready, reason: "x".into(), by: None, at: None, declaration: None };
    fixture.update(&person("ann"), |server| server.spec.force = Some(force)).unwrap();
    let retires = controller(Executor::ReplicasetController);
    let changes: [fn(&mut Server); 3] =
        [|server| server.spec.offline = true, |server| server.spec.force = None, |server| server.spec.packages.clear()];
    for change in changes {
        assert_eq!(reason(fixture.update(&retires, change)), RefusalReason::NotAPerson);
        let mut by_hand = fixture.clone();
        by_hand.update(&person("ann"), change).unwrap();
    }
}

#[test]
fn every_refusal_reason_has_its_own_name() {
    use RefusalReason as R;
    let reasons = [
        (R::Field, "Field"),
        (R::WrongExecutor, "WrongExecutor"),
        (R::Locked, "Locked"),
        (R::NotHolder, "NotHolder"),
        (R::NotOpen, "NotOpen"),
        (R::UnknownTask, "UnknownTask"),
        (R::Malformed, "Malformed"),
        (R::CleanupIncomplete, "CleanupIncomplete"),
        (R::NotAPerson, "NotAPerson"),
    ];
    for (reason, name) in reasons {
        assert_eq!((reason.as_str(), reason.to_string().as_str()), (name, name));
    }
}
