//! The way from a copy of a program to the API server.

use std::{future::pending, sync::Arc, time::Duration};

use axum::body::{Body as ResponseBody, Bytes, HttpBody as _};
use futures::{Stream, StreamExt as _, stream};
use http::{Method, Request, Response, request::Parts};
use kube::client::Body;
use tokio::time::{Instant, sleep, sleep_until};
use tower::{BoxError, Service, service_fn};

use crate::{
    ApiServer, Dice, apiserver::trouble::Trouble, crash_point::CrashPoint, faults::ActiveFaults, link::Link,
    meter::Meter,
};

/// How long after the client has given up a request may still arrive.
const LATE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(1));
/// How long after a request its repetition may arrive.
const REPETITION: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(5));
/// How long nothing passes on a watch that is stuck.
const STUCK: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(5));

/// A way to the API server on which faults happen.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) api: ApiServer,
    pub(crate) user: Arc<str>,
    pub(crate) dice: Dice,
    pub(crate) faults: ActiveFaults,
    pub(crate) meter: Meter,
    pub(crate) link: Link,
    /// The write at which a copy crashes.
    pub(crate) crash_point: CrashPoint,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    IsLost,
    LosesItsAnswer,
    IsRefused(Trouble),
    /// It arrives twice; this says whether the answer is that to the second.
    IsRepeated(bool),
    /// It arrives after this time.
    IsLate(Duration),
    /// It takes effect, and is answered as if that was not known.
    TimesOut,
}

impl Fate {
    /// What it is called in statistics; none when nothing goes wrong.
    fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Arrives => None,
            Self::IsLost => Some("lost request"),
            Self::LosesItsAnswer => Some("lost answer"),
            Self::IsRefused(_) => Some("refused request"),
            Self::IsRepeated(_) => Some("repeated request"),
            Self::IsLate(_) => Some("late request"),
            Self::TimesOut => Some("unknown outcome"),
        }
    }
}

