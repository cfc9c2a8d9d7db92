//! Another attempt at a failed task when its cause may have been repaired: the Server's class has changed.

use berth_core::api::{MachineClass, Request, Server, TaskKind};
use berth_runtime::changed_at;

/// A request for another attempt at the Server's failed task, if its class has changed since the task began. At most one
/// for each generation of the class, and none after a person has refused a gate.
///
/// The change is compared with the begin of the first attempt and not with the end of the last one: otherwise a class that
/// is repaired during an attempt that still fails would bring no other attempt.
pub(super) fn after_class_change(server: &Server, class: &MachineClass) -> Option<Request> {
    let failures = server.blocking_failures();
    if failures.iter().any(|task| task.kind == TaskKind::Gate) {
        return None;
    }
    let failed = failures.into_iter().find(|task| depends_on_class(task.kind))?;
    let begun = failed.started_at.as_ref().or(failed.finished_at.as_ref())?.0;
    if changed_at(class)? < begun {
        return None;
    }
    let generation = class.metadata.generation?;
    let id = format!("class-{}-{generation}", class.uid());
    let used = [
        server.spec.retry.as_ref().map(|retry| &retry.id),
        server.status.as_ref().and_then(|status| status.observed_retry.as_ref()),
    ];
    if used.contains(&Some(&id)) {
        return None;
    }
    let (name, kind) = (class.name(), failed.kind);
    let reason = format!("MachineClass {name} has changed (generation {generation}) since {kind} failed");
    Some(Request { id, reason, by: None, at: None })
}

/// Whether the task can fail because of what the class says.
fn depends_on_class(kind: TaskKind) -> bool {
    matches!(kind, TaskKind::CreateMachine | TaskKind::RebootMachine | TaskKind::DestroyMachine)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UID: &str = "11111111-2222-3333-4444-555555555555";

    fn class(changed: &str, generation: i64) -> MachineClass {
        berth_testing::machine_class(
            json!({"metadata": {"name": "small", "uid": UID, "generation": generation, "managedFields": [{"time": changed}]},
                "spec": {"provider": "local"},
            }),
        )
    }

    /// Stalled: CreateMachine began at 12:00:00 and failed at 12:00:30.
    fn server(change: impl FnOnce(&mut Value)) -> Server {
        let mut value = json!({
            "metadata": {"name": "web-0", "uid": "u", "generation": 1},
            "spec": {"machine": {"className": "small"}},
            "status": {"state": "Initializing", "observedGeneration": 1, "firstTaskID": 1, "lastTaskID": 1, "tasks": [{
                "id": 1, "kind": "CreateMachine", "step": 1, "phase": "Failed",
                "attempts": 1, "startedAt": "2026-01-01T12:00:00Z", "finishedAt": "2026-01-01T12:00:30Z",
            }]},
        });
        let plain = berth_testing::server(value.clone());
        let planned = berth_core::lifecycle::plan(&plain, berth_core::api::State::Initializing);
        let create = planned.iter().find(|task| task.kind == TaskKind::CreateMachine).unwrap();
        value["status"]["tasks"][0]["digest"] = create.digest.clone().into();
        change(&mut value);
        berth_testing::server(value)
    }

    #[test]
    fn a_class_that_changed_after_the_task_began_brings_another_attempt() {
        let stalled = server(|_| {});
        for (changed, expected) in [
            ("2026-01-01T11:59:59Z", false),
            ("2026-01-01T12:00:00Z", true),
            ("2026-01-01T12:00:10Z", true),
            ("2026-01-01T13:00:00Z", true),
        ] {
            assert_eq!(after_class_change(&stalled, &class(changed, 2)).is_some(), expected, "{changed}");
        }
        let request = after_class_change(&stalled, &class("2026-01-01T13:00:00Z", 2)).unwrap();
        assert_eq!(request.reason, "MachineClass small has changed (generation 2) since CreateMachine failed");
        assert!(request.id.len() <= 63 && request.id.ends_with("-2"), "{}", request.id);
    }

    #[test]
    fn one_generation_of_a_class_brings_one_attempt() {
        let changed = class("2026-01-01T13:00:00Z", 2);
        let id = after_class_change(&server(|_| {}), &changed).unwrap().id;
        let asked = server(|v| v["spec"]["retry"] = json!({"id": id}));
        assert_eq!(after_class_change(&asked, &changed), None);
        let tried = server(|v| {
            v["spec"]["retry"] = json!({"id": "by-ann"});
            v["status"]["observedRetry"] = id.clone().into();
        });
        assert_eq!(after_class_change(&tried, &changed), None);
        assert!(after_class_change(&tried, &class("2026-01-01T13:00:00Z", 3)).is_some());
    }

    #[test]
    fn nothing_is_retried_that_does_not_depend_on_the_class() {
        let changed = class("2026-01-01T13:00:00Z", 2);
        let running = server(|v| v["status"]["tasks"][0]["phase"] = "Running".into());
        assert_eq!(after_class_change(&running, &changed), None);
        let gate = server(|v| {
            v["spec"]["gates"] = json!([{"before": "CreateMachine"}]);
            let task = &mut v["status"]["tasks"][0];
            (task["kind"], task["gate"]) = ("Gate".into(), "CreateMachine".into());
            let plain: Server = serde_json::from_value(v.clone()).unwrap();
            let planned = berth_core::lifecycle::plan(&plain, berth_core::api::State::Initializing);
            v["status"]["tasks"][0]["digest"] = planned[0].digest.clone().into();
        });
        assert_eq!(gate.blocking_failures().len(), 1, "the gate was refused");
        assert_eq!(after_class_change(&gate, &changed), None);
    }
}
