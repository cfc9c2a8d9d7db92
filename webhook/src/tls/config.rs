//! The TLS configuration for a certificate and its key.

use axum_server::tls_rustls::RustlsConfig;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};
use std::sync::Arc;

use super::clients::ClientVerifier;

/// Why a certificate and its key are unusable.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file is not valid PEM.
    #[error("the {file} is not valid PEM: {error}")]
    Pem {
        /// `certificate` or `key`.
        file: &'static str,
        /// What is wrong with it.
        error: rustls::pki_types::pem::Error,
    },
    /// The PEM of the certificate holds no certificate.
    #[error("the PEM of the certificate holds no certificate")]
    Empty,
    /// The key belongs to another certificate, or is of an unknown type.
    #[error("certificate and key do not fit together: {0}")]
    Mismatch(#[from] rustls::Error),
}

/// The configuration for a certificate chain and its key, both as PEM: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. With `clients`, only
/// clients with a certificate that it accepts.
pub(super) fn server_config(
    certificate: &[u8],
    key: &[u8],
    clients: Option<&ClientVerifier>,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertificateError::Pem { file: "certificate", error })?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Pem { file: "key", error })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients.for_config()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    if clients.is_some() {
        // A resumed session would not be verified again, although the authority may be another one by now.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A configuration that can be replaced while the server accepts connections with it.
pub fn reloadable_config(
    certificate: &[u8],
    key: &[u8],
    clients: Option<&ClientVerifier>,
) -> Result<RustlsConfig, CertificateError> {
    Ok(RustlsConfig::from_config(server_config(certificate, key, clients)?))
}
