//! Good and bad requests, one by one.

use crate::requests::{LocalWebhook, review, stored};
use berth_core::{
    api::{Executor, TaskKind},
    identity::Identities,
    protocol::StatusWrite,
};
use berth_testing::{Fixture, holder};
use serde_json::{Value, json};
use webhook::body::RequestLimits;

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

fn username(executor: Executor) -> String {
    Identities::default().username(executor)
}

/// The review of a status write: the apiserver applies the controller's patch before it asks the webhook.
fn status_write(fixture: &Fixture, user: &str, build: impl FnOnce(StatusWrite) -> StatusWrite) -> Value {
    let old = stored(fixture.json());
    let mut new = old.clone();
    json_patch::patch(&mut new, &build(StatusWrite::new(&fixture.server)).into_patch()).unwrap();
    review("servers/status", "UPDATE", user, &old, &new)
}

pub(crate) fn server() -> Value {
    let mut server = stored(Fixture::new().json());
    server["metadata"].as_object_mut().unwrap().remove("finalizers");
    server
}

#[tokio::test]
async fn a_new_server_gets_the_finalizer_and_nothing_else() {
    let webhook = LocalWebhook::new();
    let reply = webhook.review(&review("servers", "CREATE", "ann", &Value::Null, &server())).await;
    assert_eq!(reply.uid(), UID);
    let expected = json!([{"op": "add", "path": "/metadata/finalizers", "value": ["berth.dev/retire"]}]);
    assert_eq!(reply.patch(), Some(expected));

    let mut server = server();
    server["metadata"]["finalizers"] = json!(["other.dev/x"]);
    let reply = webhook.review(&review("servers", "CREATE", "ann", &Value::Null, &server)).await;
    let expected = json!([{"op": "add", "path": "/metadata/finalizers/-", "value": "berth.dev/retire"}]);
    assert_eq!(reply.patch(), Some(expected));

    server["metadata"]["finalizers"] = json!(["berth.dev/retire"]);
    let reply = webhook.review(&review("servers", "CREATE", "ann", &Value::Null, &server)).await;
    assert_eq!(reply.patch(), None, "there is no patch because nothing changes");
}

