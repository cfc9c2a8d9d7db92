//! The listener: TLS, HTTP/2 and HTTP/1.1, and an end that loses no request.

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

/// Connections that send nothing are closed after this: the TLS handshake and the first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// Requests at the same time on one connection; the apiserver itself keeps to 100 or what we say.
const STREAMS: u32 = 250;
/// A connection without traffic is asked this often whether somebody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How the server ends.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// From the signal until no connection is accepted any more: until then the Service may still send some here.
    pub delay: Duration,
    /// From then until connections are cut although a request is in flight.
    pub drain: Duration,
}

/// Serves until `shutdown`, and then until what is in flight is answered. The process should report itself as not
/// ready from the moment of `shutdown` on.
pub async fn serve(
    listener: TcpListener,
    tls: RustlsConfig,
    router: Router,
    ending: Ending,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let handle = Handle::<SocketAddr>::new();
    let acceptor = RustlsAcceptor::new(tls).handshake_timeout(FIRST_REQUEST).acceptor(NoDelayAcceptor::new());
    let mut server =
        axum_server::from_tcp(listener)?.acceptor(acceptor).handle(handle.clone()).first_request_timeout(FIRST_REQUEST);
    let http = server.http_builder();
    http.http1().header_read_timeout(FIRST_REQUEST);
    http.http2().max_concurrent_streams(STREAMS).keep_alive_interval(KEEP_ALIVE);
    let end = tokio::spawn(async move {
        shutdown.cancelled().await;
        tokio::time::sleep(ending.delay).await;
        handle.graceful_shutdown(Some(ending.drain));
    });
    let result = server.serve(router.into_make_service()).await;
    end.abort();
    result
}
