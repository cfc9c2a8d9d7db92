//! Certificates that change under load, versions of TLS, and a shutdown that loses no request.

use crate::requests::{LocalWebhook, Reply, review};
use axum::body::{Body, Bytes};
use berth_core::api::ApprovalDecision;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{Request, body::Frame, client::conn::http1, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::jiff::Timestamp;
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use webhook::{
    connections::ConnectionLimits,
    serve::{ShutdownTimes, serve},
    tls::{Bundle, CertificateFiles, ClientAuthority, Renewal},
};

/// How long a condition may take to hold; a failing test ends after this.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct TlsServer {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
    folder: tempfile::TempDir,
}

impl TlsServer {
    async fn start(bundle: &Bundle) -> Self {
        Self::start_for(bundle, None).await
    }

    /// Serves only clients with a certificate of this authority (PEM).
    pub(crate) async fn start_for(bundle: &Bundle, clients: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        std::fs::write(&certificate, &bundle.tls_crt).unwrap();
        std::fs::write(&key, &bundle.tls_key).unwrap();
        let shutdown = CancellationToken::new();
        let period = Duration::from_millis(10);
        let verifier = match clients {
            Some(pem) => {
                let file = folder.path().join("clients.crt");
                std::fs::write(&file, pem).unwrap();
                Some(ClientAuthority::new(file).load(period, shutdown.clone()).await.unwrap())
            }
            None => None,
        };
        let files = CertificateFiles::new(certificate, key).for_clients(verifier);
        let tls = files.serve(period, shutdown.clone()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let times = ShutdownTimes { delay: Duration::ZERO, drain_timeout: TIMEOUT };
        let running = tokio::spawn(serve(
            listener,
            tls,
            LocalWebhook::new().router,
            ConnectionLimits::default(),
            times,
            shutdown.clone(),
        ));
        Self { address, shutdown, running, folder }
    }

    /// Replaces a file by renaming another one, as Kubernetes does in a mounted Secret.
    pub(crate) fn replace_file(&self, name: &str, content: &str) {
        let path: PathBuf = self.folder.path().join(name);
        let new = path.with_extension("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(TIMEOUT, self.running).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) fn bundle() -> Bundle {
    Bundle::generate(&["localhost".to_owned()], Timestamp::now()).unwrap()
}

pub(crate) fn client(
    bundle: &Bundle,
    alpn: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(bundle.ca_crt.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

async fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    connect_from(Ipv4Addr::LOCALHOST.into(), address, config).await
}

/// Connects from an address of this host.
pub(crate) async fn connect_from(
    from: IpAddr,
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(address).await?;
    TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

fn body() -> Full<Bytes> {
    let approval = json!({"metadata": {"name": "a"},
        "spec": {"target": {"kind": "Server", "name": "web-0"}, "taskID": 3, "decision": ApprovalDecision::Approve}});
    Full::new(Bytes::from(review("approvals", "CREATE", "ann", &Value::Null, &approval).to_string()))
}

fn request<B>(body: B) -> Request<B> {
    Request::post("https://localhost/mutate").header("host", "localhost").body(body).unwrap()
}

async fn check(response: hyper::Response<hyper::body::Incoming>) -> hyper::Result<()> {
    let body = response.into_body().collect().await?.to_bytes();
    assert!(Reply::read(&body).patch().is_some());
    Ok(())
}

/// Sends one request on a new connection, over HTTP/1.1.
pub(crate) async fn send_once(address: SocketAddr, config: Arc<ClientConfig>) -> anyhow::Result<Handshake> {
    let stream = connect(address, config).await?;
    let handshake = Handshake::of(&stream);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    check(sender.send_request(request(body())).await?).await?;
    drop(sender);
    connection.await??;
    Ok(handshake)
}

/// Sends requests on one connection, over HTTP/2, until `end` is set.
async fn send_until(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    end: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    let stream = connect(address, config).await?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    while !end.load(Ordering::Relaxed) {
        check(sender.send_request(request(body())).await?).await?;
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

pub(crate) struct Handshake {
    version: ProtocolVersion,
    certificate: CertificateDer<'static>,
}

impl Handshake {
    fn of(stream: &TlsStream<TcpStream>) -> Self {
        let connection = stream.get_ref().1;
        Self {
            version: connection.protocol_version().unwrap(),
            certificate: connection.peer_certificates().unwrap()[0].clone().into_owned(),
        }
    }
}

/// Waits until new connections get this certificate.
async fn wait_for_certificate(address: SocketAddr, config: &Arc<ClientConfig>, pem: &str) {
    let wanted = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let wait = async {
        while send_once(address, config.clone()).await.unwrap().certificate != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.expect("the new certificate is served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_certificates_under_load_loses_no_request() {
    let mut bundle = bundle();
    let server = TlsServer::start(&bundle).await;
    let (h1, h2) = (client(&bundle, "http/1.1", rustls::ALL_VERSIONS), client(&bundle, "h2", rustls::ALL_VERSIONS));
    let (end, old, new) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let open: Vec<_> =
        (0..2).map(|_| tokio::spawn(send_until(server.address, h2.clone(), end.clone(), old.clone()))).collect();
    let fresh = tokio::spawn({
        let (address, h1, end, new) = (server.address, h1.clone(), end.clone(), new.clone());
        async move {
            while !end.load(Ordering::Relaxed) {
                send_once(address, h1.clone()).await?;
                new.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }
    });
    for round in 0..8 {
        let next = bundle.renewed(Renewal::Certificate, &["localhost".to_owned()], Timestamp::now()).unwrap();
        // Until both files are replaced they do not fit together; some rounds start with a file that is not a certificate.
        if round % 3 == 0 {
            server.replace_file("tls.crt", "-----BEGIN CERTIFICATE-----\nbroken");
            wait_for_certificate(server.address, &h1, &bundle.tls_crt).await;
        }
        server.replace_file("tls.crt", &next.tls_crt);
        let before = (old.load(Ordering::Relaxed), new.load(Ordering::Relaxed));
        wait_for_certificate(server.address, &h1, &bundle.tls_crt).await;
        server.replace_file("tls.key", &next.tls_key);
        wait_for_certificate(server.address, &h1, &next.tls_crt).await;
        let progress = async {
            while old.load(Ordering::Relaxed) <= before.0 || new.load(Ordering::Relaxed) <= before.1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, progress).await.expect("requests succeed meanwhile");
        bundle = next;
    }
    end.store(true, Ordering::Relaxed);
    for task in open.into_iter().chain([fresh]) {
        task.await.unwrap().expect("no request was lost");
    }
    server.stop().await;
}

#[tokio::test]
async fn clients_of_tls_1_2_and_1_3_are_served() {
    let bundle = bundle();
    let server = TlsServer::start(&bundle).await;
    for (version, expected) in
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let handshake = send_once(server.address, client(&bundle, "http/1.1", &[version])).await.unwrap();
        assert_eq!(handshake.version, expected);
    }
    server.stop().await;
}

#[tokio::test]
async fn unusable_files_at_the_start_are_an_error_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let files = CertificateFiles::new(certificate.clone(), key.clone());
    let start = async || {
        let started = files.clone().serve(Duration::from_secs(1), CancellationToken::new()).await;
        format!("{:#}", started.err().unwrap())
    };
    assert!(start().await.contains("--tls-cert: cannot read"), "{}", start().await);
    let (one, other) = (bundle(), bundle());
    std::fs::write(&certificate, &one.tls_crt).unwrap();
    std::fs::write(&key, &other.tls_key).unwrap();
    assert!(start().await.contains("do not fit together"), "{}", start().await);
    std::fs::write(&certificate, "").unwrap();
    assert!(start().await.contains("holds no certificate"), "{}", start().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_completes_requests_in_flight_and_accepts_no_new_ones() {
    let bundle = bundle();
    let server = TlsServer::start(&bundle).await;
    let stream = connect(server.address, client(&bundle, "h2", rustls::ALL_VERSIONS)).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let bytes = body().collect().await.unwrap().to_bytes();
    let (first, second) = (bytes.slice(..bytes.len() / 2), bytes.slice(bytes.len() / 2..));
    let (sender_of_frames, frames) = futures::channel::mpsc::unbounded();
    sender_of_frames.unbounded_send(Ok::<_, std::io::Error>(Frame::data(first))).unwrap();
    let in_flight = tokio::spawn(sender.send_request(request(Body::new(StreamBody::new(frames)))));
    // The response to a second request on the same connection shows that the first one has arrived.
    check(sender.send_request(request(Body::new(body()))).await.unwrap()).await.unwrap();

    server.shutdown.cancel();
    let refused = async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, refused).await.expect("the listener is closed");
    assert!(!server.running.is_finished(), "a request is in flight");

    sender_of_frames.unbounded_send(Ok(Frame::data(second))).unwrap();
    drop(sender_of_frames);
    check(in_flight.await.unwrap().unwrap()).await.unwrap();
    drop(sender);
    server.stop().await;
}
