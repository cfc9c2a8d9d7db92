//! Patches: JSON Patch, merge patch and server-side apply.

use http::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, version};

pub(crate) async fn a_json_patch_whose_test_fails_changes_nothing(lab: Lab) {
    let created = lab.server("web-1", &json!({})).await;
    let path = format!("{}/web-1", lab.path("servers"));
    let operations = json!([{"op": "add", "path": "/spec/offline", "value": true},
                       {"op": "test", "path": "/metadata/uid", "value": "another"}]);
    lab.json_patch(&path, &operations).await.refused(422, "Invalid");
    let missing = json!([{"op": "remove", "path": "/spec/app"}]);
    lab.json_patch(&path, &missing).await.refused(422, "Invalid");
    assert_eq!(version(&lab.get(&path).await.expect(200)), version(&created));
}

pub(crate) async fn a_json_patch_may_test_the_version(lab: Lab) {
    let created = lab.server("web-1", &json!({})).await;
    let path = format!("{}/web-1/status", lab.path("servers"));
    let operations = json!([{"op": "test", "path": "/metadata/resourceVersion", "value": version(&created)},
                       {"op": "add", "path": "/status", "value": {"waitingFor": "Ann"}}]);
    assert_eq!(lab.json_patch(&path, &operations).await.expect(200)["status"]["waitingFor"], "Ann");
    lab.json_patch(&path, &operations).await.refused(422, "Invalid");
    let within = json!([{"op": "test", "path": "/status/waitingFor", "value": "Ann"},
                        {"op": "replace", "path": "/status/waitingFor", "value": "Ben"}]);
    assert_eq!(lab.json_patch(&path, &within).await.expect(200)["status"]["waitingFor"], "Ben");
}

pub(crate) async fn a_merge_patch_removes_what_is_null(lab: Lab) {
    lab.server("web-1", &json!({"metadata": {"labels": {"a": "b", "c": "d"}}})).await;
    let path = format!("{}/web-1", lab.path("servers"));
    let changed = lab.merge(&path, &json!({"metadata": {"labels": {"a": null, "e": "f"}}})).await.expect(200);
    assert_eq!(changed["metadata"]["labels"], json!({"c": "d", "e": "f"}));
}

fn set(labels: &Value, spec: &Value) -> Value {
    let mut set = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "metadata": {"name": "web", "labels": labels},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "small"}}}}
    });
    json_patch::merge(&mut set["spec"], spec);
    set
}

pub(crate) async fn an_apply_creates_and_repeats_without_a_change(lab: Lab) {
    let (path, set) = (format!("{}/web", lab.path("vmreplicasets")), set(&json!({"a": "b"}), &json!({})));
    let created = lab.apply(&path, "tester", &set).await.expect(201);
    assert_eq!(created["spec"]["replicas"], 3);
    // A real API server stores the default of the status with the first write after the creation, which therefore is a change.
    let observed = json!({"status": {"observedGeneration": 1}});
    let observed = lab.merge(&format!("{path}/status"), &observed).await.expect(200);
    let again = lab.apply(&path, "tester", &set).await.expect(200);
    assert_eq!(version(&again), version(&observed));
}

pub(crate) async fn an_apply_of_a_version_that_has_changed_is_a_conflict(lab: Lab) {
    let path = format!("{}/web", lab.path("vmreplicasets"));
    let created = lab.apply(&path, "tester", &set(&json!({"a": "b"}), &json!({}))).await.expect(201);
    let observed = json!({"status": {"observedGeneration": 1}});
    let observed = lab.merge(&format!("{path}/status"), &observed).await.expect(200);
    let mut changed = set(&json!({"a": "c"}), &json!({"replicas": 5}));
    changed["metadata"]["resourceVersion"] = version(&created).into();
    lab.apply(&path, "tester", &changed).await.refused(409, "Conflict");
    changed["metadata"]["resourceVersion"] = version(&observed).into();
    let applied = lab.apply(&path, "tester", &changed).await.expect(200);
    assert_eq!((&applied["spec"]["replicas"], &applied["metadata"]["labels"]), (&json!(5), &json!({"a": "c"})));
    assert!(!applied["metadata"]["managedFields"].to_string().contains("resourceVersion"), "{applied}");
}

