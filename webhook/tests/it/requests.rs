//! Requests as the apiserver sends them, and responses as it reads them.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use berth_core::identity::Identities;
use k8s_openapi::jiff::Timestamp;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt as _;
use webhook::{
    body::RequestLimits,
    metrics::WebhookMetrics,
    router::{Webhook, router},
};

/// A webhook in this process, with its metrics.
pub(crate) struct LocalWebhook {
    pub(crate) router: Router,
    registry: Registry,
}

impl LocalWebhook {
    pub(crate) fn new() -> Self {
        Self::with(RequestLimits::default(), berth_testing::start)
    }

    pub(crate) fn with(limits: RequestLimits, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let mut registry = Registry::default();
        let metrics = WebhookMetrics::register(&mut registry);
        let webhook = Webhook { ids: Identities::default(), clock: Box::new(clock), limits, metrics };
        Self { router: router(Arc::new(webhook)), registry }
    }

    /// The response to a body; it must be an AdmissionReview, even if the body is not.
    pub(crate) async fn post(&self, body: impl Into<Body>) -> Reply {
        let request = Request::post("/mutate").body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/json");
        Reply::read(&to_bytes(response.into_body(), usize::MAX).await.unwrap())
    }

    pub(crate) async fn review(&self, review: &Value) -> Reply {
        self.post(text(review)).await
    }

    /// The value of a metric. `line` is the metric's line without its value.
    pub(crate) fn metric(&self, line: &str) -> Option<f64> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '))?;
        Some(found.parse().unwrap())
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Reply(pub(crate) Value);

impl Reply {
    pub(crate) fn read(body: &[u8]) -> Self {
        let review: Value = serde_json::from_slice(body).expect("the response is JSON");
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1", "{review}");
        assert_eq!(review["kind"], "AdmissionReview", "{review}");
        let response = &review["response"];
        assert!(response["uid"].is_string(), "{review}");
        assert_eq!(response["patch"].is_string(), response["patchType"] == "JSONPatch", "{review}");
        Self(response.clone())
    }

    pub(crate) fn uid(&self) -> &str {
        self.0["uid"].as_str().unwrap()
    }

    pub(crate) fn is_allowed(&self) -> bool {
        self.0["allowed"].as_bool().unwrap()
    }

    /// Code, cause and message of a denial.
    pub(crate) fn denial(&self) -> (u64, &str, &str) {
        assert!(!self.is_allowed(), "{self:?}");
        assert_eq!(self.0.get("patch"), None);
        let status = &self.0["status"];
        assert_eq!(status["status"], "Failure");
        assert!(status["reason"].is_string(), "{status}");
        let cause = status["details"]["causes"][0]["reason"].as_str().unwrap();
        (status["code"].as_u64().unwrap(), cause, status["message"].as_str().unwrap())
    }

    /// The patch; `None` when nothing changes.
    pub(crate) fn patch(&self) -> Option<Value> {
        assert!(self.is_allowed(), "{self:?}");
        let patch = BASE64_STANDARD.decode(self.0.get("patch")?.as_str().unwrap()).unwrap();
        Some(serde_json::from_slice(&patch).unwrap())
    }

    /// The object after the apiserver has applied the patch.
    pub(crate) fn apply(&self, object: &Value) -> Value {
        let mut object = object.clone();
        if let Some(patch) = self.patch() {
            let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
            json_patch::patch(&mut object, &patch).expect("the patch applies");
        }
        object
    }
}

/// A review of `servers`, `servers/status` or `approvals`.
pub(crate) fn review(resource: &str, operation: &str, username: &str, old: &Value, new: &Value) -> Value {
    let (resource, sub_resource) = match resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub)),
        None => (resource, None),
    };
    let kind = json!({"group": "berth.dev", "version": "v1alpha1", "kind": if resource == "servers" {"Server"} else {"Approval"}});
    let resource = json!({"group": "berth.dev", "version": "v1alpha1", "resource": resource});
    let mut request = json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "name": "web-0", "namespace": "default", "operation": operation,
        "userInfo": {"username": username, "uid": "u", "groups": ["system:authenticated"], "extra": {"a": ["b"]}},
        "object": new, "oldObject": old, "dryRun": false,
        "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"},
    });
    if let Some(sub_resource) = sub_resource {
        request["subResource"] = sub_resource.into();
        request["requestSubResource"] = sub_resource.into();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

/// The review as text, with its members in the order in which the apiserver writes them: first the head of the request,
/// then the objects.
pub(crate) fn text(review: &Value) -> String {
    const ORDER: [&str; 15] = [
        "uid",
        "kind",
        "resource",
        "subResource",
        "requestKind",
        "requestResource",
        "requestSubResource",
        "name",
        "namespace",
        "operation",
        "userInfo",
        "object",
        "oldObject",
        "dryRun",
        "options",
    ];
    let request = &review["request"];
    let members: Vec<_> = ORDER.iter().filter_map(|key| Some(format!("\"{key}\":{}", request.get(*key)?))).collect();
    assert_eq!(members.len(), request.as_object().unwrap().len());
    let (kind, version) = (&review["kind"], &review["apiVersion"]);
    format!(r#"{{"kind":{kind},"apiVersion":{version},"request":{{{}}}}}"#, members.join(","))
}

/// A Server as the apiserver stores it, with `managedFields`.
pub(crate) fn stored(mut server: Value) -> Value {
    server["apiVersion"] = "berth.dev/v1alpha1".into();
    server["kind"] = "Server".into();
    server["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    server["metadata"]["managedFields"] = json!([{
        "manager": "berth", "operation": "Apply", "apiVersion": "berth.dev/v1alpha1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:machine": {}, "f:packages": {"k:{\"name\":\"runtime\"}": {}}}},
    }]);
    server
}
