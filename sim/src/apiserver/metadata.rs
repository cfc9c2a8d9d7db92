//! `metadata` as the API server keeps it.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{failure::Failure, resources::Resource};

/// Fields of `metadata` that only the API server writes.
const SYSTEM: [&str; 8] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "selfLink",
    "managedFields",
];

/// A text of `metadata`.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object["metadata"][field].as_str()
}

/// Whether the deletion of the object was requested.
pub(crate) fn is_being_deleted(object: &Value) -> bool {
    text(object, "deletionTimestamp").is_some()
}

/// Whether the object waits for finalizers.
pub(crate) fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// Removes what only the API server writes from a new object.
pub(crate) fn remove_system_fields(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|field, _| !SYSTEM.contains(&field.as_str()));
    }
}

/// Writes what the API server writes into a new object.
pub(crate) fn begin(resource: &Resource, object: &mut Value, uid: String, now: Timestamp) {
    let metadata = &mut object["metadata"];
    metadata["uid"] = uid.into();
    metadata["creationTimestamp"] = seconds(now).into();
    if resource.has_generation {
        metadata["generation"] = 1.into();
    }
}

/// Puts back what a write to an object cannot change, and counts a change of the declaration.
pub(crate) fn carry_over(resource: &Resource, old: &Value, new: &mut Value) {
    for field in SYSTEM.iter().filter(|field| **field != "managedFields") {
        match old["metadata"].get(field) {
            Some(value) => new["metadata"][*field] = value.clone(),
            None => drop(new["metadata"].as_object_mut().map(|metadata| metadata.remove(*field))),
        }
    }
    if resource.has_generation && declaration(resource, old) != declaration(resource, new) {
        count_generation(new);
    }
}

/// Counts a new generation.
pub(crate) fn count_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
    object["metadata"]["generation"] = (generation + 1).into();
}

/// Everything but `metadata`, and `status` where it has a subresource.
fn declaration<'a>(resource: &Resource, object: &'a Value) -> Vec<(&'a String, &'a Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(name, _)| *name != "metadata" && (*name != "status" || !resource.has_status)).collect()
}

/// Marks the object as being deleted.
pub(crate) fn request_deletion(resource: &Resource, object: &mut Value, now: Timestamp) {
    object["metadata"]["deletionTimestamp"] = seconds(now).into();
    object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    if resource.has_generation {
        count_generation(object);
    }
}

/// Refuses a write whose `uid` or `resourceVersion` is not the stored object's.
pub(crate) fn check_preconditions(
    resource: &Resource,
    old: &Value,
    uid: Option<&str>,
    version: Option<&str>,
) -> Result<(), Failure> {
    let name = text(old, "name").unwrap_or_default();
    if let Some(uid) = uid.filter(|uid| Some(*uid) != text(old, "uid")) {
        let stored = text(old, "uid").unwrap_or_default();
        let message = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
        return Err(Failure::conflict(resource, name, &message));
    }
    if version.is_some_and(|version| Some(version) != text(old, "resourceVersion")) {
        let message = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Failure::conflict(resource, name, message));
    }
    Ok(())
}

/// Refuses a finalizer that is new on an object that is being deleted.
pub(crate) fn check_finalizers(resource: &Resource, old: &Value, new: &Value) -> Result<(), Failure> {
    let finalizers = |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let (before, after) = (finalizers(old), finalizers(new));
    let added: Vec<&Value> = after.iter().filter(|finalizer| !before.contains(finalizer)).collect();
    if !is_being_deleted(old) || added.is_empty() {
        return Ok(());
    }
    let error = format!(
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
         finalizers {added:?}"
    );
    Err(Failure::invalid(resource, text(old, "name").unwrap_or_default(), &[error]))
}

/// Checks the name of a new object.
pub(crate) fn check_name(resource: &Resource, name: &str) -> Result<(), Failure> {
    let is_label = |label: &str| {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(is_allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(());
    }
    let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                start and end with an alphanumeric character";
    Err(Failure::invalid(resource, name, &[format!("metadata.name: Invalid value: {name:?}: {rule}")]))
}

/// The object's metadata alone.
pub(crate) fn only_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]
    })
}

/// A time in whole seconds, as `metadata` has it.
pub(crate) fn seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}
