//! The way in: `POST /mutate`, its limits, and the promise that every request is answered with an AdmissionReview.

use axum::{
    Router,
    body::{Body, Bytes, HttpBody as _},
    extract::State,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
    routing::post,
};
use berth_core::identity::Identities;
use k8s_openapi::jiff::Timestamp;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    admit::{Subject, Verdict, admit},
    metrics::Metrics,
    review::{self, Answer, Denial},
};

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body. An update carries the object twice, and the apiserver takes objects of up to 3 MiB.
    pub body: usize,
    /// Time until the whole body must have come.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 8 << 20, time: Duration::from_secs(5) }
    }
}

/// Everything that answering needs.
pub struct Webhook {
    /// Who the controllers are.
    pub ids: Identities,
    /// The time of a decision.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// What a request may cost.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Metrics,
}

impl Webhook {
    /// Answers a body, whatever it is. A panic is a bug, and still an answer.
    #[must_use]
    pub fn answer(&self, body: &[u8]) -> Verdict {
        let verdict = catch_unwind(AssertUnwindSafe(|| admit(body, &self.ids, (self.clock)())));
        verdict.unwrap_or_else(|_| {
            self.metrics.panicked();
            let uid = review::find_uid(body).unwrap_or_default();
            tracing::error!(uid, "handling the request panicked: this is a bug in Berth");
            let message = "Berth's webhook failed on this write: this is a bug, and its log says where";
            let denial = Denial { code: 500, cause: "Panic", field: None, message: message.into() };
            Verdict { answer: Answer::denied(uid, denial), ..Verdict::default() }
        })
    }
}

/// The routes of the webhook.
pub fn router(webhook: Arc<Webhook>) -> Router {
    Router::new().route("/mutate", post(mutate)).with_state(webhook)
}

async fn mutate(State(webhook): State<Arc<Webhook>>, body: Body) -> Response {
    let begun = Instant::now();
    let Limits { body: limit, time } = webhook.limits;
    let mut read = Read::default();
    let verdict = match tokio::time::timeout(time, read.all(body, limit)).await {
        Ok(Ok(())) if read.length <= limit => webhook.answer(&read.into_body()),
        Ok(Ok(())) => read.too_large(limit),
        Ok(Err(error)) => read.denied(Denial::bad_request("Malformed", format!("the body broke off: {error}"))),
        Err(_) => read.too_slow(time),
    };
    webhook.metrics.record(&verdict);
    log(&verdict);
    let response = respond(&verdict.answer);
    webhook.metrics.observe(verdict.subject, begun.elapsed());
    response
}

/// A body as far as it was read. A body beyond the limit is read to its end and thrown away: who still sends would
/// not see the answer.
#[derive(Default)]
struct Read {
    first: Bytes,
    more: Vec<u8>,
    length: usize,
}

impl Read {
    async fn all(&mut self, body: Body, limit: usize) -> Result<(), axum::Error> {
        let mut body = pin!(body);
        while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
            let Ok(data) = frame?.into_data() else { continue };
            self.length = self.length.saturating_add(data.len());
            if self.length <= limit {
                self.keep(data);
            }
        }
        Ok(())
    }

    /// Most bodies come in one piece, which is not copied.
    fn keep(&mut self, data: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
            self.first = Bytes::new();
        }
        self.more.extend_from_slice(&data);
    }

    fn into_body(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.into() }
    }

    fn too_large(self, limit: usize) -> Verdict {
        let message = format!(
            "the review has {} bytes, and at most {limit} are accepted: make the object smaller, or raise --max-body-bytes of the webhook",
            self.length
        );
        self.denied(Denial { code: 413, cause: "TooLarge", field: None, message })
    }

    fn too_slow(self, time: Duration) -> Verdict {
        let message = format!(
            "the review did not come within {time:?} ({} bytes did): look at the network between apiserver and webhook",
            self.length
        );
        self.denied(Denial { code: 504, cause: "Timeout", field: None, message })
    }

    fn denied(self, denial: Denial) -> Verdict {
        let uid = review::find_uid(&self.into_body()).unwrap_or_default();
        Verdict { answer: Answer::denied(uid, denial), subject: Subject::Unknown, transition: None }
    }
}

fn log(verdict: &Verdict) {
    let answer = &verdict.answer;
    match (&answer.denial, verdict.transition) {
        (Some(denial), _) => {
            tracing::info!(
                uid = answer.uid,
                resource = verdict.subject.as_str(),
                reason = denial.cause,
                "denied: {}",
                denial.message
            );
        }
        (None, Some((from, to))) if from != to => tracing::debug!(uid = answer.uid, ?from, ?to, "transition"),
        _ => tracing::trace!(uid = answer.uid, resource = verdict.subject.as_str(), "allowed"),
    }
}

fn respond(answer: &Answer) -> Response {
    let mut response = Response::new(Body::from(answer.encode()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
