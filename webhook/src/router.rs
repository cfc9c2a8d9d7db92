//! The endpoint `POST /mutate`, which responds to every request with an AdmissionReview.

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
    routing::post,
};
use berth_core::identity::Identities;
use k8s_openapi::jiff::Timestamp;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    admit::{Admission, admit},
    body::{BodyReader, RequestLimits},
    connections::RequestConnection,
    metrics::WebhookMetrics,
    review::{self, AdmissionResponse, Denial},
};

/// Everything that a response depends on.
pub struct Webhook {
    /// The users that are Berth's controllers.
    pub ids: Identities,
    /// Gives the time of a decision.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// The limits of each request.
    pub limits: RequestLimits,
    /// The metrics to count requests in.
    pub metrics: WebhookMetrics,
}

impl Webhook {
    /// Responds to any body. A panic is a bug, and becomes a denial.
    #[must_use]
    pub fn respond(&self, body: &[u8]) -> Admission {
        let admission = catch_unwind(AssertUnwindSafe(|| admit(body, &self.ids, (self.clock)())));
        admission.unwrap_or_else(|_| {
            self.metrics.count_panic();
            let uid = review::find_uid(body).unwrap_or_default();
            tracing::error!(uid, "handling the request panicked: this is a bug in Berth");
            let message = "Berth's webhook panicked on this write: this is a bug, and its log says where";
            let denial = Denial { code: 500, cause: "Panic", field: None, message: message.into() };
            Admission { response: AdmissionResponse::denied(uid, denial), ..Admission::default() }
        })
    }
}

/// The routes of the webhook.
pub fn router(webhook: Arc<Webhook>) -> Router {
    Router::new().route("/mutate", post(mutate)).with_state(webhook)
}

async fn mutate(State(webhook): State<Arc<Webhook>>, request: Request) -> Response {
    let started_at = Instant::now();
    // Held until the response is made. There is no connection when the router is called within the process.
    let mut held = request.extensions().get().map(RequestConnection::hold_nothing);
    let RequestLimits { max_body_bytes, read_timeout } = webhook.limits;
    let mut reader = BodyReader::default();
    let admission = match tokio::time::timeout(
        read_timeout,
        reader.read_to_end(request.into_body(), max_body_bytes, held.as_mut()),
    )
    .await
    {
        Ok(Ok(())) if reader.length() <= max_body_bytes => webhook.respond(&reader.into_bytes()),
        Ok(Ok(())) => denied(too_large(reader.length(), max_body_bytes), reader),
        Ok(Err(error)) => denied(Denial::bad_request("Malformed", format!("the body is cut off: {error}")), reader),
        Err(_) => denied(too_slow(reader.length(), read_timeout), reader),
    };
    webhook.metrics.count(&admission);
    log(&admission);
    let response = http_response(&admission.response);
    webhook.metrics.observe_duration(admission.resource, started_at.elapsed());
    response
}

fn denied(denial: Denial, reader: BodyReader) -> Admission {
    let uid = review::find_uid(&reader.into_bytes()).unwrap_or_default();
    Admission { response: AdmissionResponse::denied(uid, denial), ..Admission::default() }
}

fn too_large(length: usize, limit: usize) -> Denial {
    let message = format!(
        "the review has {length} bytes, and the webhook accepts at most {limit}: make the object smaller, or raise --max-body-bytes of the webhook"
    );
    Denial { code: 413, cause: "TooLarge", field: None, message }
}

fn too_slow(length: usize, timeout: Duration) -> Denial {
    let message = format!(
        "only {length} bytes of the review arrived within {timeout:?}: check the network between apiserver and webhook"
    );
    Denial { code: 504, cause: "Timeout", field: None, message }
}

fn log(admission: &Admission) {
    let response = &admission.response;
    match (&response.denial, admission.transition) {
        (Some(denial), _) => {
            tracing::info!(
                uid = response.uid,
                resource = admission.resource.as_str(),
                reason = denial.cause,
                "denied: {}",
                denial.message
            );
        }
        (None, Some((from, to))) if from != to => tracing::debug!(uid = response.uid, ?from, ?to, "transition"),
        _ => tracing::trace!(uid = response.uid, resource = admission.resource.as_str(), "allowed"),
    }
}

fn http_response(response: &AdmissionResponse) -> Response {
    let mut http = Response::new(Body::from(response.encode()));
    http.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    http
}
