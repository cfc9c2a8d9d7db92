use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::{Endpoint, EndpointTraffic, ProxyRules};

fn service() -> EdsService {
    EdsService::new(ProxyRules { expected: Some(1), takes_effect: std::time::Duration::ZERO, ..ProxyRules::default() })
}

fn set(service: &EdsService) -> AssignmentVersion {
    let traffic = EndpointTraffic::Serving;
    let address = [127, 0, 1, 1].into();
    let endpoint = Endpoint { name: "web-1".to_owned(), address, port: 80, weight: 1, traffic, zone: String::new() };
    service.set("web", &[endpoint]).unwrap()
}

/// Sends this body; returns the status and the body of the answer.
async fn post(service: &EdsService, body: impl Into<Body>) -> (u16, String) {
    let request = Request::post(PATH).header("content-type", "application/json").body(body.into()).unwrap();
    let answer = service.router().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn asks(version: &str) -> Value {
    json!({"version_info": version, "node": {"id": "a"}, "resource_names": ["web"], "type_url": TYPE_URL})
}

#[tokio::test]
async fn a_proxy_gets_the_assignment_once() {
    let service = service();
    let version = set(&service);
    let (status, body) = post(&service, asks("").to_string()).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["version_info"]), (200, &json!(version.to_string())));
    assert_eq!(post(&service, asks(&version.to_string()).to_string()).await, (304, String::new()));
    assert!(service.acknowledged("web", &version).unwrap().complete);
}

#[tokio::test]
async fn nothing_is_served_for_a_cluster_before_it_was_set() {
    let service = service();
    let (status, body) = post(&service, asks("").to_string()).await;
    assert_eq!(status, 404);
    assert!(body.contains("no endpoints have been set for cluster `web` (known: none)"), "{body}");
    assert!(body.contains("a proxy keeps the endpoints that it has"), "{body}");
}

#[tokio::test]
async fn a_request_that_cannot_be_used_is_refused_in_words() {
    let service = service();
    set(&service);
    let with = |change: fn(&mut Value)| {
        let mut request = asks("");
        change(&mut request);
        request.to_string()
    };
    for (request, words) in [
        ("{".to_owned(), "the body is no DiscoveryRequest in JSON"),
        (with(|v| v["resource_names"] = json!("web")), "resource_names: invalid type"),
        (with(|v| v["node"] = json!({"cluster": "edge"})), "node.id is missing: give the proxy one"),
        (with(|v| v["node"] = Value::Null), "node.id is missing"),
        (with(|v| v["resource_names"] = json!([])), "resource_names has 0 names"),
        (with(|v| v["resource_names"] = json!(["web", "api"])), "resource_names has 2 names"),
        (with(|v| v["type_url"] = json!("type.googleapis.com/x")), "type_url is `type.googleapis.com/x`: only"),
    ] {
        let (status, body) = post(&service, request).await;
        assert!(status == 400 && body.contains(words), "{status} {body}");
    }
}
