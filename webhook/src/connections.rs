//! The bound on connections and on the bytes that wait in them. The webhook cannot tell an API server from anybody else who
//! reaches its port, so nobody is turned away: when a bound is reached, the address that takes most makes room.

use axum::{Extension, middleware::AddExtension};
use axum_server::{accept::Accept, tls::TlsService, tls_rustls::RustlsAcceptor};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::Layer as _;

/// How long a request waits for bytes before another connection has to make room for it: about the time that closing one takes.
const ROOM_PERIOD: Duration = Duration::from_millis(20);

/// TLS handshakes with one address at the same time. A handshake is the most expensive that a client can ask for before it sends
/// anything, and with a bound for each address those of others do not queue up behind it.
const MAX_HANDSHAKES: usize = 4;

/// What all connections together may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open connections.
    pub max_connections: usize,
    /// Bytes of bodies in memory.
    pub max_bytes: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        // An API server needs a handful of connections. With its buffers (see serve.rs) each can take about 300 KiB, so that all of
        // them and the bodies stay below 160 MiB, within the limit of 256 MiB in deploy/.
        Self { max_connections: 256, max_bytes: 64 << 20 }
    }
}

/// All open connections.
pub struct Connections {
    limits: ConnectionLimits,
    bytes: Arc<Semaphore>,
    last_id: AtomicU64,
    open: Mutex<HashMap<IpAddr, OfAddress>>,
}

/// The connections of one address, oldest first.
struct OfAddress {
    connections: BTreeMap<u64, Arc<Connection>>,
    handshakes: Arc<Semaphore>,
}

impl Default for OfAddress {
    fn default() -> Self {
        Self { connections: BTreeMap::new(), handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)) }
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    address: IpAddr,
    bytes: AtomicUsize,
    handshakes: Arc<Semaphore>,
    closing: CancellationToken,
}

/// The connection of a request, among all.
#[derive(Clone)]
pub(crate) struct RequestConnection {
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

/// Bytes of a body in memory, until dropped.
pub(crate) struct HeldBytes {
    of: RequestConnection,
    permit: Option<OwnedSemaphorePermit>,
}

impl Connections {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        let bytes = Arc::new(Semaphore::new(limits.max_bytes));
        Arc::new(Self { limits, bytes, last_id: AtomicU64::default(), open: Mutex::default() })
    }

    /// Registers a connection. If there are too many, the oldest one of the address with the most connections is closed.
    fn open(&self, address: IpAddr) -> Arc<Connection> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        if open.values().map(|of| of.connections.len()).sum::<usize>() >= self.limits.max_connections {
            make_room(&mut open, |_| 1);
        }
        let of_address = open.entry(address).or_default();
        let handshakes = of_address.handshakes.clone();
        let (bytes, closing) = (AtomicUsize::default(), CancellationToken::new());
        let connection = Arc::new(Connection { id, address, bytes, handshakes, closing });
        of_address.connections.insert(id, connection.clone());
        connection
    }

    fn closed(&self, connection: &Connection) {
        let mut open = self.open.lock();
        if let Some(of_address) = open.get_mut(&connection.address) {
            of_address.connections.remove(&connection.id);
            if of_address.connections.is_empty() {
                open.remove(&connection.address);
            }
        }
    }
}

/// Closes a connection of the address that takes most: the one that takes most itself, and of equal ones the oldest. Its task frees
/// what it holds a moment later.
fn make_room(open: &mut HashMap<IpAddr, OfAddress>, takes: impl Fn(&Connection) -> usize) {
    let greediest =
        open.values_mut().max_by_key(|of| of.connections.values().map(|connection| takes(connection)).sum::<usize>());
    let Some(of_address) = greediest else { return };
    let largest =
        of_address.connections.values().max_by_key(|connection| (takes(connection), std::cmp::Reverse(connection.id)));
    if let Some(connection) = largest.filter(|connection| takes(connection) > 0).cloned() {
        connection.closing.cancel();
        of_address.connections.remove(&connection.id);
    }
}

impl RequestConnection {
    /// No bytes yet.
    pub(crate) fn hold_nothing(&self) -> HeldBytes {
        HeldBytes { of: self.clone(), permit: None }
    }
}

