//! What an upgrade of Berth must not do: deploy again, end a force, or repeat a person's approval.
//!
//! Digests outlive the version of Berth that made them. If one of these tests fails after a change of the API, then that change
//! would deploy every application again, or undo decisions of people: leave a new field out of the digest while it has its default.

use std::collections::BTreeSet;

use berth_core::{
    api::{App, Force, GatePoint, RolloutProgress, ServerSpec, State, TaskKind},
    lifecycle::plan,
};
use serde_json::json;

use berth_testing::{Fixture, full_spec, person, unreachable};

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

/// Berth must deploy again when it changes, and not when a later version merely knows the field.
#[test]
fn everything_about_how_an_application_runs_is_part_of_its_digest_once_it_is_declared() {
    let digest = |change: serde_json::Value| {
        let mut app = serde_json::to_value(declaration().app.unwrap()).unwrap();
        json_patch::merge(&mut app, &change);
        let mut spec = declaration();
        spec.app = Some(serde_json::from_value(app).unwrap());
        spec.app_digest().unwrap()
    };
    for same in [
        json!({}),
        json!({"stopSeconds": 10}),
        json!({"keepReleases": 7}),
        json!({"executor": {"type": "SSH"}}),
        json!({"executor": {"type": "External", "className": "ci"}}),
        json!({"artifact": {"url": "https://elsewhere/x", "secretRef": {"name": "art"}}}),
    ] {
        assert_eq!(digest(same.clone()), "1f389af820", "{same}");
    }
    let changes = [
        json!({"artifact": {"format": "Binary"}}),
        json!({"user": "web"}),
        json!({"stopSeconds": 30}),
        json!({"hooks": {"preStop": {"command": "./drain"}}}),
        json!({"hooks": {"preStop": {"command": "./drain", "timeoutSeconds": 5}}}),
        json!({"hooks": {"preStart": {"command": "./drain"}}}),
        json!({"files": [{"path": "a", "configMapKeyRef": {"name": "m", "key": "a"}}]}),
        json!({"files": [{"path": "a", "secretKeyRef": {"name": "m", "key": "a"}}]}),
        json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "a"}}}]}),
        json!({"contentDigest": "0a"}),
    ];
    let digests: BTreeSet<String> = changes.iter().cloned().map(digest).collect();
    assert_eq!(digests.len(), changes.len());
    assert!(!digests.contains("1f389af820"));
}

/// Stored objects of earlier versions have none, and nothing is written to them.
#[test]
fn the_default_executor_is_left_out_of_objects() {
    let with = |executor: serde_json::Value| {
        let mut app = serde_json::to_value(declaration().app.unwrap()).unwrap();
        json_patch::merge(&mut app, &json!({"executor": executor}));
        serde_json::from_value::<App>(app).unwrap()
    };
    let ssh = with(json!({"type": "SSH"}));
    assert_eq!(ssh, declaration().app.unwrap());
    assert_eq!((serde_json::to_value(&ssh).unwrap().get("executor"), ssh.deploy_class()), (None, None));
    let external = with(json!({"type": "External", "className": "ci"}));
    assert_eq!(external.deploy_class(), Some("ci"));
    assert_eq!(external.without_defaults()["executor"], json!({"type": "External", "className": "ci"}));
    assert_eq!(external.effective_revision(), ssh.effective_revision());
}

#[test]
fn the_name_of_a_revision_is_that_of_what_is_declared_whatever_its_content_is() {
    let mut app = declaration().app.unwrap();
    app.revision = None;
    let with_content = App { content_digest: Some("0a".into()), ..app.clone() };
    assert_eq!(with_content.effective_revision(), app.effective_revision());
    assert_ne!(with_content.digest(80), app.digest(80));
    assert!(with_content.is_declared_as(&app) && with_content != app && with_content.as_declared() == app);
    let restarted = App { restart: Some("1".into()), ..app.clone() };
    assert!(restarted.digest(80) != app.digest(80) && restarted.effective_revision() == app.effective_revision());
    assert!(restarted.is_same_code(&app) && restarted.is_declared_as(&with_content) && restarted.as_declared() == app);
    assert!(!restarted.is_same_code(&with_content));
    let baseline = App { baseline: Some("m".into()), ..restarted.clone() };
    assert!(baseline.digest(80) != restarted.digest(80) && baseline.effective_revision() == app.effective_revision());
    assert!(baseline.is_same_code(&app) && baseline.is_declared_as(&with_content) && baseline.as_declared() == app);
    assert!(baseline.is_as_wanted(&restarted) && !baseline.is_as_wanted(&app), "a restart that came later is one");
    assert!(!restarted.is_as_wanted(&baseline), "a baseline is a restart");
    assert_eq!((baseline.started_for(), restarted.started_for(), app.started_for()), (Some("m"), Some("1"), None));
    let progress = RolloutProgress { digest: berth_core::digest::short(&restarted), ..RolloutProgress::default() };
    assert!(progress.is_about(&baseline) && !progress.is_about(&app), "its mark makes it no other version");
    assert!(!App { user: Some("web".into()), ..with_content }.is_declared_as(&app));
}