#[tokio::test]
async fn managed_fields_are_removed_while_only_controllers_write() {
    let webhook = LocalWebhook::new();
    let controller = username(Executor::ReplicasetController);
    let entry = |manager: &str, operation: &str| json!({"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {}}});
    let after = async |entries: Value, user: &str| {
        let mut request = status_write(&Fixture::new(), user, |write| write);
        for side in ["object", "oldObject"] {
            request["request"][side]["metadata"]["managedFields"] = entries.clone();
        }
        let server = request["request"]["object"].clone();
        webhook.review(&request).await.apply(&server)["metadata"].get("managedFields").cloned()
    };
    let ours = [entry("replicaset-controller", "Update"), entry("monitor-controller", "Update")];
    assert_eq!(after(json!(ours), &controller).await, None);
    let others = [entry("kubectl-edit", "Update"), entry("replicaset-controller", "Apply")];
    for other in others {
        let entries = json!([ours[0], other]);
        assert_eq!(after(entries.clone(), &controller).await, Some(entries), "another manager has written to it");
    }
    assert_eq!(after(json!(ours), "ann").await, Some(json!(ours)), "this write is not from a controller");
    assert_eq!(after(json!([]), &controller).await, Some(json!([])), "there is nothing to remove");
}

#[tokio::test]
async fn author_and_time_of_requests_are_stamped_over_what_was_sent() {
    let webhook = LocalWebhook::new();
    let old = stored(Fixture::ready().json());
    let mut new = old.clone();
    new["spec"]["force"] = json!({"state": "Offline", "reason": "test", "by": "somebody else", "future": 1});
    new["spec"]["retry"] = json!({"id": "1"});
    new["spec"]["reboot"] = json!({"id": "2"});
    let reply = webhook.review(&review("servers", "UPDATE", "ann", &old, &new)).await;
    let after = reply.apply(&new);
    assert_eq!(after["spec"]["force"]["by"], "ann");
    assert_eq!(after["spec"]["force"]["future"], 1, "unknown fields stay");
    assert_eq!(after["spec"]["retry"], json!({"id": "1", "by": "ann", "at": "2027-01-15T08:00:00Z"}));
    assert_eq!(after["spec"]["reboot"], json!({"id": "2", "by": "ann", "at": "2027-01-15T08:00:00Z"}));
    let paths: Vec<_> = reply.patch().unwrap().as_array().unwrap().iter().map(|o| o["path"].clone()).collect();
    assert!(paths.iter().all(|p| p.as_str().unwrap().starts_with("/spec/")), "{paths:?}");
}

#[tokio::test]
async fn the_approver_is_stamped_over_what_was_sent() {
    let webhook = LocalWebhook::new();
    let approval = berth_testing::approval(json!({
        "spec": {"taskID": 3, "approver": {"username": "mallory", "at": "2020-01-01T00:00:00Z"}},
    }));
    let approval = serde_json::to_value(approval).unwrap();
    let reply = webhook.review(&review("approvals", "CREATE", "ann", &Value::Null, &approval)).await;
    let after = reply.apply(&approval);
    assert_eq!(after["spec"]["approver"], json!({"username": "ann", "at": "2027-01-15T08:00:00Z"}));
    let reply = webhook.review(&review("approvals", "UPDATE", "ann", &approval, &approval)).await;
    assert_eq!(reply.patch(), None);
    assert!(reply.0["warnings"][0].as_str().unwrap().contains("UPDATE of approvals"), "{reply:?}");
}

#[tokio::test]
async fn a_request_about_a_roll_out_is_stamped_once_and_the_rest_is_left_alone() {
    let webhook = LocalWebhook::new();
    let deployment =
        |request: Value| json!({"spec": {"future": 1, "rollout": {"request": request, "steps": "of a newer version"}}});
    let sent = deployment(json!({"action": "Promote", "id": "1", "by": "mallory"}));
    let reply = webhook.review(&review("vmdeployments", "CREATE", "ann", &Value::Null, &sent)).await;
    let created = reply.apply(&sent);
    let stamped = json!({"action": "Promote", "id": "1", "by": "ann", "at": "2027-01-15T08:00:00Z"});
    assert_eq!(created, deployment(stamped.clone()));
    let again = deployment(json!({"action": "Promote", "id": "1", "reason": "edited"}));
    let reply = webhook.review(&review("vmdeployments", "UPDATE", "bob", &created, &again)).await;
    assert_eq!(reply.apply(&again)["spec"]["rollout"]["request"]["by"], "ann", "it is the same request");
    let other = deployment(json!({"action": "Abort", "id": "2"}));
    let reply = webhook.review(&review("vmdeployments", "UPDATE", "bob", &created, &other)).await;
    assert_eq!(reply.apply(&other)["spec"]["rollout"]["request"]["by"], "bob");
    let none = json!({"spec": {"app": 7}});
    assert_eq!(webhook.review(&review("vmdeployments", "UPDATE", "bob", &created, &none)).await.patch(), None);
}

#[tokio::test]
async fn the_first_status_write_gets_the_first_decision() {
    let webhook = LocalWebhook::new();
    let fixture = Fixture::new();
    let request = status_write(&fixture, &username(Executor::ReplicasetController), StatusWrite::acknowledge);
    let reply = webhook.review(&request).await;
    let after = reply.apply(&request["request"]["object"]);
    assert_eq!(after["status"]["state"], "Initializing");
    assert_eq!(after["status"]["tasks"][0]["kind"], "CreateMachine");
    assert_eq!(webhook.metric(r#"webhook_decisions_total{from="None",to="Initializing"}"#), Some(1.0));
    assert_eq!(webhook.metric(r#"webhook_request_duration_seconds_count{resource="servers/status"}"#), Some(1.0));
}

/// A stored Server that does not decode, because of a wrong value at `path`.
fn undecodable(path: &str) -> Value {
    let mut server = stored(Fixture::ready().json());
    *server.pointer_mut(path).unwrap() = json!(7);
    server
}

fn without_finalizer(server: &Value) -> Value {
    let mut server = server.clone();
    server["metadata"]["finalizers"] = json!([]);
    server
}

#[tokio::test]
async fn only_people_repair_a_stored_server_that_does_not_decode() {
    let webhook = LocalWebhook::new();
    let old = undecodable("/spec/machine");
    let mut new = stored(Fixture::ready().json());
    new["spec"]["retry"] = json!({"id": "1", "by": "mallory"});
    let reply = webhook.review(&review("servers", "UPDATE", "ann", &old, &new)).await;
    assert!(reply.is_allowed(), "{reply:?}");
    assert_eq!(reply.apply(&new)["spec"]["retry"]["by"], "ann", "the stored retry counts as absent");
    let controller = username(Executor::ReplicasetController);
    let reply = webhook.review(&review("servers", "UPDATE", &controller, &old, &new)).await;
    let (code, cause, message) = reply.denial();
    assert_eq!((code, cause), (422, "Undecodable"));
    assert!(message.starts_with("spec.machine: ") && message.contains("stored"), "{message}");
    // Its status decodes, and says that cleanup is incomplete.
    let reply = webhook.review(&review("servers", "UPDATE", "ann", &old, &without_finalizer(&new))).await;
    assert_eq!(reply.denial().1, "CleanupIncomplete");
}

#[tokio::test]
async fn an_undecodable_server_keeps_its_finalizer_until_it_is_abandoned() {
    let webhook = LocalWebhook::new();
    for path in ["/spec/machine", "/status/machine"] {
        let old = undecodable(path);
        let mut labelled = old.clone();
        labelled["metadata"]["labels"] = json!({"seen": "yes"});
        let reply = webhook.review(&review("servers", "UPDATE", "ann", &old, &labelled)).await;
        assert!(reply.is_allowed() && reply.patch().is_none(), "{path}: {reply:?}");
        assert!(reply.0["warnings"][0].as_str().unwrap().contains("cannot read"), "{reply:?}");
        let mut gone = without_finalizer(&old);
        let reply = webhook.review(&review("servers", "UPDATE", "ann", &old, &gone)).await;
        assert!(reply.denial().2.contains("berth.dev/abandon"), "{path}: {reply:?}");
        gone["metadata"]["annotations"] = json!({"berth.dev/abandon": "cleaned up by hand"});
        let reply = webhook.review(&review("servers", "UPDATE", "ann", &old, &gone)).await;
        assert!(reply.is_allowed(), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn a_repair_keeps_the_finalizer_while_the_stored_status_does_not_decode() {
    let (old, new) = (undecodable("/status/machine"), stored(Fixture::ready().json()));
    let reply = LocalWebhook::new().review(&review("servers", "UPDATE", "ann", &old, &without_finalizer(&new))).await;
    assert!(reply.denial().2.contains("what is left of it is not known"), "{reply:?}");
    let reply = LocalWebhook::new().review(&review("servers", "UPDATE", "ann", &old, &new)).await;
    assert!(reply.is_allowed(), "{reply:?}");
}

#[tokio::test]
async fn a_dry_run_gets_the_same_response() {
    let fixture = Fixture::new();
    let mut request = status_write(&fixture, &username(Executor::ReplicasetController), StatusWrite::acknowledge);
    let real = LocalWebhook::new().review(&request).await;
    request["request"]["dryRun"] = true.into();
    assert_eq!(LocalWebhook::new().review(&request).await.0, real.0);
}

#[tokio::test]
async fn forbidden_writes_are_denied_with_field_and_reason() {
    let webhook = LocalWebhook::new();
    let mut fixture = Fixture::new().decided();
    let (replicaset, lb) = (username(Executor::ReplicasetController), username(Executor::LbController));
    let id = fixture.task(TaskKind::CreateMachine).id;
    let claim = |executor, instance| berth_core::api::Claim {
        task_id: id,
        holder: holder(executor, instance),
        duration_seconds: 30,
        again: false,
    };
    let report = |fixture: &Fixture, instance: &str| {
        let task = fixture.task(TaskKind::CreateMachine);
        let holder = holder(Executor::ReplicasetController, instance);
        berth_testing::report(task, &holder, berth_core::api::Outcome::Succeeded)
    };
    let overwrite = |path: &str, value: Value| {
        let old = stored(fixture.json());
        let mut new = old.clone();
        *new.pointer_mut("/status").unwrap().pointer_mut(path).unwrap() = value;
        review("servers/status", "UPDATE", &replicaset, &old, &new)
    };
    let mut cases = vec![
        (status_write(&fixture, &lb, |w| w.claim(claim(Executor::LbController, "a"))), "WrongExecutor", "status.claim"),
        (
            status_write(&fixture, "ann", |w| w.claim(claim(Executor::ReplicasetController, "a"))),
            "WrongExecutor",
            "status.claim",
        ),
        (overwrite("/state", "Ready".into()), "Field", "status.state"),
        (overwrite("/tasks/0/phase", "Succeeded".into()), "Field", "status.tasks"),
        (status_write(&fixture, &lb, |w| w.machine(Some(berth_testing::machine("m", "b")))), "Field", "status.machine"),
    ];
    cases.push((
        status_write(&fixture, &replicaset, |w| w.report(report(&fixture, "a"))),
        "NotHolder",
        "status.report",
    ));
    fixture.claim(TaskKind::CreateMachine, "a").unwrap();
    cases.push((
        status_write(&fixture, &replicaset, |w| w.report(report(&fixture, "b"))),
        "NotHolder",
        "status.report",
    ));
    cases.push((
        status_write(&fixture, &replicaset, |w| w.claim(claim(Executor::ReplicasetController, "b"))),
        "Locked",
        "status.claim",
    ));
    for (request, cause, field) in &cases {
        let reply = webhook.review(request).await;
        let (code, found, message) = reply.denial();
        assert_eq!((code, found), (403, *cause), "{message}");
        assert!(message.starts_with(field), "{field}: {message}");
        assert_eq!(reply.uid(), UID);
        assert_eq!(reply.0["status"]["reason"], "Forbidden");
        assert!(reply.0["status"]["details"]["causes"][0]["field"].as_str().unwrap().starts_with(field));
    }
    assert_eq!(webhook.metric(r#"webhook_denied_requests_total{reason="Locked"}"#), Some(1.0));
    assert_eq!(webhook.metric(r#"webhook_denied_requests_total{reason="Field"}"#), Some(3.0));
}

#[tokio::test]
async fn the_finalizer_stays_while_there_is_a_machine() {
    let old = stored(Fixture::ready().json());
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!([]);
    let reply = LocalWebhook::new().review(&review("servers", "UPDATE", "ann", &old, &new)).await;
    let (code, cause, message) = reply.denial();
    assert_eq!((code, cause), (403, "CleanupIncomplete"));
    assert!(message.starts_with("metadata.finalizers: "), "{message}");
}

#[tokio::test]
async fn an_object_that_does_not_decode_is_denied_with_the_path_of_the_field() {
    let webhook = LocalWebhook::new();
    let change = |path: &str, value: Value| {
        let mut server = server();
        *server.pointer_mut(path).unwrap() = value;
        server
    };
    let mut artifact = server();
    artifact["spec"]["app"]["artifact"].as_object_mut().unwrap().remove("sha256");
    for (object, field, expected) in [
        (artifact, "spec.app.artifact", "sha256"),
        (change("/spec/packages/0/archive", json!({"file": "x"})), "spec.packages[0].archive", "url"),
        (change("/spec/taskAttempts", "many".into()), "spec.taskAttempts", "invalid type"),
        (change("/spec", Value::Null), "spec", "invalid type"),
        (json!({}), "object", "metadata"),
        (json!({"metadata": {}, "spec": {}}), "spec", "machine"),
        (json!("text"), "object", "invalid type"),
    ] {
        let reply = webhook.review(&review("servers", "CREATE", "ann", &Value::Null, &object)).await;
        let (code, cause, message) = reply.denial();
        assert_eq!((code, cause, reply.uid()), (422, "Undecodable", UID), "{message}");
        assert_eq!(reply.0["status"]["details"]["causes"][0]["field"], field, "{message}");
        assert!(message.starts_with(&format!("{field}: ")) && message.contains(expected), "{message}");
        assert!(!message.contains(" at line "), "{message}");
    }
}

#[tokio::test]
async fn a_malformed_request_gets_a_review_that_denies_it() {
    let webhook = LocalWebhook::new();
    let good = review("servers", "CREATE", "ann", &Value::Null, &server());
    let changed = |path: &str, value: Value| {
        let mut review = good.clone();
        *review.pointer_mut(path).unwrap() = value;
        review.to_string()
    };
    // The apiserver writes the uid first.
    let cut = format!(r#"{{"kind":"AdmissionReview","request":{{"uid":"{UID}","object":{{"spec":{{"#);
    let deep = format!(r#"{{"request":{{"uid":"u","object":{}"#, "[".repeat(100_000));
    let cases = [
        (String::new(), "", "Malformed"),
        ("\0\u{1}".to_owned(), "", "Malformed"),
        ("null".to_owned(), "", "Malformed"),
        ("[1, 2]".to_owned(), "", "Malformed"),
        ("{}".to_owned(), "", "Malformed"),
        (r#"{"request":null}"#.to_owned(), "", "Malformed"),
        (deep, "", "Malformed"),
        (cut, UID, "Malformed"),
        (changed("/request/uid", 7.into()), "", "Malformed"),
        (changed("/request/userInfo", Value::Null), UID, "Malformed"),
        (changed("/request/object", Value::Null), UID, "Malformed"),
        (changed("/request/operation", 1.into()), UID, "Malformed"),
        (changed("/apiVersion", "admission.k8s.io/v1beta1".into()), UID, "UnknownVersion"),
        (changed("/kind", "ConversionReview".into()), UID, "UnknownVersion"),
        (changed("/request/resource/resource", "pods".into()), UID, "UnknownKind"),
        (changed("/request/resource/group", "apps".into()), UID, "UnknownKind"),
        (changed("/request/resource/version", "v1".into()), UID, "UnknownKind"),
    ];
    for (body, uid, expected) in cases {
        let shown: String = body.chars().take(80).collect();
        let reply = webhook.post(body).await;
        let (code, cause, message) = reply.denial();
        assert_eq!((code, cause), (400, expected), "{shown}: {message}");
        assert!(reply.uid() == uid || shown.contains("[[["), "{shown}: {message}");
        assert!(!message.is_empty());
    }
    let reply = webhook.post(changed("/request/resource/resource", "pods".into())).await;
    let (_, _, message) = reply.denial();
    assert!(message.contains("pods") && message.contains("MutatingWebhookConfiguration"), "{message}");
}

#[tokio::test]
async fn an_update_without_the_old_object_is_denied() {
    let request = review("servers", "UPDATE", "ann", &Value::Null, &server());
    let reply = LocalWebhook::new().review(&request).await;
    assert_eq!(reply.denial().0, 400);
    assert!(reply.denial().2.contains("oldObject"));
}

#[tokio::test]
async fn operations_that_need_no_decision_are_allowed_with_a_warning() {
    let reply = LocalWebhook::new().review(&review("servers", "DELETE", "ann", &server(), &Value::Null)).await;
    assert_eq!(reply.patch(), None);
    assert!(reply.0["warnings"][0].as_str().unwrap().contains("DELETE of servers"), "{reply:?}");
}

#[tokio::test]
async fn a_panic_denies_the_write_and_the_next_write_succeeds() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let first = AtomicBool::new(true);
    let webhook = LocalWebhook::with(RequestLimits::default(), move || {
        assert!(!first.swap(false, Ordering::Relaxed), "a bug, on purpose");
        berth_testing::start()
    });
    let request = review("servers", "CREATE", "ann", &Value::Null, &server());
    let reply = webhook.review(&request).await;
    assert_eq!((reply.denial().0, reply.denial().1, reply.uid()), (500, "Panic", UID));
    assert_eq!(webhook.metric("webhook_panics_total"), Some(1.0));
    assert!(webhook.review(&request).await.is_allowed());
}
