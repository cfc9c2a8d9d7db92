//! The certificate in files, such as those of a Secret that cert-manager fills.

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use std::{path::PathBuf, time::Duration};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    clients::ClientVerifier,
    config::{reloadable_config, server_config},
};

/// A certificate and its key in two files. The files are polled, not watched: an update of a mounted Secret replaces a symbolic
/// link above the files, and network file systems report no changes at all.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<ClientVerifier>,
}

/// The content of the two files, as PEM.
#[derive(PartialEq, Eq)]
struct FileContents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl CertificateFiles {
    /// Names the files of the certificate and of its key.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, clients: None }
    }

    /// Serves only the clients that this verifier accepts, if there is one.
    #[must_use]
    pub fn for_clients(self, clients: Option<ClientVerifier>) -> Self {
        Self { clients, ..self }
    }

    /// Loads the certificate, and reloads it until `shutdown` whenever the files have changed, which is checked every
    /// `period`. If the files become unusable later, logs a warning once and keeps the last good certificate.
    ///
    /// # Errors
    /// When the files are unusable at the start.
    pub async fn serve(self, period: Duration, shutdown: CancellationToken) -> anyhow::Result<RustlsConfig> {
        let contents = self.read().await?;
        let config = reloadable_config(&contents.certificate, &contents.key, self.clients.as_ref())
            .with_context(|| self.describe())?;
        tokio::spawn(self.poll(contents, period, config.clone(), shutdown));
        Ok(config)
    }

    async fn poll(self, mut loaded: FileContents, period: Duration, config: RustlsConfig, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_unreadable = false;
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.read().await {
                Ok(contents) if contents == loaded => is_unreadable = false,
                Ok(contents) => {
                    is_unreadable = false;
                    self.reload(&contents, &config);
                    loaded = contents;
                }
                Err(error) if !is_unreadable => {
                    is_unreadable = true;
                    tracing::warn!("cannot read the certificate, keeping the last good one: {error:#}");
                }
                Err(_) => {}
            }
        }
    }

    fn reload(&self, contents: &FileContents, config: &RustlsConfig) {
        match server_config(&contents.certificate, &contents.key, self.clients.as_ref()) {
            Ok(new) => {
                config.reload_from_config(new);
                tracing::info!(certificate = %self.certificate.display(), "serving with a new certificate");
            }
            // Expected when only one of the files has been written yet; the next poll reads both.
            Err(error) => tracing::warn!("{}: {error}; keeping the last good certificate", self.describe()),
        }
    }

    async fn read(&self) -> anyhow::Result<FileContents> {
        let read = async |argument: &str, path: &PathBuf| {
            tokio::fs::read(path).await.with_context(|| format!("{argument}: cannot read {}", path.display()))
        };
        Ok(FileContents {
            certificate: read("--tls-cert", &self.certificate).await?,
            key: read("--tls-key", &self.key).await?,
        })
    }

    fn describe(&self) -> String {
        format!("--tls-cert {} and --tls-key {} are unusable", self.certificate.display(), self.key.display())
    }
}
