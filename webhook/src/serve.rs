//! The HTTPS server: TLS, HTTP/2 and HTTP/1.1, and a shutdown that loses no request.

use axum::Router;
use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

use crate::connections::{BoundedAcceptor, ConnectionLimits, Connections};

/// Time for the TLS handshake and for the head of the first request, after which an idle connection is closed. The apiserver
/// gives up on a request after these 10 s as well (`timeoutSeconds`).
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent requests on one connection, so that one connection takes a bounded amount of memory. The apiserver opens
/// another connection for more.
const MAX_STREAMS: u32 = 100;
/// Bytes that a stream, and a connection with all its streams, may send before they are read: the memory that a client can take
/// before its bytes are counted.
const STREAM_WINDOW: u32 = 64 << 10;
/// See [`STREAM_WINDOW`].
const CONNECTION_WINDOW: u32 = 128 << 10;
/// Bytes of buffers for the heads of requests; those of an API server take less than 1 KiB.
const HEAD_BYTES: usize = 16 << 10;
/// The same for HTTP/2.
const HEAD_LIST_BYTES: u32 = 16 << 10;
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
    limits: ConnectionLimits,
    times: ShutdownTimes,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let handle = Handle::<SocketAddr>::new();
    let tls = RustlsAcceptor::new(tls).handshake_timeout(FIRST_REQUEST_TIMEOUT);
    let acceptor = BoundedAcceptor { connections: Connections::new(limits), tls };
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(acceptor)
        .handle(handle.clone())
        .first_request_timeout(FIRST_REQUEST_TIMEOUT);
    let http = server.http_builder();
    http.http1().header_read_timeout(FIRST_REQUEST_TIMEOUT).max_buf_size(HEAD_BYTES);
    http.http2()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_LIST_BYTES)
        .keep_alive_interval(KEEP_ALIVE);
    let stopper = tokio::spawn(async move {
        shutdown.cancelled().await;
        tokio::time::sleep(times.delay).await;
        handle.graceful_shutdown(Some(times.drain_timeout));
    });
    let result = server.serve(router.into_make_service()).await;
    stopper.abort();
    result
}