impl HeldBytes {
    /// Waits until so many more bytes may be held. Meanwhile connections of the address with the most bytes are closed.
    pub(crate) async fn hold(&mut self, count: usize) {
        let RequestConnection { connection, connections } = &self.of;
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        loop {
            let acquired = connections.bytes.clone().acquire_many_owned(wanted);
            if let Ok(Ok(permit)) = tokio::time::timeout(ROOM_PERIOD, acquired).await {
                connection.bytes.fetch_add(count, Ordering::Relaxed);
                match &mut self.permit {
                    Some(all) => all.merge(permit),
                    none => *none = Some(permit),
                }
                return;
            }
            make_room(&mut connections.open.lock(), |connection| connection.bytes.load(Ordering::Relaxed));
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let count = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        self.of.connection.bytes.fetch_sub(count, Ordering::Relaxed);
    }
}

/// Registers each accepted connection, adds it to its requests, and does the TLS handshake when it is the turn of its address.
#[derive(Clone)]
pub(crate) struct BoundedAcceptor {
    pub(crate) connections: Arc<Connections>,
    pub(crate) tls: RustlsAcceptor,
}

impl<S: Send + 'static> Accept<TcpStream, S> for BoundedAcceptor {
    type Stream = TlsStream<BoundedStream>;
    type Service = TlsService<AddExtension<S, RequestConnection>>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Self { connections, tls } = self.clone();
        Box::pin(async move {
            stream.set_nodelay(true)?;
            let connection = connections.open(stream.peer_addr()?.ip());
            let closing = Box::pin(connection.closing.clone().cancelled_owned());
            let of = RequestConnection { connection, connections };
            let service = Extension(of.clone()).layer(service);
            let stream = BoundedStream { stream, closing, of: of.clone() };
            let turn = of.connection.closing.run_until_cancelled(of.connection.handshakes.acquire()).await;
            let _turn = turn.ok_or_else(closed)?;
            tls.accept(stream, service).await
        })
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "closed to make room for others")
}

/// A stream that fails once its connection has to make room.
pub(crate) struct BoundedStream {
    stream: TcpStream,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    of: RequestConnection,
}

impl BoundedStream {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.closing.as_mut().poll(cx) {
            Poll::Ready(()) => Err(closed()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Drop for BoundedStream {
    fn drop(&mut self) {
        self.of.connections.closed(&self.of.connection);
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const MANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn connections() -> Arc<Connections> {
        Connections::new(ConnectionLimits { max_connections: 3, max_bytes: 100 })
    }

    fn is_closing(connection: &Connection) -> bool {
        connection.closing.is_cancelled()
    }

    #[test]
    fn the_oldest_connection_of_the_address_with_most_makes_room_for_another() {
        let all = connections();
        let few = all.open(FEW);
        let many = [all.open(MANY), all.open(MANY), all.open(MANY), all.open(MANY)];
        assert_eq!((is_closing(&few), many.each_ref().map(|of| is_closing(of))), (false, [true, true, false, false]));
        many[2..].iter().for_each(|connection| all.closed(connection));
        all.closed(&few);
        assert!(all.open.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_with_most_bytes_makes_room_for_bytes_of_others() {
        let all = connections();
        let [few, many, idle] = [FEW, MANY, MANY].map(|address| all.open(address));
        let held = |connection: &Arc<Connection>| {
            RequestConnection { connection: connection.clone(), connections: all.clone() }.hold_nothing()
        };
        let (mut first, mut second) = (held(&many), held(&few));
        first.hold(50).await;
        first.hold(40).await;
        second.hold(10).await;
        assert!(!is_closing(&many), "everything fits");
        let closing = many.closing.clone();
        // The task of a connection that is closed drops what it holds.
        let task = tokio::spawn(async move {
            closing.cancelled().await;
            drop(first);
        });
        second.hold(30).await;
        task.await.unwrap();
        assert_eq!([&few, &many, &idle].map(|connection| is_closing(connection)), [false, true, false]);
        drop(second);
        assert_eq!(all.bytes.available_permits(), 100);
        assert_eq!(few.bytes.load(Ordering::Relaxed), 0);
    }
}