pub(crate) async fn an_apply_removes_what_it_no_longer_names(lab: Lab) {
    let path = format!("{}/web", lab.path("vmreplicasets"));
    let packages = json!({"template": {"spec": {"packages": [
        {"name": "jq", "version": "1", "apt": {}}, {"name": "curl", "version": "1", "apt": {}}]}}});
    lab.apply(&path, "tester", &set(&json!({"a": "b", "c": "d"}), &packages)).await.expect(201);
    let fewer = json!({"template": {"spec": {"packages": [{"name": "jq", "version": "2", "apt": {}}]}}});
    let applied = lab.apply(&path, "tester", &set(&json!({"a": "x"}), &fewer)).await.expect(200);
    assert_eq!(applied["metadata"]["labels"], json!({"a": "x"}));
    let packages = applied["spec"]["template"]["spec"]["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 1, "{packages:?}");
    assert_eq!((&packages[0]["name"], &packages[0]["version"]), (&json!("jq"), &json!("2")));
}

pub(crate) async fn an_apply_leaves_what_others_wrote(lab: Lab) {
    let path = format!("{}/web", lab.path("vmreplicasets"));
    lab.apply(&path, "tester", &set(&json!({"a": "b"}), &json!({}))).await.expect(201);
    lab.merge(&path, &json!({"metadata": {"labels": {"mine": "yes"}}})).await.expect(200);
    lab.apply(
        &path,
        "other",
        &json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet",
        "metadata": {"name": "web", "labels": {"theirs": "yes", "a": "b"}}}),
    )
    .await
    .expect(200);
    let applied = lab.apply(&path, "tester", &set(&json!({}), &json!({"replicas": 4}))).await.expect(200);
    assert_eq!(applied["metadata"]["labels"], json!({"mine": "yes", "theirs": "yes", "a": "b"}));
    assert_eq!(applied["spec"]["replicas"], 4);
}

pub(crate) async fn a_patch_of_an_unknown_format_is_refused(lab: Lab) {
    lab.server("web-1", &json!({})).await;
    let path = format!("{}/web-1", lab.path("servers"));
    let answer = lab.send(Method::PATCH, &path, "application/telepathy", Some(&json!({}))).await;
    answer.refused(415, "UnsupportedMediaType");
}

pub(crate) async fn an_apply_gives_a_revision_a_new_number(lab: Lab) {
    let folder = format!("/apis/apps/v1/namespaces/{}/controllerrevisions", lab.namespace);
    let revision = |number: i64, labels: Value| {
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "web-1", "labels": labels},
               "data": {"command": "./run", "env": [{"name": "A", "value": "1"}]}, "revision": number})
    };
    let path = format!("{folder}/web-1");
    let created = lab.apply(&path, "tester", &revision(1, json!({"of": "web"}))).await.expect(201);
    assert_eq!((&created["revision"], &created["data"]["env"][0]["name"]), (&json!(1), &json!("A")));
    assert!(created["metadata"].get("generation").is_none(), "{created}");
    let later = lab.apply(&path, "tester", &revision(3, json!({"of": "web"}))).await.expect(200);
    assert_eq!((&later["revision"], &later["data"]), (&json!(3), &created["data"]));
    let again = lab.apply(&path, "tester", &revision(3, json!({"of": "web"}))).await.expect(200);
    assert_eq!(version(&again), version(&later));
    let found = lab.get(&format!("{folder}?labelSelector=of%3Dweb")).await.expect(200);
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{found}");
    let found = lab.get(&format!("{folder}?labelSelector=of%3Dother")).await.expect(200);
    assert_eq!(found["items"], json!([]));
}