/// A request, read.
#[derive(Clone)]
struct Message {
    head: Parts,
    body: Bytes,
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
        let message = Message { head, body: body.collect_bytes().await? };
        let (fate, delay) = (self.draw(&message), self.delay());
        if let Some(kind) = fate.kind() {
            self.faults.coverage.count(kind, &self.api);
        }
        if message.is_counted()
            && let Some(takes_effect) = self.crash_point.pass()
        {
            if takes_effect {
                sleep(delay).await;
                self.respond(&message).await?;
            }
            self.link.end();
            return pending().await;
        }
        let network = self.clone();
        let delivery = async move { network.deliver(message, fate, delay).await };
        // What has left a copy, or leaves it as soon as it goes on, arrives whether the copy still waits for it or not.
        if self.link.hangs() || matches!(fate, Fate::IsRepeated(_) | Fate::IsLate(_)) {
            return tokio::spawn(delivery).await?;
        }
        delivery.await
    }

    async fn deliver(&self, message: Message, fate: Fate, delay: Duration) -> Result<Response<ResponseBody>, BoxError> {
        sleep(delay).await;
        self.link.pass().await;
        if fate == Fate::IsLost || self.link.is_parted() {
            return pending().await;
        }
        let answer = match fate {
            Fate::IsRefused(Trouble::HasForgotten) if message.watches() => ApiServer::expired_watch(),
            Fate::IsRefused(trouble) => ApiServer::troubled(trouble),
            Fate::Arrives if self.is_lied_about(&message) => self.api.accept(&message.body),
            Fate::Arrives | Fate::IsLost => self.respond(&message).await?,
            Fate::LosesItsAnswer => {
                self.respond(&message).await?;
                return pending().await;
            }
            Fate::IsRepeated(second) => {
                let first = self.respond(&message).await?;
                sleep(self.dice.duration(REPETITION.0, REPETITION.1)).await;
                let repeated = self.respond(&message).await?;
                if second { repeated } else { first }
            }
            Fate::IsLate(after) => {
                sleep(after).await;
                self.respond(&message).await?
            }
            Fate::TimesOut => {
                self.respond(&message).await?;
                ApiServer::troubled(Trouble::TimesOut)
            }
        };
        sleep(delay).await;
        self.link.pass().await;
        if self.link.is_parted() {
            return pending().await;
        }
        if message.watches() {
            return Ok(self.watched(answer));
        }
        self.meter.count_answer(&self.user, answer.body().size_hint().exact().unwrap_or_default());
        Ok(answer)
    }

    async fn respond(&self, message: &Message) -> kube::Result<Response<ResponseBody>> {
        self.meter.count_request(&self.user, &message.head, message.body.len());
        let request = Request::from_parts(message.head.clone(), Body::from(message.body.to_vec()));
        let response = self.api.respond(request, &self.user).await?;
        self.meter.count_kind(&self.user, &message.head, &message.body, response.status().as_u16());
        Ok(response)
    }

    fn draw(&self, message: &Message) -> Fate {
        let (faults, dice) = (self.faults.now(), &self.dice);
        let writes = message.head.method != Method::GET;
        if writes && self.faults.lease_writes_fail() && message.head.uri.path().contains("/leases") {
            Fate::IsRefused(Trouble::HasNoLeader)
        } else if dice.chance(faults.lost_requests) {
            Fate::IsLost
        } else if dice.chance(faults.lost_answers) {
            Fate::LosesItsAnswer
        } else if dice.chance(faults.refusals) {
            Fate::IsRefused(dice.pick(&Trouble::REFUSALS))
        } else if writes && dice.chance(faults.repeats) {
            Fate::IsRepeated(dice.chance(0.5))
        } else if writes && dice.chance(faults.timeouts) {
            if dice.chance(0.5) { Fate::TimesOut } else { Fate::IsLate(dice.duration(LATE.0, LATE.1)) }
        } else if writes && dice.chance(faults.conflicts) {
            Fate::IsRefused(Trouble::IsContended)
        } else if message.refers_to_the_past() && dice.chance(faults.expirations) {
            Fate::IsRefused(Trouble::HasForgotten)
        } else {
            Fate::Arrives
        }
    }

    fn is_lied_about(&self, message: &Message) -> bool {
        let is_slice = message.head.method == Method::PUT && message.head.uri.path().contains("/endpointslices/");
        let holds = || String::from_utf8_lossy(&message.body).contains(r#""ready":false"#);
        self.faults.lies() && is_slice && holds()
    }

    fn delay(&self) -> Duration {
        self.dice.duration(Duration::from_micros(500), self.faults.now().latency.max(Duration::from_millis(1))) / 2
    }

    /// The watch as the copy gets it: late, and perhaps only for a while.
    fn watched(&self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        let faults = self.faults.now();
        let breaks = self.dice.chance(faults.broken_watches);
        let end = breaks.then(|| Instant::now() + self.dice.duration(Duration::ZERO, Duration::from_mins(2)));
        let expires = breaks && self.dice.chance(faults.expirations);
        let (network, lines) = (self.clone(), response.into_body().into_data_stream().boxed());
        let until = async move {
            match end {
                Some(end) => sleep_until(end).await,
                None => pending().await,
            }
        };
        let last = stream::iter(expires.then(|| Ok(Bytes::from(ApiServer::expired_line()))));
        Response::new(ResponseBody::from_stream(network.late(lines).take_until(Box::pin(until)).chain(last)))
    }

    fn late(
        self,
        lines: impl Stream<Item = Result<Bytes, axum::Error>> + Send + Unpin + 'static,
    ) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
        stream::unfold((self, lines), |(network, mut lines)| async move {
            let line = lines.next().await?;
            let faults = network.faults.now();
            if network.dice.chance(faults.stuck_watches) {
                network.faults.at_most(network.dice.duration(STUCK.0, STUCK.1)).await;
            }
            sleep(network.dice.duration(Duration::ZERO, faults.watch_delay)).await;
            network.link.pass_to_api().await;
            network.meter.count_event(&network.user, line.as_ref().map_or(0, Bytes::len));
            Some((line, (network, lines)))
        })
    }
}

impl Message {
    fn parameter(&self, name: &str) -> bool {
        self.head.uri.query().is_some_and(|query| query.split('&').any(|parameter| parameter.starts_with(name)))
    }

    fn watches(&self) -> bool {
        self.parameter("watch=true")
    }

    /// Whether it is a write, and not one that only renews something.
    fn is_counted(&self) -> bool {
        self.head.method != Method::GET && !self.head.uri.path().contains("/leases")
    }

    /// Whether it is refused once the past is forgotten.
    fn refers_to_the_past(&self) -> bool {
        self.head.method == Method::GET && (self.watches() || self.parameter("continue="))
    }
}
