//! JSON Patches whose `test` operations name everything that they rely on.

use json_patch::{
    AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use crate::api::{Server, State};

/// A JSON Patch that is refused as a whole if one of its tests fails: a compare-and-swap on just the fields that it relies on, so
/// that several controllers can write to one object without conflicts or lost updates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardedPatch(Vec<PatchOperation>);

impl GuardedPatch {
    /// A patch that applies only to this object (its UID is tested), even if the object has changed since it was read.
    #[must_use]
    pub fn of(object: &ObjectMeta) -> Self {
        Self::default().test(&["metadata", "uid"], &object.uid)
    }

    /// A patch that applies only if the object has not changed at all since it was read.
    #[must_use]
    pub fn of_version(object: &ObjectMeta) -> Self {
        Self::of(object).if_unchanged(object)
    }

    /// Also tests that the object has not changed at all since it was read.
    #[must_use]
    pub fn if_unchanged(self, object: &ObjectMeta) -> Self {
        self.test(&["metadata", "resourceVersion"], &object.resource_version)
    }

    /// Also tests that a Server that was out of service when it was read still is, because nobody counts it as disturbed: its budget
    /// may be spent on others when it serves by now. Only a Ready Server is given traffic, and one that is may get it at any moment.
    #[must_use]
    pub fn if_still_out_of_service(self, server: &Server) -> Self {
        match server.state() {
            _ if server.is_in_service() => self,
            None | Some(State::Ready) => self.if_unchanged(&server.metadata),
            Some(state) => self.test(&["status", "state"], &state),
        }
    }

    /// Tests that the field has this value.
    #[must_use]
    pub fn test<T: Serialize + ?Sized>(mut self, path: &[&str], value: &T) -> Self {
        self.0.push(PatchOperation::Test(TestOperation { path: pointer(path), value: to_value(value) }));
        self
    }

    /// Sets the field, whether or not it exists.
    #[must_use]
    pub fn add<T: Serialize + ?Sized>(mut self, path: &[&str], value: &T) -> Self {
        self.0.push(PatchOperation::Add(AddOperation { path: pointer(path), value: to_value(value) }));
        self
    }

    /// Replaces the field, which must exist.
    #[must_use]
    pub fn replace<T: Serialize + ?Sized>(mut self, path: &[&str], value: &T) -> Self {
        self.0.push(PatchOperation::Replace(ReplaceOperation { path: pointer(path), value: to_value(value) }));
        self
    }

    /// Removes the field, which must exist.
    #[must_use]
    pub fn remove(mut self, path: &[&str]) -> Self {
        self.0.push(PatchOperation::Remove(RemoveOperation { path: pointer(path) }));
        self
    }

    /// The patch.
    #[must_use]
    pub fn build(self) -> Patch {
        Patch(self.0)
    }
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

/// A field of the API types as JSON.
pub(super) fn to_value<T: Serialize + ?Sized>(value: &T) -> Value {
    // The API types always serialise: their maps have string keys and no value can fail.
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: &str, version: &str) -> ObjectMeta {
        ObjectMeta { uid: Some(uid.into()), resource_version: Some(version.into()), ..ObjectMeta::default() }
    }

    #[test]
    fn a_patch_applies_only_to_the_object_and_version_that_it_tests() {
        let read = object("u", "7");
        for (patch, same_uid, same_version) in
            [(GuardedPatch::of(&read), true, false), (GuardedPatch::of_version(&read), true, true)]
        {
            let patch = patch.add(&["spec", "a/b"], &1).build();
            for (stored, is_same_version) in [(object("u", "7"), true), (object("u", "8"), false)] {
                let mut value = json!({"metadata": stored, "spec": {}});
                let applies = json_patch::patch(&mut value, &patch).is_ok();
                assert_eq!(applies, same_uid && (is_same_version || !same_version));
                assert_eq!(value["spec"].get("a/b").is_some(), applies);
            }
            let mut other = json!({"metadata": object("v", "7"), "spec": {}});
            json_patch::patch(&mut other, &patch).unwrap_err();
        }
    }
}
