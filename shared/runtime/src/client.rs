//! The client of the API server, with a time limit on every call.
//!
//! Own client instead of kube 5's: `Config::read_timeout` limits the silence on a connection, which ends quiet watches and not
//! slow answers, and kube's sockets do not set `TCP_NODELAY`. Retries are left to the callers' backoff.

use std::{
    net::IpAddr,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use http::{Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, Layer, Service, ServiceBuilder};

/// A client for a kubeconfig file, or for the pod's ServiceAccount if there is none. `call` limits the duration of each call.
///
/// # Errors
/// If the kubeconfig cannot be read, or there is none and the process does not run in a pod.
pub async fn build(kubeconfig: Option<&Path>, call: Duration) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file =
                Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig: cannot read {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("--kubeconfig: {} cannot be used", path.display()))?
        }
        None => Config::incluster().context(
            "there is neither --kubeconfig nor a ServiceAccount: outside of a pod, --kubeconfig is required",
        )?,
    };
    config.connect_timeout = Some(call);
    connect(config, call).context("cannot build the client of the API server")
}

/// A client for this configuration, with a time limit on every call and without retries.
///
/// It is kube's own stack except for the sockets, which set `TCP_NODELAY`. Without it the second part of a request waits until
/// the first is acknowledged, which the peer may delay by 40 ms (<https://github.com/kube-rs/kube/issues/2056>).
///
/// # Errors
/// If the configuration cannot be used, or names a proxy for an API server that is not on a loopback address: proxies are not
/// supported.
pub fn connect(config: Config, call: Duration) -> anyhow::Result<Client> {
    let is_loopback = config.cluster_url.host().is_some_and(is_loopback);
    if let Some(proxy) = config.proxy_url.as_ref().filter(|_| !is_loopback) {
        anyhow::bail!(
            "the API server is to be reached through the proxy {proxy} (proxy-url of the kubeconfig, or HTTPS_PROXY), which is \
             not supported: it has to be reached directly"
        );
    }
    let tls = config.rustls_https_connector_with_connector(connector(config.connect_timeout))?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build::<_, Body>(tls));
    let builder = ClientBuilder::new(service, config.default_namespace);
    Ok(builder.with_layer(&Timeouts { call }).build())
}

fn connector(timeout: Option<Duration>) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(timeout);
    connector
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Puts a time limit on the calls of a service; for clients that are not made by [`build`].
pub fn with_timeouts<S>(service: S, call: Duration) -> TimeLimited<S> {
    Timeouts { call }.layer(service)
}

/// A layer that limits the duration of calls: until the end of the answer for an ordinary call, until the beginning of the answer
/// for a watch, whose silence kube's watcher limits.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Longest duration of a call.
    pub call: Duration,
}

impl<S> Layer<S> for Timeouts {
    type Service = TimeLimited<S>;

    fn layer(&self, inner: S) -> TimeLimited<S> {
        TimeLimited { inner, call: self.call }
    }
}

/// A call exceeded its time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server did not answer within {} s", .0.as_secs_f32())]
pub struct CallTimeout(pub Duration);

/// A service with a time limit on calls; see [`Timeouts`].
#[derive(Clone, Debug)]
pub struct TimeLimited<S> {
    inner: S,
    call: Duration,
}

type Answer<B> = Response<Either<Full<axum::body::Bytes>, B>>;

impl<S, B> Service<Request<Body>> for TimeLimited<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Answer<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (limit, streams) = (self.call, is_stream(&request));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let whole = async {
                let (head, body) = answer.await.map_err(Into::into)?.into_parts();
                let body = if streams {
                    Either::Right(body)
                } else {
                    Either::Left(Full::new(body.collect().await.map_err(Into::into)?.to_bytes()))
                };
                Ok(Response::from_parts(head, body))
            };
            tokio::time::timeout(limit, whole).await.map_err(|_| CallTimeout(limit))?
        })
    }
}

/// Whether the answer is a stream without an end.
fn is_stream(request: &Request<Body>) -> bool {
    let parameters = request.uri().query().unwrap_or_default().split('&');
    parameters.into_iter().any(|p| matches!(p, "watch=true" | "watch=1" | "follow=true"))
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Api, api::WatchParams};
    use tower::service_fn;

    use super::*;

    fn client_without_answers() -> Client {
        let never = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, BoxError>>());
        Client::new(with_timeouts(never, Duration::from_secs(10)), "default")
    }

    fn is_timeout(error: &kube::Error) -> bool {
        matches!(error, kube::Error::Service(inner) if inner.is::<CallTimeout>())
    }

    #[tokio::test]
    async fn sockets_set_tcp_nodelay() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let socket = tower::ServiceExt::oneshot(connector(None), uri).await.unwrap();
        assert!(socket.inner().nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_proxy_is_refused_unless_the_api_server_is_on_loopback() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let through_a_proxy = |url: &str| {
            let mut config = Config::new(url.parse().unwrap());
            config.proxy_url = Some("http://proxy.example:3128".parse().unwrap());
            connect(config, Duration::from_secs(1)).map(drop)
        };
        let error = through_a_proxy("https://api.example:6443").unwrap_err().to_string();
        assert!(error.contains("http://proxy.example:3128"), "{error}");
        for near in ["https://127.0.0.1:6443", "https://[::1]:6443", "https://localhost:6443"] {
            through_a_proxy(near).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_fails_after_its_limit() {
        let (start, maps) =
            (tokio::time::Instant::now(), Api::<ConfigMap>::default_namespaced(client_without_answers()));
        let error = maps.get("a").await.unwrap_err();
        assert!(is_timeout(&error), "{error}");
        assert_eq!(start.elapsed().as_secs(), 10);
        assert!(
            maps.watch(&WatchParams::default(), "0").await.is_err(),
            "the limit also applies to the beginning of a watch"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_incomplete_answer_fails_after_its_limit_but_a_watch_may_be_silent() {
        let stuck = service_fn(|_: Request<Body>| async {
            let body = axum::body::Body::from_stream(stream::pending::<Result<axum::body::Bytes, BoxError>>());
            Ok::<_, BoxError>(Response::new(body))
        });
        let client = Client::new(with_timeouts(stuck, Duration::from_secs(10)), "default");
        let maps = Api::<ConfigMap>::default_namespaced(client);
        let error = maps.get("a").await.unwrap_err();
        assert!(is_timeout(&error), "{error}");
        let mut watch = std::pin::pin!(maps.watch(&WatchParams::default(), "0").await.unwrap());
        let next = tokio::time::timeout(Duration::from_secs(100), futures::StreamExt::next(&mut watch)).await;
        assert!(next.is_err(), "the watch goes on");
    }
}
