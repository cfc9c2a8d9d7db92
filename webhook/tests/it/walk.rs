//! Random lives: whatever the controllers write, the patch on the raw object gives what was decided, and leaves alone
//! what this version of the API does not know.

use crate::{
    life::{controller, holder, machine_phase, outcome_of, report, start, unreachable},
    requests::{Reply, review, stored, text},
};
use berth_core::{
    api::{Claim, Executor, MachinePhase, Outcome, Server, Task},
    identity::Identities,
    lifecycle::{admit_status, is_open},
    protocol::StatusWrite,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

/// One write: by whom, what, and how often members that this version does not know are strewn in.
#[derive(Clone, Debug)]
struct Step {
    action: u8,
    pick: usize,
    seconds: i64,
    strew: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..20u8, 0..6usize, 0..60i64, any::<bool>()).prop_map(|(action, pick, seconds, strew)| Step {
        action,
        pick,
        seconds,
        strew,
    });
    prop::collection::vec(step, 1..40)
}

/// The write of a step.
fn write(step: &Step, server: &Server, now: Timestamp) -> (Executor, StatusWrite) {
    let write = StatusWrite::new(server);
    let tasks = server.status.as_ref().map(|status| status.tasks.clone()).unwrap_or_default();
    let open: Vec<&Task> = tasks.iter().filter(|task| is_open(server, task)).collect();
    let task = open.get(step.pick % open.len().max(1)).copied().or(tasks.last());
    let Some(task) = task else { return (Executor::ReplicasetController, write.acknowledge()) };
    let executor = match task.kind.executor() {
        Executor::Person => Executor::ReplicasetController,
        other => other,
    };
    let lock = server.status.as_ref().and_then(|status| status.lock.as_ref());
    let holder = match lock {
        Some(lock) if step.pick != 5 => lock.holder.clone(),
        _ => holder(executor, if step.pick == 5 { "b" } else { "a" }),
    };
    let boot = format!("b{}", step.pick);
    match step.action {
        0 => (Executor::ReplicasetController, write.acknowledge()),
        1 => (Executor::MonitorController, write.reachability(unreachable(step.seconds, now))),
        2 => (Executor::ReplicasetController, write.machine(Some(machine_phase(MachinePhase::Stopped)))),
        3 => (executor, outcome_of(task.kind, server, &boot, write)),
        4 => (executor, write.report(report(task, &holder, Outcome::Retry))),
        5.. if task.kind.needs_lock() && lock.is_none() => {
            (executor, write.claim(Claim { task_id: task.id, holder, duration_seconds: 30 }))
        }
        5 => (executor, write.report(report(task, &holder, Outcome::Running))),
        _ => (executor, outcome_of(task.kind, server, &boot, write).report(report(task, &holder, Outcome::Succeeded))),
    }
}

/// Members of a newer version of the API, at every level.
fn strew(object: &mut Value) {
    for path in ["/metadata", "/spec", "/status", "/status/machine", "/status/app", "/status/traffic", "/status/lock"] {
        if let Some(Value::Object(members)) = object.pointer_mut(path) {
            members.insert("future/~".into(), json!({"id": [1]}));
        }
    }
    for path in ["/status/tasks", "/status/conditions"] {
        for element in object.pointer_mut(path).and_then(Value::as_array_mut).into_iter().flatten() {
            element["future"] = "x".into();
        }
    }
}

/// What of that is left: the paths of those members, elements of lists by their key.
fn strewn(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                if key.starts_with("future") {
                    found.push(path.to_owned());
                } else {
                    strewn(value, &format!("{path}/{key}"), found);
                }
            }
        }
        Value::Array(elements) => {
            for element in elements {
                let key = element.get("id").or(element.get("type")).cloned().unwrap_or_default();
                strewn(element, &format!("{path}[{key}]"), found);
            }
        }
        _ => {}
    }
}

/// The paths of all objects, so that those that went with their members are not missed.
fn objects(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(path.to_owned());
            members.iter().for_each(|(key, value)| objects(value, &format!("{path}/{key}"), found));
        }
        Value::Array(elements) => {
            for element in elements {
                let key = element.get("id").or(element.get("type")).cloned().unwrap_or_default();
                objects(element, &format!("{path}[{key}]"), found);
            }
        }
        _ => {}
    }
}

fn typed(value: &Value) -> Server {
    serde_json::from_value(value.clone()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_patch_gives_what_was_decided_and_leaves_the_unknown_alone(steps in steps()) {
        let ids = Identities::default();
        let mut now = start();
        let mut raw = stored(crate::life::Fixture::new().json());
        for step in steps {
            now += SignedDuration::from_secs(step.seconds);
            if step.strew {
                strew(&mut raw);
            }
            let old = typed(&raw);
            let (executor, write) = write(&step, &old, now);
            let mut sent = raw.clone();
            json_patch::patch(&mut sent, &write.into_patch()).unwrap();
            let author = controller(executor);
            let request = review("servers/status", "UPDATE", &author.username, &raw, &sent);
            let verdict = webhook::admit::admit(text(&request).as_bytes(), &ids, now);
            // In this order of members the short way is not taken.
            let long_way = webhook::admit::admit(request.to_string().as_bytes(), &ids, now);
            prop_assert_eq!(&verdict, &long_way);
            let reply = Reply::read(&verdict.answer.encode());
            match admit_status(&old, typed(&sent), &author, &ids, now) {
                Err(refusal) => prop_assert_eq!(reply.denial().2, refusal.to_string()),
                Ok(admitted) => {
                    let after = reply.apply(&sent);
                    prop_assert_eq!(typed(&after).status, admitted.status);
                    prop_assert_eq!(reply.patch().is_none(), after == sent);
                    let (mut before_paths, mut after_paths, mut left) = (vec![], vec![], vec![]);
                    strewn(&sent, "", &mut before_paths);
                    strewn(&after, "", &mut after_paths);
                    objects(&after, "", &mut left);
                    before_paths.retain(|path| left.contains(path));
                    prop_assert_eq!(after_paths, before_paths);
                    raw = after;
                }
            }
        }
    }
}

#[test]
fn every_field_of_the_status_is_compared_under_its_own_name() {
    let schema = serde_json::to_value(schemars::schema_for!(berth_core::api::ServerStatus)).unwrap();
    let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert!(names.len() >= 22, "{names:?}");
    let source = include_str!("../../src/patch.rs");
    for name in names {
        assert!(source.contains(&format!("=> \"{name}\"")), "status.{name} has another name in the patch");
    }
}
