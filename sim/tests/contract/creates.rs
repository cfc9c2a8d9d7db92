//! Creation.

use serde_json::{Value, json};

use crate::lab::{Lab, server};

pub(crate) async fn a_new_object_gets_what_only_the_api_server_writes(lab: Lab) {
    let sent = json!({"metadata": {"uid": "mine", "generation": 7, "creationTimestamp": "2001-01-01T00:00:00Z"},
                      "status": {"waitingFor": "nobody"}});
    let created = lab.server("web-1", &sent).await;
    let metadata = &created["metadata"];
    assert_eq!(metadata["namespace"], lab.namespace);
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata["creationTimestamp"].as_str().unwrap() > "2025");
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert!(
        created.get("status").is_none_or(|status| status.get("waitingFor").is_none()),
        "a creation writes no status"
    );
    let stored = lab.get(&format!("{}/web-1", lab.path("servers"))).await.expect(200);
    assert_eq!(stored, created);
}

pub(crate) async fn unknown_fields_are_removed_and_defaults_added(lab: Lab) {
    let sent = json!({"spec": {"colour": "red", "machine": {"className": "small", "size": 3}, "packages": [], "app": null,
                               "traffic": {"backends": [{"service": "web", "port": 80, "size": 3}]}}});
    let created = lab.server("web-1", &sent).await;
    let spec = &created["spec"];
    assert!(spec.get("colour").is_none() && spec["machine"].get("size").is_none(), "{spec}");
    assert!(spec["traffic"]["backends"][0].get("size").is_none(), "{spec}");
    assert!(spec["traffic"].get("drain").is_none(), "the CRD of Servers fills nothing in: {spec}");

    let labels = json!({"app": "web"});
    let template =
        json!({"metadata": {"labels": labels}, "spec": {"machine": {"className": "small"}, "traffic": {"drain": {}}}});
    let declared = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "metadata": {"name": "web"},
                     "spec": {"selector": {"matchLabels": labels}, "template": template}});
    let created = lab.post(&lab.path("vmreplicasets"), &declared).await.expect(201);
    let spec = &created["spec"]["template"]["spec"];
    assert!(spec["traffic"]["drain"]["seconds"].is_number(), "{spec}");
    assert!(spec["reachability"]["unreachableAfterSeconds"].is_number(), "{spec}");
    assert!(spec["taskAttempts"].is_number(), "{spec}");
}

pub(crate) async fn a_name_is_given_once(lab: Lab) {
    lab.server("web-1", &json!({})).await;
    let message = lab.post(&lab.path("servers"), &server("web-1", &json!({}))).await.refused(409, "AlreadyExists");
    assert_eq!(message, "servers.berth.dev \"web-1\" already exists");
}

pub(crate) async fn a_namespace_has_to_exist(lab: Lab) {
    let path = "/apis/berth.dev/v1alpha1/namespaces/nowhere/servers";
    let message = lab.post(path, &server("web-1", &json!({}))).await.refused(404, "NotFound");
    assert_eq!(message, "namespaces \"nowhere\" not found");
}

pub(crate) async fn a_name_has_to_be_a_dns_name(lab: Lab) {
    let message = lab.post(&lab.path("servers"), &server("Web_1", &json!({}))).await.refused(422, "Invalid");
    assert!(message.contains("metadata.name: Invalid value: \"Web_1\""), "{message}");
}

pub(crate) async fn a_generated_name_begins_with_its_prefix(lab: Lab) {
    let created = lab.server("", &json!({"metadata": {"name": null, "generateName": "web-"}})).await;
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
}

