//! Deletion, finalizers and the garbage collector.

use http::Method;
use serde_json::json;

use crate::lab::{Lab, generation, version};

pub(crate) async fn an_object_without_finalizers_is_gone_at_once(lab: Lab) {
    let created = lab.server("web-1", &json!({})).await;
    let path = format!("{}/web-1", lab.path("servers"));
    let answer = lab.delete(&path).await.expect(200);
    assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(answer["details"]["uid"], created["metadata"]["uid"]);
    let message = lab.get(&path).await.refused(404, "NotFound");
    assert_eq!(message, "servers.berth.dev \"web-1\" not found");
    lab.delete(&path).await.refused(404, "NotFound");
}

pub(crate) async fn an_object_with_finalizers_waits_for_them(lab: Lab) {
    lab.server("web-1", &json!({"metadata": {"finalizers": ["a.b/c"]}})).await;
    let path = format!("{}/web-1", lab.path("servers"));
    let deleted = lab.delete(&path).await.expect(200);
    assert_eq!(deleted["kind"], "Server");
    assert!(deleted["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(generation(&deleted), 2);
    let again = lab.delete(&path).await.expect(200);
    assert_eq!(version(&again), version(&deleted));
    let last = lab.merge(&path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    assert_eq!(last["metadata"]["name"], "web-1");
    lab.get(&path).await.refused(404, "NotFound");
}

pub(crate) async fn no_finalizer_is_added_to_what_is_being_deleted(lab: Lab) {
    lab.server("web-1", &json!({"metadata": {"finalizers": ["a.b/c"]}})).await;
    let path = format!("{}/web-1", lab.path("servers"));
    lab.delete(&path).await.expect(200);
    let message =
        lab.merge(&path, &json!({"metadata": {"finalizers": ["a.b/c", "a.b/d"]}})).await.refused(422, "Invalid");
    assert!(message.contains("no new finalizers can be added if the object is being deleted"), "{message}");
}

pub(crate) async fn a_delete_may_name_what_it_means(lab: Lab) {
    let created = lab.server("web-1", &json!({})).await;
    let path = format!("{}/web-1", lab.path("servers"));
    let only = |field: &str, value: &str| json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {field: value}});
    let another = only("uid", "00000000-0000-0000-0000-000000000000");
    let answer = lab.send(Method::DELETE, &path, "", Some(&another)).await;
    answer.refused(409, "Conflict");
    let changed = lab.merge(&path, &json!({"spec": {"offline": true}})).await.expect(200);
    let answer = lab.send(Method::DELETE, &path, "", Some(&only("resourceVersion", version(&created)))).await;
    answer.refused(409, "Conflict");
    lab.send(Method::DELETE, &path, "", Some(&only("resourceVersion", version(&changed)))).await.expect(200);
}

pub(crate) async fn what_belongs_to_an_owner_goes_with_it(lab: Lab) {
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
    let maps = format!("/api/v1/namespaces/{}/configmaps", lab.namespace);
    let owner = lab.post(&maps, &owner).await.expect(201);
    let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
    lab.server("plain", &json!({"metadata": {"ownerReferences": owners}})).await;
    lab.server("careful", &json!({"metadata": {"ownerReferences": owners, "finalizers": ["a.b/c"]}})).await;
    lab.server("free", &json!({})).await;
    lab.delete(&format!("{maps}/owner")).await.expect(200);
    let servers = lab.path("servers");
    lab.eventually(&format!("{servers}/plain"), |answer| answer.code == 404).await;
    let is_marked = |answer: &crate::lab::Outcome| answer.body["metadata"]["deletionTimestamp"].is_string();
    lab.eventually(&format!("{servers}/careful"), is_marked).await;
    let free = lab.get(&format!("{servers}/free")).await.expect(200);
    assert!(free["metadata"].get("deletionTimestamp").is_none());
}
