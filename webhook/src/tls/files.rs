//! The certificate in files, as cert-manager or a person puts them there.

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use std::{path::PathBuf, time::Duration};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// A certificate and its key in two files. They are looked at again and again rather than watched: a mounted Secret is
/// replaced by a symbolic link above the files, and network file systems report nothing at all.
#[derive(Clone, Debug)]
pub struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// These two files.
    #[must_use]
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key }
    }

    /// Reads the files and, from now until `shutdown`, serves with what they hold, looking every `period`. Fails when
    /// they cannot be served with now; later bad files are logged once, and what was good before stays.
    pub async fn serve(self, period: Duration, shutdown: CancellationToken) -> anyhow::Result<RustlsConfig> {
        let pair = self.read().await?;
        let config = super::acceptor(&pair.certificate, &pair.key).with_context(|| self.describe())?;
        tokio::spawn(self.follow(pair, period, config.clone(), shutdown));
        Ok(config)
    }

    async fn follow(self, mut seen: Pair, period: Duration, config: RustlsConfig, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missing = false;
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.read().await {
                Ok(pair) if pair == seen => missing = false,
                Ok(pair) => {
                    missing = false;
                    self.load(&pair, &config);
                    seen = pair;
                }
                Err(error) if !missing => {
                    missing = true;
                    tracing::warn!("the certificate's files cannot be read, going on with the old one: {error:#}");
                }
                Err(_) => {}
            }
        }
    }

    fn load(&self, pair: &Pair, config: &RustlsConfig) {
        match super::server_config(&pair.certificate, &pair.key) {
            Ok(new) => {
                config.reload_from_config(new);
                tracing::info!(certificate = %self.certificate.display(), "serving with a new certificate");
            }
            // Between the writing of one file and of the other this is to be expected; the next look finds both.
            Err(error) => tracing::warn!("{}: {error}; going on with the old one", self.describe()),
        }
    }

    async fn read(&self) -> anyhow::Result<Pair> {
        let read = async |argument: &str, path: &PathBuf| {
            tokio::fs::read(path).await.with_context(|| format!("{argument}: cannot read {}", path.display()))
        };
        Ok(Pair { certificate: read("--tls-cert", &self.certificate).await?, key: read("--tls-key", &self.key).await? })
    }

    fn describe(&self) -> String {
        format!("--tls-cert {} and --tls-key {} cannot be served with", self.certificate.display(), self.key.display())
    }
}
