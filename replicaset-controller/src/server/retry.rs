//! Another try of what failed, once its cause may be repaired: the Server's class has changed.

use berth_core::{
    api::{MachineClass, Request, Server, TaskKind},
    lifecycle::blocking_failures,
};
use berth_runtime::changed_at;

/// A request to try the Server's failed task again, if its class has changed since the task was begun. At most one for
/// each generation of the class, and none after a person has refused a gate.
///
/// Compared is with the begin of the first attempt, not with the end of the last: a class that is repaired during an
/// attempt, which then still fails, would be overlooked.
#[must_use]
pub fn wanted(server: &Server, class: &MachineClass) -> Option<Request> {
    let failures = blocking_failures(server);
    if failures.iter().any(|task| task.kind == TaskKind::Gate) {
        return None;
    }
    let failed = failures.into_iter().find(|task| is_about_the_class(task.kind))?;
    let begun = failed.started_at.as_ref().or(failed.finished_at.as_ref())?.0;
    if changed_at(class)? < begun {
        return None;
    }
    let metadata = &class.metadata;
    let (name, generation) = (metadata.name.as_deref()?, metadata.generation?);
    let id = format!("class-{}-{generation}", metadata.uid.as_deref()?);
    let used = [
        server.spec.retry.as_ref().map(|retry| &retry.id),
        server.status.as_ref().and_then(|status| status.observed_retry.as_ref()),
    ];
    if used.contains(&Some(&id)) {
        return None;
    }
    let reason = format!("MachineClass {name} has changed (generation {generation}) since {} failed", failed.kind);
    Some(Request { id, reason, by: None, at: None })
}

/// Whether what the class says can make the task fail.
fn is_about_the_class(kind: TaskKind) -> bool {
    matches!(kind, TaskKind::CreateMachine | TaskKind::RebootMachine | TaskKind::DestroyMachine)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UID: &str = "11111111-2222-3333-4444-555555555555";

    fn class(changed: &str, generation: i64) -> MachineClass {
        serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "MachineClass",
            "metadata": {"name": "small", "uid": UID, "generation": generation, "managedFields": [{"time": changed}]},
            "spec": {"provider": "local"},
        }))
        .unwrap()
    }

    /// Stalled: CreateMachine was begun at 12:00:00 and failed at 12:00:30.
    fn server(change: impl FnOnce(&mut Value)) -> Server {
        let mut value = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
            "metadata": {"name": "web-0", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"machine": {"className": "small"}},
            "status": {"state": "Initializing", "observedGeneration": 1, "firstTaskID": 1, "lastTaskID": 1, "tasks": [{
                "id": 1, "kind": "CreateMachine", "step": 1, "executor": "replicaset-controller", "phase": "Failed",
                "attempts": 1, "startedAt": "2026-01-01T12:00:00Z", "finishedAt": "2026-01-01T12:00:30Z",
            }]},
        });
        let plain: Server = serde_json::from_value(value.clone()).unwrap();
        let planned = berth_core::lifecycle::plan(&plain, berth_core::api::State::Initializing);
        let create = planned.iter().find(|task| task.kind == TaskKind::CreateMachine).unwrap();
        value["status"]["tasks"][0]["digest"] = create.digest.clone().into();
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_class_that_changed_after_the_begin_brings_one_more_try() {
        let stalled = server(|_| {});
        for (changed, expected) in [
            ("2026-01-01T11:59:59Z", false),
            ("2026-01-01T12:00:00Z", true),
            ("2026-01-01T12:00:10Z", true),
            ("2026-01-01T13:00:00Z", true),
        ] {
            assert_eq!(wanted(&stalled, &class(changed, 2)).is_some(), expected, "{changed}");
        }
        let request = wanted(&stalled, &class("2026-01-01T13:00:00Z", 2)).unwrap();
        assert_eq!(request.reason, "MachineClass small has changed (generation 2) since CreateMachine failed");
        assert!(request.id.len() <= 63 && request.id.ends_with("-2"), "{}", request.id);
    }

    #[test]
    fn one_generation_brings_one_try() {
        let changed = class("2026-01-01T13:00:00Z", 2);
        let id = wanted(&server(|_| {}), &changed).unwrap().id;
        let asked = server(|v| v["spec"]["retry"] = json!({"id": id}));
        assert_eq!(wanted(&asked, &changed), None);
        let tried = server(|v| {
            v["spec"]["retry"] = json!({"id": "by-ann"});
            v["status"]["observedRetry"] = id.clone().into();
        });
        assert_eq!(wanted(&tried, &changed), None);
        assert!(wanted(&tried, &class("2026-01-01T13:00:00Z", 3)).is_some());
    }

    #[test]
    fn what_the_class_has_no_part_in_stays_as_it_is() {
        let changed = class("2026-01-01T13:00:00Z", 2);
        let running = server(|v| v["status"]["tasks"][0]["phase"] = "Running".into());
        assert_eq!(wanted(&running, &changed), None);
        let gate = server(|v| {
            v["spec"]["gates"] = json!([{"before": "CreateMachine"}]);
            let task = &mut v["status"]["tasks"][0];
            (task["kind"], task["gate"], task["executor"]) = ("Gate".into(), "CreateMachine".into(), "person".into());
            let plain: Server = serde_json::from_value(v.clone()).unwrap();
            let planned = berth_core::lifecycle::plan(&plain, berth_core::api::State::Initializing);
            v["status"]["tasks"][0]["digest"] = planned[0].digest.clone().into();
        });
        assert_eq!(blocking_failures(&gate).len(), 1, "the gate was refused");
        assert_eq!(wanted(&gate, &changed), None);
    }
}
