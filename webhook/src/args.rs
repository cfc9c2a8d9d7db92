//! The arguments that only the webhook has.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{body::RequestLimits, connections::ConnectionLimits};

/// The arguments that only the webhook has, beside those that every program has.
#[derive(Clone, Debug, clap::Args)]
pub struct WebhookArgs {
    /// Address to serve the webhook on (HTTPS, with HTTP/2 and HTTP/1.1)
    #[arg(long, default_value = "0.0.0.0:8443", env = "BERTH_WEBHOOK_BIND", value_name = "IP:PORT")]
    pub bind: SocketAddr,

    /// Source of the certificate.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Largest AdmissionReview to accept, in bytes
    #[arg(long, default_value_t = RequestLimits::default().max_body_bytes, value_name = "BYTES")]
    pub max_body_bytes: usize,

    /// Bytes of bodies that may be in memory at once; when there are more, clients that take most are disconnected
    #[arg(long, default_value_t = ConnectionLimits::default().max_bytes, value_name = "BYTES")]
    pub max_bytes_in_flight: usize,

    /// Connections that may be open at once; when there are more, clients that have most are disconnected
    #[arg(long, default_value_t = ConnectionLimits::default().max_connections, value_name = "N")]
    pub max_connections: usize,

    /// Seconds within which the body of a request must arrive; keep it below timeoutSeconds of the MutatingWebhookConfiguration
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub request_timeout: Duration,

    /// Seconds from becoming unready to closing the listener on shutdown, until the Service sends no more requests
    #[arg(long, default_value = "3", value_parser = seconds, value_name = "SECONDS")]
    pub shutdown_delay: Duration,

    /// Seconds that requests in flight get to finish on shutdown
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    pub drain_timeout: Duration,
}

impl WebhookArgs {
    /// The limits of all connections together. Every body has to fit into them.
    #[must_use]
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            max_connections: self.max_connections.max(1),
            max_bytes: self.max_bytes_in_flight.max(self.max_body_bytes),
        }
    }

    /// The limits of each request.
    #[must_use]
    pub fn limits(&self) -> RequestLimits {
        RequestLimits { max_body_bytes: self.max_body_bytes, read_timeout: self.request_timeout }
    }
}

/// Source of the certificate, and which clients are served. The source is two files, or a Secret in which the webhook keeps a certificate authority of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct TlsArgs {
    /// File with the certificate chain (PEM); read again when it changes
    #[arg(
        long,
        requires = "tls_key",
        conflicts_with = "tls_secret",
        required_unless_present = "tls_secret",
        value_name = "FILE"
    )]
    pub tls_cert: Option<PathBuf>,

    /// File with the private key of the certificate (PEM); read again when it changes
    #[arg(long, requires = "tls_cert", conflicts_with = "tls_secret", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Secret in Berth's namespace for the webhook's own authority and certificate; the webhook creates and renews it
    #[arg(long, value_name = "NAME")]
    pub tls_secret: Option<String>,

    /// File with the authority (PEM) that must have signed the certificate of each client; read again when it changes. Without it,
    /// clients need no certificate
    #[arg(long, env = "BERTH_WEBHOOK_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,

    /// MutatingWebhookConfiguration that gets the authority's certificate (with --tls-secret)
    #[arg(long, default_value = "berth", value_name = "NAME")]
    pub webhook_configuration: String,

    /// Service that the certificate is issued for (with --tls-secret)
    #[arg(long, default_value = "webhook", value_name = "NAME")]
    pub service: String,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct TestArgs {
        #[command(flatten)]
        webhook: WebhookArgs,
    }

    fn parse(line: &str) -> Result<WebhookArgs, String> {
        let words = std::iter::once("webhook").chain(line.split_whitespace());
        TestArgs::try_parse_from(words).map(|args| args.webhook).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_and_defaults_become_limits() {
        TestArgs::command().debug_assert();
        let args = parse("--tls-secret a --request-timeout 0.5 --max-body-bytes 10").unwrap();
        assert_eq!((args.limits().max_body_bytes, args.limits().read_timeout), (10, Duration::from_millis(500)));
        let args = parse("--tls-cert c --tls-key k").unwrap();
        assert_eq!((args.limits().max_body_bytes, args.tls.webhook_configuration.as_str()), (4 << 20, "berth"));
        assert_eq!(args.tls.client_ca, None);
        assert_eq!(parse("--tls-secret a --client-ca ca.crt").unwrap().tls.client_ca, Some("ca.crt".into()));
    }

    #[test]
    fn exactly_one_source_of_the_certificate_is_required() {
        for (line, expected) in [
            ("", "--tls-cert"),
            ("--tls-cert c", "--tls-key"),
            ("--tls-key k", "--tls-cert"),
            ("--tls-cert c --tls-key k --tls-secret s", "cannot be used with"),
            ("--tls-secret s --request-timeout soon", "not a number of seconds"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
