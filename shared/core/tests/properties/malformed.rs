//! Malformed objects: each is read without losing anything, or refused with an error that names what is wrong; and admission
//! decides on each that can be read.

use berth_core::{
    api::{Approval, MachineClass, Server, VMDeployment, VMReplicaSet},
    budget::{Budget, max_surge},
    fleet::Fleet,
    lifecycle::admit_approval,
};
use berth_testing::{person, start};
use proptest::{collection::vec, prelude::*};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    complete,
    documents::{admit_all, read_back},
    mutations::{self, lost_value, mutation},
};

/// Reads the document. Nothing that it says may be lost or changed by that, and an error has to name something.
fn read<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    document: &Value,
) -> Result<Option<T>, TestCaseError> {
    match serde_json::from_value::<T>(document.clone()) {
        Ok(object) => {
            read_back(&object)?;
            let written = serde_json::to_value(&object).unwrap();
            let lost = lost_value(document, Some(&written), "");
            prop_assert!(lost.is_none(), "read, but not as it was written: {}", lost.unwrap_or_default());
            Ok(Some(object))
        }
        Err(error) => {
            let message = error.to_string();
            let names_something = message.contains('`') || message.contains("expected") || message.contains("Expected");
            prop_assert!(names_something, "the error does not say what is wrong: {message}");
            Ok(None)
        }
    }
}

/// Reads the document as an object of its kind, and lets the rules of this crate see it. Returns whether it could be read.
fn read_and_admit(kind: &str, document: &Value, original: &Value) -> Result<bool, TestCaseError> {
    Ok(match kind {
        "Server" => read::<Server>(document)?.is_some_and(|server| {
            admit_all(&serde_json::from_value(original.clone()).unwrap(), &server);
            admit_all(&server, &server);
            true
        }),
        "VMReplicaSet" => read::<VMReplicaSet>(document)?.is_some_and(|set| {
            let _ = (Fleet::of_set(&set, &[], start()).headroom(), set.selector_text());
            let _ = max_surge(&set.spec.update_strategy, set.spec.replicas);
            true
        }),
        "VMDeployment" => read::<VMDeployment>(document)?.is_some_and(|deployment| {
            let _ = (Budget::of_deployment(&deployment), deployment.selector_text());
            true
        }),
        "MachineClass" => read::<MachineClass>(document)?.is_some(),
        _ => match read::<Approval>(document)? {
            Some(approval) => {
                let admitted = admit_approval(approval, &person("ann"), start());
                prop_assert_eq!(&admitted.spec.approver.as_ref().unwrap().username, "ann");
                read_back(&admitted)?;
                true
            }
            None => false,
        },
    })
}

#[test]
fn complete_objects_are_read_without_losing_anything() {
    for (kind, object) in complete::objects() {
        let is_read = read_and_admit(kind, &object, &object).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(is_read, "{kind} cannot be read");
    }
}

/// Every mutation of every value.
#[test]
fn an_object_with_one_malformed_value_is_read_without_losing_anything_or_refused_with_a_reason() {
    for (kind, original) in complete::objects() {
        let (mut read, mut refused) = (0, 0);
        for place in 0..mutations::count(&original) {
            for mutation in mutations::all() {
                let mut document = original.clone();
                let path = mutation.apply(&mut document, place);
                let is_read = read_and_admit(kind, &document, &original);
                let is_read = is_read.unwrap_or_else(|error| panic!("{kind} after {mutation:?} of {path}: {error}"));
                *(if is_read { &mut read } else { &mut refused }) += 1;
            }
        }
        assert!(read > 20 && refused > 100, "{kind}: {read} read, {refused} refused");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_object_with_several_malformed_values_is_read_without_losing_anything_or_refused_with_a_reason(
        kind in 0..5usize, edits in vec((any::<prop::sample::Index>(), mutation()), 2..5),
    ) {
        let (kind, original) = complete::objects().remove(kind);
        let mut document = original.clone();
        let mut changed = Vec::new();
        for (place, mutation) in edits {
            changed.push((mutation.apply(&mut document, place.index(1000)), mutation));
        }
        read_and_admit(kind, &document, &original)
            .map_err(|error| TestCaseError::fail(format!("{kind} after {changed:?}: {error}")))?;
    }
}
