//! One probe: a TCP connection or an HTTP GET, within a time limit.

use std::{pin::pin, time::Duration};

use berth_core::api::{HealthCheck, Server};
use futures::{FutureExt as _, future::BoxFuture};
use http_body_util::Empty;
use hyper::{Request, Response, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The target answered as it should.
    Success,
    /// What was probed, and how it failed.
    Failure(String),
}

/// How a port is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeMethod {
    /// Succeeds if the port accepts a connection.
    TcpSocket,
    /// Succeeds if a GET of this path is answered with a status from 200 to 399.
    HttpGet {
        /// The path, with its first slash.
        path: String,
    },
}

/// Where and how to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// The machine's address.
    pub address: String,
    /// The TCP port.
    pub port: u16,
    /// What is done there.
    pub method: ProbeMethod,
    /// After this long the probe has failed.
    pub timeout: Duration,
}

/// Carries out probes. A trait, so that a simulation can bring its own network.
pub trait ProbeClient: Send + Sync {
    /// Probes the target once, within its time limit.
    fn probe<'a>(&'a self, target: &'a ProbeTarget) -> BoxFuture<'a, ProbeResult>;
}

/// Probes over the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkProbes;

impl ProbeClient for NetworkProbes {
    fn probe<'a>(&'a self, target: &'a ProbeTarget) -> BoxFuture<'a, ProbeResult> {
        target.probe().boxed()
    }
}

impl ProbeTarget {
    /// The target that shows whether the machine is reachable: its SSH port. None while its address is not known.
    pub(crate) fn machine(server: &Server) -> Option<Self> {
        let machine = server.machine()?;
        Some(Self {
            address: machine.address.clone()?,
            port: port(machine.ssh.as_ref()?.port)?,
            method: ProbeMethod::TcpSocket,
            timeout: seconds(server.spec.reachability.timeout_seconds),
        })
    }

    /// The target that shows whether the application is healthy. None where no health check is declared, or while the address
    /// is not known.
    pub(crate) fn application(server: &Server) -> Option<Self> {
        let address = server.address()?.to_owned();
        let check: &HealthCheck = server.spec.health_check.as_ref()?;
        let (declared, method) = match (&check.http_get, &check.tcp_socket) {
            (Some(get), _) => (get.port, ProbeMethod::HttpGet { path: get.path.clone() }),
            (None, Some(tcp)) => (tcp.port, ProbeMethod::TcpSocket),
            (None, None) => return None,
        };
        Some(Self { address, port: port(declared)?, method, timeout: seconds(check.timeout_seconds) })
    }

    /// Probes once.
    async fn probe(&self) -> ProbeResult {
        match tokio::time::timeout(self.timeout, self.attempt()).await {
            Ok(Ok(())) => ProbeResult::Success,
            Ok(Err(message)) => ProbeResult::Failure(message),
            Err(_) => ProbeResult::Failure(format!("{self}: no answer within {} s", self.timeout.as_secs())),
        }
    }

    /// Probes without a time limit.
    async fn attempt(&self) -> Result<(), String> {
        let stream = TcpStream::connect((self.address.as_str(), self.port))
            .await
            .map_err(|error| format!("{self}: {}", describe(&error)))?;
        match &self.method {
            ProbeMethod::TcpSocket => Ok(()),
            ProbeMethod::HttpGet { path } => {
                let answer = self.get(stream, path).await.map_err(|error| format!("{self}: {error}"))?;
                let status = answer.status();
                if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(format!("{self}: answered {status}")) }
            }
        }
    }

    /// Requests the path and returns the head of the response. The body is not read, and the connection is closed.
    async fn get(&self, stream: TcpStream, path: &str) -> Result<Response<hyper::body::Incoming>, String> {
        let request = Request::get(path)
            .header(header::HOST, format!("{}:{}", self.address, self.port))
            .header(header::USER_AGENT, "berth-monitor")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let mut answer = pin!(sender.send_request(request));
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The connection may end when the response has arrived already.
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(error),
            },
        };
        answer.map_err(|error| format!("no HTTP answer: {error}"))
    }
}

impl std::fmt::Display for ProbeTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.method {
            ProbeMethod::TcpSocket => write!(f, "TCP {}:{}", self.address, self.port),
            ProbeMethod::HttpGet { path } => write!(f, "GET http://{}:{}{path}", self.address, self.port),
        }
    }
}

fn port(port: i32) -> Option<u16> {
    u16::try_from(port).ok()
}

/// A declared number of seconds; at least one, as in the API's schema.
pub(crate) fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1))
}

/// The error in words, without the operating system's error number.
fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers every request with these bytes, or never if there are none.
    async fn server(answer: Option<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0u8; 1024];
                    let read = stream.read(&mut request).await.unwrap_or(0);
                    match answer {
                        Some(answer) if read > 0 => {
                            assert!(request.starts_with(b"GET /healthz HTTP/1.1\r\n"));
                            let _ = stream.write_all(answer.as_bytes()).await;
                        }
                        _ => std::future::pending().await,
                    }
                });
            }
        });
        port
    }

    fn target(port: u16, http: bool) -> ProbeTarget {
        let method = if http { ProbeMethod::HttpGet { path: "/healthz".into() } } else { ProbeMethod::TcpSocket };
        ProbeTarget { address: "127.0.0.1".into(), port, method, timeout: Duration::from_millis(500) }
    }

    #[tokio::test]
    async fn a_status_from_200_to_399_is_a_success() {
        for status in ["200 OK", "204 No Content", "301 Moved Permanently", "399 X"] {
            let answer: &str = Box::leak(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_boxed_str());
            assert_eq!(target(server(Some(answer)).await, true).probe().await, ProbeResult::Success, "{status}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_a_failure_that_says_why() {
        let cases = [
            (Some("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"), "503 Service Unavailable"),
            (Some("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"), "400 Bad Request"),
            (Some("SSH-2.0-OpenSSH_9.2\r\n"), "no HTTP answer"),
            (Some(""), "no HTTP answer"),
            (None, "no answer within"),
        ];
        for (answer, expected) in cases {
            let ProbeResult::Failure(message) = target(server(answer).await, true).probe().await else {
                panic!("{answer:?}")
            };
            assert!(message.contains(expected), "{answer:?}: {message}");
            assert!(message.contains("GET http://127.0.0.1:"), "{message}");
        }
    }

    #[tokio::test]
    async fn the_body_is_not_waited_for() {
        let port = server(Some("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc")).await;
        assert_eq!(target(port, true).probe().await, ProbeResult::Success);
    }

    #[tokio::test]
    async fn a_tcp_probe_needs_only_a_connection() {
        let port = server(None).await;
        assert_eq!(target(port, false).probe().await, ProbeResult::Success);
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let ProbeResult::Failure(message) = target(free, false).probe().await else { panic!("nobody listens there") };
        assert!(message.ends_with("connection refused"), "{message}");
    }
}