#[test]
fn the_digests_of_forces_and_tasks_are_the_same_in_every_version() {
    let mut fixture = Fixture::declaring(|spec| *spec = declaration()).gate(GatePoint::CreateMachine);
    let force = Force { state: State::Unknown, reason: "x".into(), by: None, at: None, declaration: None };
    fixture.update(&person("ann"), |server| server.spec.force = Some(force)).unwrap();
    assert_eq!(fixture.server.spec.force.as_ref().unwrap().declaration.as_deref(), Some("628b53853a"));
    fixture.declare(|spec| spec.force = None);
    let digest = |kind: TaskKind| fixture.task(kind).digest.as_str();
    assert_eq!([TaskKind::Gate, TaskKind::CreateMachine].map(digest), ["b6b3968c26", "b6b3968c26"]);
    assert_eq!(digest(TaskKind::InstallPackages), "234a6482dd");
    let releases = plan(&fixture.server, State::Ready).into_iter().find(|task| task.kind == TaskKind::ReleaseTraffic);
    assert_eq!(releases.unwrap().digest, "589c4842f6");
}

/// Finished tasks of earlier states and changes of state were objects, before the history had lines for people.
#[test]
fn an_old_history_is_read_as_ever_and_becomes_lines_with_the_next_write() {
    let time = "2026-01-01T00:00:00Z";
    let change =
        |from: &str, to: &str| json!({"from": from, "to": to, "at": time, "reason": "because", "author": "ann"});
    let task = |id: i64, kind: &str, executor: &str, phase: &str| json!({"id": id, "kind": kind, "step": 1, "executor": executor, "phase": phase, "finishedAt": time, "message": "m"});
    let mut fixture = Fixture::ready();
    fixture.advance(60);
    let lost = unreachable(60, fixture.now);
    fixture.write(berth_core::api::Executor::MonitorController, |write| write.reachability(lost)).unwrap();
    let mut status = serde_json::to_value(fixture.status()).unwrap();
    let next = status["firstTaskID"].as_i64().unwrap();
    let fields = status.as_object_mut().unwrap();
    for new in ["history", "previousState", "cameFrom"] {
        fields.remove(new);
    }
    fields.insert(
        "transitions".to_owned(),
        json!([change("Ready", "Deploying"), change("Deploying", "Ready"), change("Ready", "Unknown")]),
    );
    let old = [
        task(next - 2, "DeployApp", "deployment-controller", "Succeeded"),
        task(next - 1, "Gate", "person", "Succeeded"),
    ];
    let tasks = fields.get_mut("tasks").unwrap().as_array_mut().unwrap();
    tasks.splice(0..0, old);
    let count = tasks.len();
    fixture = fixture.fact(|known| *known = serde_json::from_value(status).unwrap());
    let (state, steps) = (fixture.state(), fixture.steps());
    assert_eq!(
        (fixture.status().previous_state(), fixture.status().came_from()),
        (Some(State::Ready), Some(State::Ready))
    );

    fixture.acknowledge();
    assert_eq!((fixture.state(), fixture.steps()), (state, steps), "nothing else changes");
    let status = fixture.status();
    assert_eq!((status.previous_state, status.came_from), (Some(State::Ready), Some(State::Ready)));
    assert!(status.transitions.is_empty());
    assert_eq!(status.tasks.len(), count - 1, "the gate stays");
    assert_eq!(
        status.history,
        [
            format!("{time} Ready -> Deploying (ann): because"),
            format!("{time} Deploying -> Ready (ann): because"),
            format!("{time} Ready -> Unknown (ann): because"),
            format!("{time} DeployApp (task {}) Succeeded: m", next - 2),
        ]
    );
}
