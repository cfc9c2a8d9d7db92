//! The way from a copy of a program to the API server.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::{Body as ResponseBody, Bytes, HttpBody as _};
use futures::{Stream, StreamExt as _, stream};
use http::{Method, Request, Response, request::Parts};
use kube::client::Body;
use tokio::time::{Instant, sleep, sleep_until};
use tower::{BoxError, Service, service_fn};

use crate::{
    ApiServer, Dice,
    faults::ActiveFaults,
    meter::{Meter, is_watch},
};

/// The answers of an API server that cannot serve now.
const REFUSALS: [u16; 3] = [429, 500, 503];

/// A way to the API server on which faults happen.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) api: ApiServer,
    pub(crate) user: Arc<str>,
    pub(crate) dice: Dice,
    pub(crate) faults: ActiveFaults,
    pub(crate) meter: Meter,
    /// Whether nothing passes any more: the copy has crashed, or is cut off.
    pub(crate) is_cut: Arc<AtomicBool>,
}

/// What happens to one request.
enum Fate {
    Arrives,
    IsLost,
    LosesItsAnswer,
    IsRefused(u16),
}

impl Network {
    pub(crate) fn service(
        self,
    ) -> impl Service<Request<Body>, Response = Response<ResponseBody>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static {
        service_fn(move |request| {
            let network = self.clone();
            async move { network.send(request).await }
        })
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<ResponseBody>, BoxError> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await?;
        self.meter.count_request(&self.user, &head, body.len());
        let is_lied_about = self.is_lied_about(&head, &body);
        let request = Request::from_parts(head, Body::from(body.to_vec()));
        let (fate, delay) = (self.draw(), self.delay());
        sleep(delay).await;
        self.stop_if_cut().await;
        match fate {
            Fate::IsLost => pending().await,
            Fate::IsRefused(code) => Ok(ApiServer::refusal(code)),
            Fate::LosesItsAnswer => {
                self.api.respond(request, &self.user).await?;
                pending().await
            }
            Fate::Arrives if is_lied_about => Ok(self.api.accept(&body)),
            Fate::Arrives => {
                let (head, body) = request.into_parts();
                let watches = is_watch(&head);
                let request = Request::from_parts(head, body);
                let response = self.api.respond(request, &self.user).await?;
                sleep(delay).await;
                self.stop_if_cut().await;
                if watches {
                    return Ok(self.watched(response));
                }
                self.meter.count_answer(&self.user, response.body().size_hint().exact().unwrap_or_default());
                Ok(response)
            }
        }
    }

    fn draw(&self) -> Fate {
        let faults = self.faults.now();
        if self.dice.chance(faults.lost_requests) {
            Fate::IsLost
        } else if self.dice.chance(faults.lost_answers) {
            Fate::LosesItsAnswer
        } else if self.dice.chance(faults.refusals) {
            Fate::IsRefused(self.dice.pick(&REFUSALS))
        } else {
            Fate::Arrives
        }
    }

    fn is_lied_about(&self, request: &Parts, body: &[u8]) -> bool {
        let is_slice = request.method == Method::PUT && request.uri.path().contains("/endpointslices/");
        let holds = || String::from_utf8_lossy(body).contains(r#""ready":false"#);
        self.faults.lies() && is_slice && holds()
    }

    fn delay(&self) -> Duration {
        self.dice.duration(Duration::from_micros(500), self.faults.now().latency.max(Duration::from_millis(1))) / 2
    }

    async fn stop_if_cut(&self) {
        if self.is_cut.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }

    /// The watch as the copy gets it: late, and perhaps only for a while.
    fn watched(&self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        let breaks = self.dice.chance(self.faults.now().broken_watches);
        let end = breaks.then(|| Instant::now() + self.dice.duration(Duration::ZERO, Duration::from_mins(2)));
        let (network, lines) = (self.clone(), response.into_body().into_data_stream().boxed());
        let until = async move {
            match end {
                Some(end) => sleep_until(end).await,
                None => pending().await,
            }
        };
        Response::new(ResponseBody::from_stream(network.late(lines).take_until(Box::pin(until))))
    }

    fn late(
        self,
        lines: impl Stream<Item = Result<Bytes, axum::Error>> + Send + Unpin + 'static,
    ) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
        stream::unfold((self, lines), |(network, mut lines)| async move {
            let line = lines.next().await?;
            sleep(network.dice.duration(Duration::ZERO, network.faults.now().watch_delay)).await;
            network.stop_if_cut().await;
            network.meter.count_event(&network.user, line.as_ref().map_or(0, Bytes::len));
            Some((line, (network, lines)))
        })
    }
}
