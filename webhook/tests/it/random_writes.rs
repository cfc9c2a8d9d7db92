//! Random sequences of writes by controllers: the patch on the raw object gives what was decided, and leaves members alone
//! that this version of the API does not know.

use crate::requests::{Reply, review, stored, text};
use berth_core::{
    api::{Claim, Executor, MachinePhase, Outcome, Server, Task},
    identity::Identities,
    lifecycle::admit_status,
    protocol::StatusWrite,
};
use berth_testing::{controller, facts_of, holder, machine_phase, report, start, unreachable};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

/// One write of a sequence.
#[derive(Clone, Debug)]
struct RandomWrite {
    /// What is written; most values report success.
    action: u8,
    /// Which open task it is about; 5 also stands for a second holder.
    pick: usize,
    /// Time since the write before.
    seconds: i64,
    /// Whether unknown members are inserted into the object before the write.
    insert_unknown: bool,
}

fn random_writes() -> impl Strategy<Value = Vec<RandomWrite>> {
    let write = (0..20u8, 0..6usize, 0..60i64, any::<bool>())
        .prop_map(|(action, pick, seconds, insert_unknown)| RandomWrite { action, pick, seconds, insert_unknown });
    prop::collection::vec(write, 1..40)
}

/// The author and the content of a write.
fn status_write(random: &RandomWrite, server: &Server, now: Timestamp) -> (Executor, StatusWrite) {
    let write = StatusWrite::new(server);
    let tasks = server.status.as_ref().map(|status| status.tasks.clone()).unwrap_or_default();
    let open: Vec<&Task> = tasks.iter().filter(|task| server.is_open(task)).collect();
    let task = open.get(random.pick % open.len().max(1)).copied().or(tasks.last());
    let Some(task) = task else { return (Executor::ReplicasetController, write.acknowledge()) };
    let executor = match task.kind.executor() {
        Executor::Person => Executor::ReplicasetController,
        other => other,
    };
    let lock = server.status.as_ref().and_then(|status| status.lock.as_ref());
    let holder = match lock {
        Some(lock) if random.pick != 5 => lock.holder.clone(),
        _ => holder(executor, if random.pick == 5 { "b" } else { "a" }),
    };
    let boot = format!("b{}", random.pick);
    match random.action {
        0 => (Executor::ReplicasetController, write.acknowledge()),
        1 => (Executor::MonitorController, write.reachability(unreachable(random.seconds, now))),
        2 => (Executor::ReplicasetController, write.machine(Some(machine_phase(MachinePhase::Stopped)))),
        3 => (executor, facts_of(task.kind, server, &boot, write)),
        4 => (executor, write.report(report(task, &holder, Outcome::Retry))),
        5.. if task.kind.needs_lock() && lock.is_none() => {
            (executor, write.claim(Claim { task_id: task.id, holder, duration_seconds: 30, again: false }))
        }
        5 => (executor, write.report(report(task, &holder, Outcome::Running))),
        _ => (executor, facts_of(task.kind, server, &boot, write).report(report(task, &holder, Outcome::Succeeded))),
    }
}

/// Inserts members of a newer version of the API at every level.
fn insert_unknown(object: &mut Value) {
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

/// The paths of the inserted members; elements of lists are named by their key.
fn unknown_members(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                if key.starts_with("future") {
                    found.push(path.to_owned());
                } else {
                    unknown_members(value, &format!("{path}/{key}"), found);
                }
            }
        }
        Value::Array(elements) => {
            for element in elements {
                let key = element.get("id").or(element.get("type")).cloned().unwrap_or_default();
                unknown_members(element, &format!("{path}[{key}]"), found);
            }
        }
        _ => {}
    }
}

/// The paths of all objects: an unknown member may disappear together with the object that it was in.
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
    fn the_patch_gives_what_was_decided_and_keeps_unknown_members(writes in random_writes()) {
        let ids = Identities::default();
        let mut now = start();
        let mut raw = stored(berth_testing::Fixture::new().json());
        for random in writes {
            now += SignedDuration::from_secs(random.seconds);
            if random.insert_unknown {
                insert_unknown(&mut raw);
            }
            let old = typed(&raw);
            let (executor, write) = status_write(&random, &old, now);
            let mut sent = raw.clone();
            json_patch::patch(&mut sent, &write.into_patch()).unwrap();
            let author = controller(executor);
            let request = review("servers/status", "UPDATE", &author.username, &raw, &sent);
            let admission = webhook::admit::admit(text(&request).as_bytes(), &ids, now);
            // With the members in another order, the webhook does not take its fast path.
            let slow = webhook::admit::admit(request.to_string().as_bytes(), &ids, now);
            prop_assert_eq!(&admission, &slow);
            let reply = Reply::read(&admission.response.encode());
            match admit_status(&old, typed(&sent), &author, &ids, now) {
                Err(refusal) => prop_assert_eq!(reply.denial().2, refusal.to_string()),
                Ok(admitted) => {
                    let after = reply.apply(&sent);
                    prop_assert_eq!(typed(&after).status, admitted.status);
                    prop_assert_eq!(reply.patch().is_none(), after == sent);
                    let (mut before_paths, mut after_paths, mut left) = (vec![], vec![], vec![]);
                    unknown_members(&sent, "", &mut before_paths);
                    unknown_members(&after, "", &mut after_paths);
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
fn the_patch_names_every_field_of_the_status() {
    let schema = serde_json::to_value(schemars::schema_for!(berth_core::api::ServerStatus)).unwrap();
    let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert!(names.len() >= 22, "{names:?}");
    let source = include_str!("../../src/patch.rs");
    for name in names {
        assert!(source.contains(&format!("=> \"{name}\"")), "the patch does not name status.{name}");
    }
}
