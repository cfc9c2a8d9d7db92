use axum::{Router, routing::get};
use tokio::net::TcpListener;

use super::*;

/// An admin interface that answers every question with this text.
async fn admin(status: u16, text: &'static str) -> EnvoyAdmin {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let status = http::StatusCode::from_u16(status).unwrap();
    let router = Router::new().fallback(get(move || async move { (status, text) }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    EnvoyAdmin::new(address, Duration::from_secs(5))
}

#[tokio::test]
async fn an_answer_that_is_not_as_expected_is_told_in_words() {
    for (status, text, words) in [
        (503, "", "answered 503"),
        (200, "{", "the answer is not as expected"),
        (200, r#"{"cluster_statuses":[]}"#, "has no cluster that gets its endpoints as `web`"),
        (
            200,
            r#"{"cluster_statuses":[{"name":"web","host_statuses":[{"address":{"socket_address":{"address":"10.0.0.1","port_value":80}},"stats":[{"name":"rq_active","value":"many"}]}]}]}"#,
            "rq_active of 10.0.0.1:80 is `many`",
        ),
    ] {
        let error = admin(status, text).await.hosts("web").await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = admin(200, r#"{"stats":[]}"#).await.updates("web").await.unwrap_err().to_string();
    assert!(error.contains("`web`"), "{error}");
}

#[tokio::test]
async fn an_interface_that_hangs_or_is_not_there_is_told_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let admin = EnvoyAdmin::new(address, Duration::from_millis(50));
    let error = admin.hosts("web").await.unwrap_err().to_string();
    assert_eq!(error, format!("Envoy's admin interface at {address}: /clusters?format=json: no answer within 50ms"));
    drop(listener);
    let error = admin.hosts("web").await.unwrap_err().to_string();
    assert!(error.contains("cannot connect"), "{error}");
}
