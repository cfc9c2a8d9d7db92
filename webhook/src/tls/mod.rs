//! The certificate that the webhook serves with: from files, or from a Secret with an authority of its own. New
//! certificates are for new connections; those that are open go on with what they began with.

mod authority;
mod files;
mod registration;
mod secret;

pub use authority::{Bundle, BundleError, Renewal};
pub use files::Files;
pub use secret::SecretSource;

use axum_server::tls_rustls::RustlsConfig;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use std::sync::Arc;

/// Why a certificate cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// It is no PEM.
    #[error("the {what} is no valid PEM: {error}")]
    Pem {
        /// `certificate` or `key`.
        what: &'static str,
        /// What is wrong with it.
        error: rustls::pki_types::pem::Error,
    },
    /// There is none in the PEM.
    #[error("there is no certificate in the PEM of the certificate")]
    Empty,
    /// The key is not the certificate's, or of an unknown kind.
    #[error("certificate and key do not fit together: {0}")]
    Pair(#[from] rustls::Error),
}

/// The configuration for a certificate chain and its key (PEM): TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
pub fn server_config(certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, PairError> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PairError::Pem { what: "certificate", error })?;
    if chain.is_empty() {
        return Err(PairError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| PairError::Pem { what: "key", error })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The configuration that connections are accepted with; it is replaced while they are.
pub fn acceptor(certificate: &[u8], key: &[u8]) -> Result<RustlsConfig, PairError> {
    Ok(RustlsConfig::from_config(server_config(certificate, key)?))
}
