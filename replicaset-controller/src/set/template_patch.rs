//! The patch that gives an existing Server the template's environment.
//!
//! A JSON Patch replaces whole fields. Server-side apply would not do: the fields that a Server was created with belong to the
//! manager of an Update, and an Apply by the same name removes none of them, so that a package that left the template would
//! stay.

use std::collections::BTreeMap;

use berth_core::{
    api::{Server, ServerSpec, VMReplicaSet},
    protocol::GuardedPatch,
};
use json_patch::Patch;
use serde_json::Value;

/// The fields of a Server's spec that follow the template. The machine does not: another machine needs another Server. Neither
/// does the application, which deployment-controller rolls out.
const FIELDS: [&str; 8] =
    ["packages", "prunePackages", "healthCheck", "reachability", "traffic", "monitoring", "gates", "taskAttempts"];

/// The patch that gives this very Server the template's environment, and leaves everything else to its owners. It is refused if
/// the Server's declaration has changed since it was read, or if the Server was out of service then and may serve by now.
#[must_use]
pub(super) fn patch(set: &VMReplicaSet, server: &Server) -> Patch {
    let template = &set.spec.template;
    // A request may arrive after its sender has given up and has written a newer declaration.
    let patch = GuardedPatch::of(&server.metadata)
        .test(&["metadata", "generation"], &server.metadata.generation)
        .if_still_out_of_service(server);
    let mut patch = replace_fields(patch, &template.spec, &server.spec);
    patch = add_missing(patch, "labels", &template.metadata.labels, server.metadata.labels.as_ref());
    patch = add_missing(patch, "annotations", &template.metadata.annotations, server.metadata.annotations.as_ref());
    patch.build()
}

fn replace_fields(patch: GuardedPatch, template: &ServerSpec, present: &ServerSpec) -> GuardedPatch {
    let (wanted, present): (Value, Value) = (template.without_defaults(), present.without_defaults());
    FIELDS.into_iter().filter(|field| wanted.get(field) != present.get(field)).fold(patch, |patch, field| match wanted
        .get(field)
    {
        Some(value) => patch.add(&["spec", field], value),
        None => patch.remove(&["spec", field]),
    })
}

/// Adds what the template has. What others have added, and what an earlier template had, stays.
fn add_missing(
    patch: GuardedPatch,
    kind: &str,
    wanted: &BTreeMap<String, String>,
    present: Option<&BTreeMap<String, String>>,
) -> GuardedPatch {
    match present {
        None if wanted.is_empty() => patch,
        None => patch.add(&["metadata", kind], wanted),
        Some(present) => {
            let missing = wanted.iter().filter(|(key, value)| present.get(*key) != Some(value));
            missing.fold(patch, |patch, (key, value)| patch.add(&["metadata", kind, key], value))
        }
    }
}
