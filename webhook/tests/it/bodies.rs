//! Bodies of requests that are too long, never end, or are cut off.

use crate::{
    requests::{LocalWebhook, review},
    router::server,
};
use axum::body::{Body, Bytes};
use futures::stream;
use serde_json::{Value, json};
use std::time::Duration;
use webhook::body::RequestLimits;

#[tokio::test]
async fn a_body_beyond_the_limit_is_denied_with_a_remedy() {
    let limits = RequestLimits { max_body_bytes: 10_000, ..RequestLimits::default() };
    let webhook = LocalWebhook::with(limits, berth_testing::start);
    let mut big = server();
    big["metadata"]["annotations"] = json!({"a": "x".repeat(20_000)});
    let body = review("servers", "CREATE", "ann", &Value::Null, &big).to_string();
    let pieces: Vec<_> =
        body.as_bytes().chunks(1000).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
    for body in [Body::from(body), Body::from_stream(stream::iter(pieces))] {
        let reply = webhook.post(body).await;
        let (code, cause, message) = reply.denial();
        assert_eq!((code, cause), (413, "TooLarge"));
        assert!(message.contains("10000") && message.contains("--max-body-bytes"), "{message}");
    }
    let within = review("servers", "CREATE", "ann", &Value::Null, &server()).to_string();
    let pieces: Vec<_> =
        within.as_bytes().chunks(100).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
    assert!(
        webhook.post(Body::from_stream(stream::iter(pieces))).await.is_allowed(),
        "pieces within the limit are joined"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_denied_at_the_time_limit() {
    let limits = RequestLimits { read_timeout: Duration::from_secs(5), ..RequestLimits::default() };
    let webhook = LocalWebhook::with(limits, berth_testing::start);
    let begin = Bytes::from_static(br#"{"request":{"uid":"u1","object":"#);
    let stalls = stream::StreamExt::chain(stream::iter([Ok::<_, std::io::Error>(begin)]), stream::pending());
    let clock = tokio::time::Instant::now();
    let reply = webhook.post(Body::from_stream(stalls)).await;
    assert_eq!(clock.elapsed(), Duration::from_secs(5));
    assert_eq!((reply.denial().0, reply.denial().1, reply.uid()), (504, "Timeout", "u1"));
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_denied() {
    let begin = Bytes::from_static(br#"{"request":{"uid":"u1","object":"#);
    let pieces = [Ok(begin), Err(std::io::Error::other("gone"))];
    let reply = LocalWebhook::new().post(Body::from_stream(stream::iter(pieces))).await;
    assert_eq!((reply.denial().0, reply.uid()), (400, "u1"));
}