pub(crate) async fn what_the_schema_refuses_is_named(lab: Lab) {
    for (changes, field) in [
        (json!({"spec": null}), "spec"),
        (json!({"spec": {"machine": {"className": null}}}), "spec.machine"),
        (json!({"spec": {"taskAttempts": "three"}}), "spec.taskAttempts"),
        (json!({"spec": {"traffic": {"drain": {"seconds": -1}}}}), "spec.traffic.drain.seconds"),
        (json!({"spec": {"gates": [{"before": "Lunch"}]}}), "spec.gates[0].before"),
        (
            json!({"spec": {"packages": [{"name": "jq", "version": "1", "apt": {}}, {"name": "jq", "version": "2", "apt": {}}]}}),
            "spec.packages[1]: Duplicate value",
        ),
    ] {
        let message = lab.post(&lab.path("servers"), &server("web-1", &changes)).await.refused(422, "Invalid");
        assert!(message.starts_with("Server.berth.dev \"web-1\" is invalid: "), "{message}");
        assert!(message.contains(field), "{field}: {message}");
    }
}

pub(crate) async fn what_a_rule_refuses_is_said_in_its_words(lab: Lab) {
    let both = json!({"spec": {"healthCheck": {"httpGet": {"port": 80, "path": "/"}, "tcpSocket": {"port": 80}}}});
    let message = lab.post(&lab.path("servers"), &server("web-1", &both)).await.refused(422, "Invalid");
    assert!(message.contains("spec.healthCheck: Invalid value"), "{message}");
    assert!(message.contains("httpGet"), "{message}");
    let one = json!({"spec": {"healthCheck": {"tcpSocket": {"port": 80}}}});
    lab.server("web-1", &one).await;
}

pub(crate) async fn a_document_of_another_kind_is_refused(lab: Lab) {
    let message = lab
        .post(&lab.path("servers"), &server("web-1", &json!({"kind": "VMReplicaSet"})))
        .await
        .refused(422, "Invalid");
    assert!(message.contains("kind: Invalid value: \"VMReplicaSet\": must be Server"), "{message}");
}

pub(crate) async fn built_in_kinds_are_stored_as_they_are_written(lab: Lab) {
    let path = format!("/api/v1/namespaces/{}/configmaps", lab.namespace);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes"}, "data": {"a": "1"}});
    let created: Value = lab.post(&path, &map).await.expect(201);
    assert_eq!(created["data"], json!({"a": "1"}));
    assert!(created["metadata"].get("generation").is_none(), "{created}");
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", lab.namespace);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "copy-1"},
                       "spec": {"holderIdentity": "a", "leaseDurationSeconds": 30}});
    assert_eq!(lab.post(&path, &lease).await.expect(201)["spec"]["holderIdentity"], "a");
}

pub(crate) async fn a_default_of_the_status_shows_that_nobody_has_observed_the_object(lab: Lab) {
    let labels = json!({"app": "web"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"machine": {"className": "small"}}});
    let declared = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "metadata": {"name": "web"},
                     "spec": {"selector": {"matchLabels": labels}, "template": template},
                     "status": {"observedGeneration": 1, "waitingFor": "nobody"}});
    let created = lab.post(&lab.path("vmreplicasets"), &declared).await.expect(201);
    let path = format!("{}/web", lab.path("vmreplicasets"));
    let stored = lab.get(&path).await.expect(200);
    for shown in [&created["status"], &stored["status"]] {
        assert_eq!((&shown["observedGeneration"], &shown["replicas"]), (&json!(-1), &json!(0)), "{shown}");
        assert!(shown.get("waitingFor").is_none(), "a creation writes no status: {shown}");
    }
    let changed = lab.merge(&path, &json!({"spec": {"replicas": 2}})).await.expect(200);
    assert_eq!((&changed["status"]["observedGeneration"], &changed["metadata"]["generation"]), (&json!(-1), &json!(2)));
    // A status that says nothing of it says nothing: the default is one of the whole status.
    let operations = json!([{"op": "add", "path": "/status", "value": {"waitingFor": "Ben"}}]);
    let changed = lab.json_patch(&format!("{path}/status"), &operations).await.expect(200);
    assert_eq!(
        changed["status"],
        json!({"waitingFor": "Ben", "replicas": 0, "readyReplicas": 0, "availableReplicas": 0, "updatedReplicas": 0})
    );
}
