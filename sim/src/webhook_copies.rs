//! The copies of the webhook, and the Service in front of them.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use berth_core::identity::Identities;
use berth_runtime::{Clock as _, Metrics};
use http::{Request, Response, StatusCode};
use k8s_openapi::jiff::SignedDuration;
use kube::client::Body as KubeBody;
use parking_lot::Mutex;
use tokio::time::sleep;
use tower::{BoxError, Service, ServiceExt as _, service_fn};
use webhook::{
    body::RequestLimits,
    metrics::WebhookMetrics,
    router::{Webhook, router},
};

use crate::{ApiServer, Dice, SimClock};

/// The limits of a request to the webhook, as large as anything here.
const LIMITS: RequestLimits = RequestLimits { max_body_bytes: 8 << 20, read_timeout: Duration::from_secs(10) };
/// How long the API server waits for the webhook, as its configuration says.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a person waits before trying again.
const NEXT_TRY: Duration = Duration::from_secs(1);

/// How the webhook is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Nothing listens.
    IsDown,
    /// It does not answer.
    Hangs,
}

/// Whether the webhook is out of order. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Outages(Arc<Mutex<Option<Outage>>>);

impl Outages {
    pub(crate) fn set(&self, outage: Option<Outage>) {
        *self.0.lock() = outage;
    }

    fn now(&self) -> Option<Outage> {
        *self.0.lock()
    }
}

/// A webhook of which each request meets one of two copies. Their clocks are `apart`: one is ahead of the world's, the other behind.
///
/// # Errors
/// When it has no metrics.
pub(crate) fn two_copies(
    clock: SimClock,
    apart: Duration,
    dice: Dice,
    outages: Outages,
) -> Result<Router, Box<dyn std::error::Error>> {
    let half = SignedDuration::try_from(apart / 2)?;
    let copies = [copy(clock.apart(half))?, copy(clock.apart(-half))?];
    let service = service_fn(move |request: Request<Body>| {
        let (copies, outage, second) = (copies.clone(), outages.now(), dice.chance(0.5));
        async move {
            Ok::<_, Infallible>(match outage {
                Some(Outage::IsDown) => failed("dial tcp 10.96.0.7:443: connect: connection refused"),
                Some(Outage::Hangs) => {
                    sleep(PATIENCE).await;
                    failed("context deadline exceeded")
                }
                None => {
                    let [first, other] = copies;
                    let chosen = if second { other } else { first };
                    let Ok(response) = chosen.oneshot(request).await;
                    response
                }
            })
        }
    });
    Ok(Router::new().fallback_service(service))
}

/// The way of a person to the API server, who tries again as long as the webhook is out of order.
pub(crate) fn patient(
    api: ApiServer,
    user: Arc<str>,
    outages: Outages,
) -> impl Service<Request<KubeBody>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone + Send + 'static
{
    service_fn(move |request: Request<KubeBody>| {
        let (api, user, outages) = (api.clone(), user.clone(), outages.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            loop {
                let was_out = outages.now().is_some();
                let request = Request::from_parts(head.clone(), KubeBody::from(body.to_vec()));
                let response = api.respond(request, &user).await?;
                if !was_out || response.status() != StatusCode::INTERNAL_SERVER_ERROR {
                    return Ok(response);
                }
                sleep(NEXT_TRY).await;
            }
        }
    })
}

/// What the API server says about a call that fails.
fn failed(why: &str) -> Response<Body> {
    let message =
        format!("failed to call webhook: Post \"https://webhook.berth-system.svc:443/mutate?timeout=10s\": {why}");
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

fn copy(clock: SimClock) -> Result<Router, Box<dyn std::error::Error>> {
    let mut metrics = None;
    Metrics::default().register(|registry| metrics = Some(WebhookMetrics::register(registry)));
    let metrics = metrics.ok_or("the webhook has no metrics")?;
    let decide_at = Box::new(move || clock.now());
    Ok(router(Arc::new(Webhook { ids: Identities::default(), clock: decide_at, limits: LIMITS, metrics })))
}
