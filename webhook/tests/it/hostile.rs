//! Clients without a credential cannot starve the webhook: its memory stays bounded, and an API server is answered in time.

use crate::{
    requests::{Reply, review, text},
    tls::{bundle, client, connect_from},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt as _, net::TcpSocket};

/// Hostile clients, each with one connection at a time, unless `BERTH_HOSTILE_CLIENTS` says how many.
const CLIENTS: usize = 2000;
/// How long they go on.
const ATTACK: Duration = Duration::from_secs(10);
/// The limit in deploy/base/webhook.yaml.
const MEMORY_LIMIT: u64 = 256 << 20;
/// Hostile clients come from addresses of their own.
const HOSTILE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3))];

/// The program itself, so that its memory is its own.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Program {
    fn start(folder: &std::path::Path, address: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_webhook"));
        command.args([
            "--bind",
            &address.to_string(),
            "--http-address",
            &free_address().to_string(),
            "--log-level",
            "error",
        ]);
        command.arg("--tls-cert").arg(folder.join("tls.crt")).arg("--tls-key").arg(folder.join("tls.key"));
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// The most memory that it ever had resident, in bytes.
    fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

/// Takes what it can get until it is disconnected, again and again: a connection without TLS, a head that does not end, or a
/// body of nearly the largest size that does not end.
async fn attack(number: usize, address: SocketAddr, tls: Arc<ClientConfig>) {
    let piece = vec![b' '; 1 << 20];
    loop {
        let from = HOSTILE[number % HOSTILE.len()];
        if number.is_multiple_of(3) {
            if let Ok(mut stream) = connect_plain(from, address).await {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        } else if let Ok(mut stream) = connect_from(from, address, tls.clone()).await {
            let head = "POST /mutate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000000\r\n";
            let mut sent = stream.write_all(head.as_bytes()).await;
            if number % 3 == 1 {
                sent = stream.write_all(b"\r\n").await;
                for _ in 0..3 {
                    sent = sent.and(stream.write_all(&piece).await);
                }
            }
            if sent.and(stream.flush().await).is_ok() {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn connect_plain(from: IpAddr, address: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(address).await
}

fn approval() -> Full<Bytes> {
    let approval = json!({"metadata": {"name": "a"},
        "spec": {"target": {"kind": "Server", "name": "web-0"}, "taskID": 3, "decision": "Approve"}});
    Full::new(Bytes::from(text(&review("approvals", "CREATE", "ann", &Value::Null, &approval))))
}

/// One review by the API server, on its connection or on a new one.
async fn ask(
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
    open: &mut Option<http2::SendRequest<Full<Bytes>>>,
) -> anyhow::Result<()> {
    if open.as_ref().is_none_or(http2::SendRequest::is_closed) {
        let stream = connect_from(Ipv4Addr::LOCALHOST.into(), address, tls.clone()).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        *open = Some(sender);
    }
    let Some(sender) = open else { anyhow::bail!("no connection") };
    let request = Request::post("https://localhost/mutate").body(approval())?;
    let response = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    anyhow::ensure!(Reply::read(&response).patch().is_some(), "no decision");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_hostile_connections_starve_nobody() {
    let (folder, bundle, address) = (tempfile::tempdir().unwrap(), bundle(), free_address());
    std::fs::write(folder.path().join("tls.crt"), &bundle.tls_crt).unwrap();
    std::fs::write(folder.path().join("tls.key"), &bundle.tls_key).unwrap();
    let program = Program::start(folder.path(), address);
    let (http1, http2) =
        (client(&bundle, "http/1.1", rustls::ALL_VERSIONS), client(&bundle, "h2", rustls::ALL_VERSIONS));
    let mut connection = None;
    let begun = Instant::now();
    while ask(address, &http2, &mut connection).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the webhook does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // On threads of their own, so that only the webhook is starved, and not the client that measures.
    let attackers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let clients = std::env::var("BERTH_HOSTILE_CLIENTS").map_or(CLIENTS, |number| number.parse().unwrap());
    for number in 0..clients {
        attackers.spawn(attack(number, address, http1.clone()));
    }
    let (begun, mut asked, mut slow) = (Instant::now(), 0_usize, Vec::new());
    while begun.elapsed() < ATTACK {
        // Every second review comes on a new connection, as after a restart of the API server.
        if asked.is_multiple_of(2) {
            connection = None;
        }
        let since = Instant::now();
        let answer = tokio::time::timeout(Duration::from_secs(5), ask(address, &http2, &mut connection)).await;
        let answered = answer.is_ok_and(|answer| answer.is_ok());
        assert!(answered, "no answer within {:?}, after {:?}", since.elapsed(), begun.elapsed());
        if since.elapsed() > Duration::from_secs(1) {
            slow.push(since.elapsed());
        }
        asked += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    attackers.shutdown_background();
    let memory = program.peak_memory();
    // A few may be slow, because other tests take the processor.
    assert!(slow.len() * 10 <= asked, "{} of {asked} reviews: {slow:?}; peak memory {} MiB", slow.len(), memory >> 20);
    assert!(memory < MEMORY_LIMIT, "peak memory {} MiB", memory >> 20);
    println!("{asked} reviews answered; peak memory {} MiB", memory >> 20);
}
