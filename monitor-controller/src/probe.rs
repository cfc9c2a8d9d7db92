//! One probe: a TCP connection or an HTTP GET, within a time limit.

use std::{pin::pin, time::Duration};

use berth_core::api::{HealthCheck, Server};
use http_body_util::Empty;
use hyper::{Request, Response, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::verdict::Finding;

/// What is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether the port accepts a connection.
    Tcp,
    /// Whether a GET of this path is answered with a status from 200 to 399.
    Http(String),
}

/// Where and how a Server is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aim {
    /// The machine's address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// The question.
    pub question: Question,
    /// After this long the probe has failed.
    pub timeout: Duration,
}

impl Aim {
    /// How the machine's reachability is probed: by its SSH port. Nothing while its address is not known.
    #[must_use]
    pub fn reachability(server: &Server) -> Option<Self> {
        let machine = server.status.as_ref()?.machine.as_ref()?;
        Some(Self {
            address: machine.address.clone()?,
            port: port(machine.ssh.as_ref()?.port)?,
            question: Question::Tcp,
            timeout: seconds(server.spec.reachability.timeout_seconds),
        })
    }

    /// How the application's health is probed. Nothing where no check is declared, or the address is not known.
    #[must_use]
    pub fn health(server: &Server) -> Option<Self> {
        let address = server.status.as_ref()?.machine.as_ref()?.address.clone()?;
        let check: &HealthCheck = server.spec.health_check.as_ref()?;
        let (declared, question) = match (&check.http_get, &check.tcp_socket) {
            (Some(get), _) => (get.port, Question::Http(get.path.clone())),
            (None, Some(tcp)) => (tcp.port, Question::Tcp),
            (None, None) => return None,
        };
        Some(Self { address, port: port(declared)?, question, timeout: seconds(check.timeout_seconds) })
    }

    /// Probes once.
    pub async fn probe(&self) -> Finding {
        match tokio::time::timeout(self.timeout, self.ask()).await {
            Ok(Ok(())) => Finding::Good,
            Ok(Err(message)) => Finding::Bad(message),
            Err(_) => Finding::Bad(format!("{self}: no answer within {} s", self.timeout.as_secs())),
        }
    }

    async fn ask(&self) -> Result<(), String> {
        let stream = TcpStream::connect((self.address.as_str(), self.port))
            .await
            .map_err(|error| format!("{self}: {}", plain(&error)))?;
        match &self.question {
            Question::Tcp => Ok(()),
            Question::Http(path) => {
                let answer = self.get(stream, path).await.map_err(|error| format!("{self}: {error}"))?;
                let status = answer.status();
                if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(format!("{self}: answered {status}")) }
            }
        }
    }

    /// The head of the answer; its body is not read, and the connection closed.
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
            answer = &mut answer => answer,
            // The connection may end with the answer already here.
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(error),
            },
        };
        answer.map_err(|error| format!("no HTTP answer: {error}"))
    }
}

impl std::fmt::Display for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.question {
            Question::Tcp => write!(f, "TCP {}:{}", self.address, self.port),
            Question::Http(path) => write!(f, "GET http://{}:{}{path}", self.address, self.port),
        }
    }
}

fn port(port: i32) -> Option<u16> {
    u16::try_from(port).ok()
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1))
}

/// The error without the operating system's number, which says nothing to people.
fn plain(error: &std::io::Error) -> String {
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

    /// A server that answers every connection with these bytes, or never when there are none.
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

    fn aim(port: u16, http: bool) -> Aim {
        let question = if http { Question::Http("/healthz".into()) } else { Question::Tcp };
        Aim { address: "127.0.0.1".into(), port, question, timeout: Duration::from_millis(500) }
    }

    #[tokio::test]
    async fn an_answer_from_200_to_399_is_good() {
        for status in ["200 OK", "204 No Content", "301 Moved Permanently", "399 X"] {
            let answer: &str = Box::leak(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").into_boxed_str());
            assert_eq!(aim(server(Some(answer)).await, true).probe().await, Finding::Good, "{status}");
        }
    }

    #[tokio::test]
    async fn everything_else_is_bad_and_says_why() {
        let cases = [
            (Some("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"), "503 Service Unavailable"),
            (Some("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"), "400 Bad Request"),
            (Some("SSH-2.0-OpenSSH_9.2\r\n"), "no HTTP answer"),
            (Some(""), "no HTTP answer"),
            (None, "no answer within"),
        ];
        for (answer, expected) in cases {
            let Finding::Bad(message) = aim(server(answer).await, true).probe().await else { panic!("{answer:?}") };
            assert!(message.contains(expected), "{answer:?}: {message}");
            assert!(message.contains("GET http://127.0.0.1:"), "{message}");
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_does_not_matter() {
        let port = server(Some("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc")).await;
        assert_eq!(aim(port, true).probe().await, Finding::Good);
    }

    #[tokio::test]
    async fn tcp_needs_only_a_connection() {
        let port = server(None).await;
        assert_eq!(aim(port, false).probe().await, Finding::Good);
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let Finding::Bad(message) = aim(free, false).probe().await else { panic!("nobody listens there") };
        assert!(message.ends_with("connection refused"), "{message}");
    }
}
