//! The HTTP endpoints `/healthz`, `/readyz` and `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, http::StatusCode, http::header, response::IntoResponse, routing::get};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::Metrics;

/// The conditions under which a process is ready. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<(String, ReadinessFlag)>>>);

/// One condition, which its owner sets.
#[derive(Clone, Debug, Default)]
pub struct ReadinessFlag(Arc<AtomicBool>);

impl ReadinessFlag {
    /// Sets whether the condition is met.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Whether the condition is met.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Readiness {
    /// Adds a condition, which is not met yet. `name` is shown by `/readyz` until it is.
    #[must_use]
    pub fn register(&self, name: impl Into<String>) -> ReadinessFlag {
        let ready = ReadinessFlag::default();
        self.0.lock().push((name.into(), ready.clone()));
        ready
    }

    /// Names of the conditions that are not met. A process without conditions is still starting, so it is not ready.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let conditions = self.0.lock();
        if conditions.is_empty() {
            return vec!["start".to_owned()];
        }
        conditions.iter().filter(|(_, ready)| !ready.get()).map(|(name, _)| name.clone()).collect()
    }
}

/// The router of the endpoints. `/healthz` succeeds while the process answers, `/readyz` while all conditions are met and the
/// process is not shutting down.
pub fn router(metrics: Arc<Metrics>, readiness: Readiness, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { ready(&readiness, &shutdown) }))
        .route("/metrics", get(move || async move { text(&metrics) }))
}

fn ready(readiness: &Readiness, shutdown: &CancellationToken) -> (StatusCode, String) {
    if shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned());
    }
    let missing = readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", ")))
    }
}

fn text(metrics: &Metrics) -> impl IntoResponse + use<> {
    match metrics.encode() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let answer = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_process_is_ready_while_all_conditions_are_met_and_it_is_not_shutting_down() {
        let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
        let pages = router(Arc::default(), readiness.clone(), shutdown.clone());
        assert_eq!(get(&pages, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE, "nothing is registered yet");
        let (servers, sets) = (readiness.register("servers"), readiness.register("sets"));
        servers.set(true);
        let (status, body) = get(&pages, "/readyz").await;
        assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "waiting for: sets\n"));
        sets.set(true);
        assert_eq!(get(&pages, "/readyz").await.0, StatusCode::OK);
        shutdown.cancel();
        assert_eq!(get(&pages, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&pages, "/healthz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_include_those_that_the_binary_registered() {
        let metrics = Arc::new(Metrics::default());
        let own = prometheus_client::metrics::counter::Counter::<u64>::default();
        metrics.register(|r| r.register("pings", "Pings", own.clone()));
        own.inc();
        Metrics::count_result(&metrics.events, "written");
        let pages = router(metrics, Readiness::default(), CancellationToken::new());
        let (status, body) = get(&pages, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("berth_pings_total 1"), "{body}");
        assert!(body.contains(r#"berth_events_total{result="written"} 1"#), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    }
}
