//! Which clients are served: with a client authority, only those with a certificate that it has signed. All others are refused in
//! the TLS handshake, before they can send a request.

use anyhow::Context as _;
use parking_lot::RwLock;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The authority that signs the certificates of clients, in a file (PEM, one or more certificates). It is polled, as the files of
/// the serving certificate are.
#[derive(Clone, Debug)]
pub struct ClientAuthority {
    file: PathBuf,
}

/// Verifies clients by the authority that was read last. Shared by all configurations of the server, so that a new authority
/// holds for every handshake from then on.
#[derive(Clone, Debug)]
pub struct ClientVerifier(Arc<Current>);

#[derive(Debug)]
struct Current(RwLock<Arc<dyn ClientCertVerifier>>);

impl ClientAuthority {
    /// Names the file.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Loads the authority, and reloads it until `shutdown` whenever the file has changed, which is checked every `period`. If the
    /// file becomes unusable later, logs a warning and keeps the last good authority.
    ///
    /// # Errors
    /// When the file is unusable at the start.
    pub async fn load(self, period: Duration, shutdown: CancellationToken) -> anyhow::Result<ClientVerifier> {
        let content = self.read().await?;
        let verifier = ClientVerifier(Arc::new(Current(RwLock::new(self.verifier(&content)?))));
        tokio::spawn(self.poll(content, period, verifier.clone(), shutdown));
        Ok(verifier)
    }

    async fn poll(self, mut seen: Vec<u8>, period: Duration, verifier: ClientVerifier, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_unreadable = false;
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let content = match self.read().await {
                Ok(content) => content,
                Err(error) => {
                    if !std::mem::replace(&mut is_unreadable, true) {
                        tracing::warn!("keeping the last good authority of clients: {error:#}");
                    }
                    continue;
                }
            };
            is_unreadable = false;
            if content == seen {
                continue;
            }
            match self.verifier(&content) {
                Ok(new) => {
                    *verifier.0.0.write() = new;
                    tracing::info!(file = %self.file.display(), "clients need a certificate of a new authority");
                }
                Err(error) => tracing::warn!("keeping the last good authority of clients: {error:#}"),
            }
            seen = content;
        }
    }

    async fn read(&self) -> anyhow::Result<Vec<u8>> {
        let read = tokio::fs::read(&self.file).await;
        read.with_context(|| format!("--client-ca: cannot read {}", self.file.display()))
    }

    fn verifier(&self, pem: &[u8]) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
        let context = || format!("--client-ca {} is unusable", self.file.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.with_context(context)?).with_context(context)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Fails when there is no certificate in the file: then nobody could be served.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        verifier.with_context(context)
    }
}

impl ClientVerifier {
    /// As rustls needs it.
    pub(super) fn for_config(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.clone()
    }
}

impl Current {
    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.read().clone()
    }
}

impl ClientCertVerifier for Current {
    /// No hints: a client has one certificate for this webhook or none.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.now().verify_client_cert(certificate, intermediates, now);
        // Not a warning: anybody who reaches the port could fill the log.
        verified.inspect_err(|error| tracing::debug!("refused a client's certificate: {error}"))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().supported_verify_schemes()
    }
}
