//! Where HAProxy's runtime API listens, and the connection to it.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

/// Where the runtime API listens.
#[derive(Debug, Clone)]
pub enum Address {
    /// A socket in the file system, such as `/run/haproxy/admin.sock`.
    Unix(PathBuf),
    /// A TCP port. Whoever reaches it without TLS can do everything, so without TLS it must be on loopback.
    Tcp {
        /// A host name or an IP address.
        host: String,
        /// The port.
        port: u16,
        /// Mutual TLS, for a port that others can reach: a `listen` section of HAProxy's configuration in front of the socket.
        tls: Option<ClientTls>,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

/// Which of HAProxy's processes listens at the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// A worker (`stats socket` in the configuration). Workers that left with a reload are out of reach.
    Worker,
    /// The master (`haproxy -S`). It passes commands on to each of its workers, also to those that are leaving.
    Master,
}

/// The client's side of mutual TLS. Its debug output shows no key.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{part} for HAProxy cannot be used: {why}")]
pub struct ClientTlsError {
    /// Which part it is: `the client certificate`, `the client key`, `the CA certificate` or `the server name`.
    pub part: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl ClientTls {
    /// From PEM: the client's certificate chain, its key, and the certificates of the authorities that may have signed HAProxy's
    /// certificate. `server_name` is the name in that certificate, when it is not the host of the address.
    pub fn from_pem(
        certificate: &[u8],
        key: &[u8],
        ca: &[u8],
        server_name: Option<&str>,
    ) -> Result<Self, ClientTlsError> {
        let chain = certificates("the client certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(unusable("the client key"))?;
        let mut roots = RootCertStore::empty();
        for root in certificates("the CA certificate", ca)? {
            roots.add(root).map_err(unusable("the CA certificate"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable("the client certificate"))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(unusable("the client certificate"))?;
        let server_name = server_name.map(host_name).transpose().map_err(unusable("the server name"))?;
        Ok(Self { config: Arc::new(config), server_name })
    }
}

fn unusable<E: fmt::Display>(part: &'static str) -> impl Fn(E) -> ClientTlsError {
    move |error| ClientTlsError { part, why: error.to_string() }
}

fn certificates(part: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ClientTlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(unusable(part))?;
    if found.is_empty() {
        return Err(ClientTlsError { part, why: "it holds no PEM certificate".to_owned() });
    }
    Ok(found)
}

fn host_name(host: &str) -> Result<ServerName<'static>, rustls::pki_types::InvalidDnsNameError> {
    ServerName::try_from(host.to_owned())
}

/// How long to wait while a socket's queue is full. Nothing tells when there is room; one call takes a few milliseconds.
const QUEUE_FULL: Duration = Duration::from_millis(10);

/// A connection of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Address {
    /// Connects, without a time limit. While the queue of a socket in the file system is full, it tries again: the master takes ten
    /// connections at a time and lets as many wait.
    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let (host, port, tls) = match self {
            Self::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(QUEUE_FULL).await,
                    connected => return Ok(Box::new(connected?)),
                }
            },
            Self::Tcp { host, port, tls } => (host, *port, tls),
        };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Box::new(stream)) };
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => host_name(host).map_err(io::Error::other)?,
        };
        let connected = TlsConnector::from(Arc::clone(&tls.config)).connect(name, stream).await;
        Ok(Box::new(connected.map_err(explained)?))
    }
}

/// HAProxy 2.6 and 2.8 accept `ssl` and `verify required` on a `stats socket` and ignore them: the port speaks plain text, and
/// everybody who reaches it is let in.
fn explained(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if !matches!(cause, Some(rustls::Error::InvalidMessage(_))) {
        return error;
    }
    let what = "the port does not speak TLS. HAProxy ignores `ssl` on a `stats socket`: bind the socket to a file, and put a \
                `listen` section with `mode tcp`, `bind ... ssl crt ... ca-file ... verify required` and \
                `server api unix@FILE` before it";
    io::Error::new(error.kind(), format!("{what} ({error})"))
}

#[cfg(test)]
mod tests {
    use super::{Address, ClientTls};

    #[test]
    fn an_address_is_written_as_one_would_type_it() {
        assert_eq!(Address::Unix("/run/h.sock".into()).to_string(), "/run/h.sock");
        assert_eq!(Address::Tcp { host: "::1".to_owned(), port: 9, tls: None }.to_string(), "[::1]:9");
        assert_eq!(Address::Tcp { host: "lb".to_owned(), port: 9, tls: None }.to_string(), "lb:9");
    }

    #[test]
    fn credentials_that_cannot_be_used_are_named() {
        let error = ClientTls::from_pem(b"", b"", b"", None).unwrap_err();
        assert_eq!(error.to_string(), "the client certificate for HAProxy cannot be used: it holds no PEM certificate");
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let error = ClientTls::from_pem(pem.as_bytes(), b"no key", pem.as_bytes(), None).unwrap_err();
        assert_eq!(error.part, "the client key");
        let error = ClientTls::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes(), b"x", None).unwrap_err();
        assert_eq!(error.part, "the CA certificate");
        let tls =
            ClientTls::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes(), pem.as_bytes(), Some("lb")).unwrap();
        assert!(!format!("{tls:?}").contains("PRIVATE"));
    }
}
