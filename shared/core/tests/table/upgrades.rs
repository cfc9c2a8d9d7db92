//! What an upgrade of Berth must not do: deploy again, end a force, or repeat a person's approval.
//!
//! Digests outlive the version of Berth that made them. If one of these tests fails after a change of the API, then that change
//! would deploy every application again, or undo decisions of people: leave a new field out of the digest while it has its default.

use berth_core::api::{Force, GatePoint, ServerSpec, State, TaskKind};
use serde_json::json;

use berth_testing::{Fixture, full_spec, person};

/// A declaration as the first version of the API knew it.
fn declaration() -> ServerSpec {
    let mut spec = full_spec();
    spec.app.as_mut().unwrap().env =
        serde_json::from_value(json!([{"name": "B", "value": "2"}, {"name": "A", "value": ""}])).unwrap();
    spec
}

#[test]
fn the_digest_of_an_application_is_the_same_in_every_version() {
    let mut spec = declaration();
    assert_eq!(spec.app_digest().as_deref(), Some("1f389af820"));
    spec.app.as_mut().unwrap().revision = None;
    assert_eq!(spec.app.unwrap().effective_revision(), "3df8eeed3f");
}

#[test]
fn the_digest_of_an_application_says_which_secrets_it_uses_and_nothing_of_other_variables_changes() {
    let with = |reference: serde_json::Value| {
        let mut spec = declaration();
        let variable = json!({"name": "DB", "valueFrom": {"secretKeyRef": reference}});
        spec.app.as_mut().unwrap().env.push(serde_json::from_value(variable).unwrap());
        spec.app_digest()
    };
    let one = with(json!({"name": "db", "key": "password"}));
    assert_ne!(one.as_deref(), Some("1f389af820"));
    assert_eq!(one, with(json!({"name": "db", "key": "password", "optional": false})));
    for other in [json!({"name": "db", "key": "user"}), json!({"name": "db", "key": "password", "optional": true})] {
        assert_ne!(one, with(other));
    }
}

#[test]
fn the_digests_of_forces_and_tasks_are_the_same_in_every_version() {
    let mut fixture = Fixture::declaring(|spec| *spec = declaration()).gate(GatePoint::CreateMachine);
    let force = Force { state: State::Unknown, reason: "x".into(), by: None, at: None, declaration: None };
    fixture.update(&person("ann"), |server| server.spec.force = Some(force)).unwrap();
    assert_eq!(fixture.server.spec.force.as_ref().unwrap().declaration.as_deref(), Some("fd2fbdfb83"));
    fixture.declare(|spec| spec.force = None);
    let digest = |kind: TaskKind| fixture.task(kind).digest.as_str();
    assert_eq!([TaskKind::Gate, TaskKind::CreateMachine].map(digest), ["b6b3968c26", "b6b3968c26"]);
    assert_eq!([TaskKind::InstallPackages, TaskKind::RegisterBackend].map(digest), ["234a6482dd", "5526dbb3be"]);
}
