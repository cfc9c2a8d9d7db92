//! The HTTPS server: TLS, HTTP/2 and HTTP/1.1, and a shutdown that loses no request.

use axum::Router;
use axum_server::{
    Handle,
    accept::NoDelayAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Time for the TLS handshake and for the head of the first request, after which an idle connection is closed. The apiserver
/// gives up on a request after these 10 s as well (`timeoutSeconds`).
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent requests on one connection, so that one connection takes a bounded amount of memory. The apiserver opens
/// another connection for more.
const MAX_STREAMS: u32 = 250;
/// How often an HTTP/2 connection is pinged, so that dead connections are found.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long the server takes to shut down.
#[derive(Clone, Copy, Debug)]
pub struct ShutdownTimes {
    /// From the signal to closing the listener: until then, the Service may still send connections to this replica.
    pub delay: Duration,
    /// From closing the listener to closing connections on which a request is still in flight.
    pub drain_timeout: Duration,
}

/// Serves until `shutdown`, and then until every request in flight has its response. The process should be unready from
/// `shutdown` on.
pub async fn serve(
    listener: TcpListener,
    tls: RustlsConfig,
    router: Router,
    times: ShutdownTimes,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let handle = Handle::<SocketAddr>::new();
    let acceptor = RustlsAcceptor::new(tls).handshake_timeout(FIRST_REQUEST_TIMEOUT).acceptor(NoDelayAcceptor::new());
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(acceptor)
        .handle(handle.clone())
        .first_request_timeout(FIRST_REQUEST_TIMEOUT);
    let http = server.http_builder();
    http.http1().header_read_timeout(FIRST_REQUEST_TIMEOUT);
    http.http2().max_concurrent_streams(MAX_STREAMS).keep_alive_interval(KEEP_ALIVE);
    let stopper = tokio::spawn(async move {
        shutdown.cancelled().await;
        tokio::time::sleep(times.delay).await;
        handle.graceful_shutdown(Some(times.drain_timeout));
    });
    let result = server.serve(router.into_make_service()).await;
    stopper.abort();
    result
}
