//! Updates of objects, of their status and of their scale.

use serde_json::json;

use crate::lab::{Lab, generation, version};

pub(crate) async fn an_update_needs_the_current_version(lab: Lab) {
    let created = lab.server("web-1", &json!({})).await;
    let path = format!("{}/web-1", lab.path("servers"));
    let mut first = created.clone();
    first["spec"]["offline"] = true.into();
    lab.put(&path, &first).await.expect(200);
    let mut second = created.clone();
    second["spec"]["taskAttempts"] = 9.into();
    let message = lab.put(&path, &second).await.refused(409, "Conflict");
    assert!(message.starts_with("Operation cannot be fulfilled on servers.berth.dev \"web-1\": "), "{message}");
    assert!(message.ends_with("please apply your changes to the latest version and try again"), "{message}");
    second["metadata"]["resourceVersion"].take();
    let message = lab.put(&path, &second).await.refused(422, "Invalid");
    assert!(message.contains("metadata.resourceVersion"), "{message}");
}

pub(crate) async fn an_update_of_another_object_of_the_same_name_is_refused(lab: Lab) {
    let mut other = lab.server("web-1", &json!({})).await;
    other["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    let path = format!("{}/web-1", lab.path("servers"));
    let message = lab.put(&path, &other).await.refused(409, "Conflict");
    assert!(message.contains("UID in precondition"), "{message}");
}

pub(crate) async fn what_changes_nothing_is_no_new_version(lab: Lab) {
    let created = lab.server("web-1", &json!({})).await;
    let path = format!("{}/web-1", lab.path("servers"));
    assert_eq!(version(&lab.put(&path, &created).await.expect(200)), version(&created));
    let same = lab.merge(&path, &json!({"spec": {"machine": {"className": "small"}}})).await.expect(200);
    assert_eq!(version(&same), version(&created));
    let from = format!("{}?watch=true&timeoutSeconds=1&resourceVersion={}", lab.path("servers"), version(&created));
    assert_eq!(lab.watch(&from).await, Vec::<serde_json::Value>::new());
}

pub(crate) async fn only_the_declaration_counts_as_a_generation(lab: Lab) {
    let path = format!("{}/web-1", lab.path("servers"));
    let created = lab.server("web-1", &json!({})).await;
    let labelled = lab.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    let status = lab.merge(&format!("{path}/status"), &json!({"status": {"waitingFor": "Ann"}})).await.expect(200);
    let changed = lab.merge(&path, &json!({"spec": {"offline": true}})).await.expect(200);
    let generations = [&created, &labelled, &status, &changed].map(generation);
    assert_eq!(generations, [1, 1, 1, 2]);
    assert_ne!(version(&labelled), version(&status));
}

pub(crate) async fn a_write_to_the_object_leaves_its_status(lab: Lab) {
    let path = format!("{}/web-1", lab.path("servers"));
    lab.server("web-1", &json!({})).await;
    lab.merge(&format!("{path}/status"), &json!({"status": {"waitingFor": "Ann"}})).await.expect(200);
    let wish = json!({"status": {"waitingFor": "Ben"}, "spec": {"offline": true}});
    let changed = lab.merge(&path, &wish).await.expect(200);
    assert_eq!((&changed["status"]["waitingFor"], &changed["spec"]["offline"]), (&json!("Ann"), &json!(true)));
}

pub(crate) async fn a_write_to_the_status_leaves_everything_else(lab: Lab) {
    let path = format!("{}/web-1", lab.path("servers"));
    lab.server("web-1", &json!({"metadata": {"labels": {"a": "b"}}})).await;
    let wish = json!({"status": {"waitingFor": "Ben"}, "spec": {"offline": true},
                         "metadata": {"labels": {"a": "c"}, "annotations": {"x": "y"}, "finalizers": ["a.b/c"]}});
    let changed = lab.merge(&format!("{path}/status"), &wish).await.expect(200);
    assert_eq!(changed["status"]["waitingFor"], "Ben");
    assert_eq!(changed["metadata"]["labels"], json!({"a": "b"}));
    assert!(changed["metadata"].get("annotations").is_none() && changed["metadata"].get("finalizers").is_none());
    assert_ne!(changed["spec"]["offline"], true);
}

pub(crate) async fn a_rule_may_compare_with_the_past(lab: Lab) {
    let path = format!("{}/web-1", lab.path("servers"));
    lab.server("web-1", &json!({})).await;
    let moved = lab.merge(&path, &json!({"spec": {"machine": {"className": "large"}}})).await;
    let message = moved.refused(422, "Invalid");
    assert!(message.contains("spec.machine: Forbidden: spec.machine is immutable"), "{message}");
}

pub(crate) async fn the_scale_of_an_object_is_its_replicas(lab: Lab) {
    let set = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"machine": {"className": "small"}}}}
    });
    let created = lab.post(&lab.path("vmreplicasets"), &set).await.expect(201);
    let path = format!("{}/web/scale", lab.path("vmreplicasets"));
    let scale = lab.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let operations = json!([{"op": "test", "path": "/metadata/resourceVersion", "value": version(&created)},
                       {"op": "replace", "path": "/spec/replicas", "value": 2}]);
    let scaled = lab.json_patch(&path, &operations).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 2);
    lab.json_patch(&path, &operations).await.refused(422, "Invalid");
    let stored = lab.get(&format!("{}/web", lab.path("vmreplicasets"))).await.expect(200);
    assert_eq!((&stored["spec"]["replicas"], generation(&stored)), (&json!(2), 2));
}
