//! A template's environment on a Server that exists.
//!
//! It is brought there by a JSON Patch that replaces whole fields. Server-side apply would not do: what a Server was
//! born with belongs to the manager of an Update, and an Apply by the same name takes nothing of that away, so that a
//! package that left the template would stay.

use berth_core::api::{Server, ServerTemplate, ServerTemplateSpec, UpdateType, VMReplicaSet};
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf};
use serde::Serialize;
use serde_json::Value;

/// The fields of a Server's spec that follow the template. The machine does not: another machine is another Server.
/// Neither does the code, which deployment-controller rolls out.
const FIELDS: [&str; 8] =
    ["packages", "prunePackages", "healthCheck", "reachability", "traffic", "monitoring", "gates", "taskAttempts"];

/// Whether the Server's environment differs from the template's.
#[must_use]
pub fn is_outdated(set: &VMReplicaSet, server: &Server) -> bool {
    let (have, want) = (&server.spec, &set.spec.template.spec);
    have.packages != want.packages
        || have.prune_packages != want.prune_packages
        || have.health_check != want.health_check
        || have.reachability != want.reachability
        || have.traffic != want.traffic
        || have.monitoring != want.monitoring
        || have.gates != want.gates
        || have.task_attempts != want.task_attempts
        || lacks_metadata(&set.spec.template, server)
}

/// Whether the Server is of another machine than the template's.
#[must_use]
pub fn has_other_machine(set: &VMReplicaSet, server: &Server) -> bool {
    server.spec.machine != set.spec.template.spec.machine
}

/// Whether the Server has what the template declares: environment and machine.
#[must_use]
pub fn is_updated(set: &VMReplicaSet, server: &Server) -> bool {
    !is_outdated(set, server) && !has_other_machine(set, server)
}

/// Whether a roll-out of the template has something to change about the Server.
#[must_use]
pub fn is_to_change(set: &VMReplicaSet, server: &Server) -> bool {
    is_outdated(set, server) || is_to_replace(set, server)
}

/// Whether the Server's machine is to be another one, as the update strategy allows: another Server takes its place.
#[must_use]
pub fn is_to_replace(set: &VMReplicaSet, server: &Server) -> bool {
    set.spec.update_strategy.type_ == UpdateType::Replace && has_other_machine(set, server)
}

/// Whether the Server is to get the template's environment while it stays.
#[must_use]
pub fn is_to_change_in_place(set: &VMReplicaSet, server: &Server) -> bool {
    is_outdated(set, server) && !is_to_replace(set, server)
}

fn lacks_metadata(template: &ServerTemplate, server: &Server) -> bool {
    let labels = server.metadata.labels.as_ref();
    let annotations = server.metadata.annotations.as_ref();
    template.metadata.labels.iter().any(|(k, v)| labels.and_then(|l| l.get(k)) != Some(v))
        || template.metadata.annotations.iter().any(|(k, v)| annotations.and_then(|a| a.get(k)) != Some(v))
}

/// The patch that gives this very Server the template's environment, and leaves everything else to its owners. With
/// `in_state` it changes nothing if the Server's state has become another one.
#[must_use]
pub fn patch(set: &VMReplicaSet, server: &Server, in_state: bool) -> Patch {
    let template = &set.spec.template;
    let test = |path: &[&str], value| {
        PatchOperation::Test(TestOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
    };
    let mut operations = vec![test(&["metadata", "uid"], to_value(&server.metadata.uid))];
    let state = server.status.as_ref().and_then(|status| status.state).filter(|_| in_state);
    operations.extend(state.map(|state| test(&["status", "state"], to_value(&state))));
    operations.extend(spec_operations(&template.spec, &to_value(&server.spec)));
    operations.extend(map_operations("labels", &template.metadata.labels, server.metadata.labels.as_ref()));
    operations.extend(map_operations(
        "annotations",
        &template.metadata.annotations,
        server.metadata.annotations.as_ref(),
    ));
    Patch(operations)
}

fn spec_operations(template: &ServerTemplateSpec, present: &Value) -> Vec<PatchOperation> {
    let wanted = to_value(template);
    let differing = FIELDS.into_iter().filter(|field| wanted.get(field) != present.get(field));
    differing
        .map(|field| {
            let path = PointerBuf::from_tokens(["spec", field]);
            match wanted.get(field) {
                Some(value) => PatchOperation::Add(AddOperation { path, value: value.clone() }),
                None => PatchOperation::Remove(RemoveOperation { path }),
            }
        })
        .collect()
}

type Map = std::collections::BTreeMap<String, String>;

/// Adds what the template has. What others put there, and what an earlier template had, stays.
fn map_operations(kind: &str, wanted: &Map, present: Option<&Map>) -> Vec<PatchOperation> {
    let Some(present) = present else {
        let path = PointerBuf::from_tokens(["metadata", kind]);
        let add = AddOperation { path, value: to_value(wanted) };
        return if wanted.is_empty() { Vec::new() } else { vec![PatchOperation::Add(add)] };
    };
    let missing = wanted.iter().filter(|(key, value)| present.get(*key) != Some(value));
    missing
        .map(|(key, value)| {
            let path = PointerBuf::from_tokens(["metadata", kind, key]);
            PatchOperation::Add(AddOperation { path, value: to_value(value) })
        })
        .collect()
}

fn to_value<T: Serialize + ?Sized>(value: &T) -> Value {
    // The API types always serialise: their maps have string keys and they fail nowhere.
    serde_json::to_value(value).unwrap_or_default()
}
