//! The webhook's own arguments.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::router::Limits;

/// The webhook's own arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct WebhookArgs {
    /// Address of the webhook itself (HTTPS, HTTP/2 and HTTP/1.1)
    #[arg(long, default_value = "0.0.0.0:8443", env = "BERTH_WEBHOOK_BIND", value_name = "IP:PORT")]
    pub bind: SocketAddr,

    /// Where the certificate comes from.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// Largest AdmissionReview in bytes that is accepted
    #[arg(long, default_value_t = Limits::default().body, value_name = "BYTES")]
    pub max_body_bytes: usize,

    /// Seconds within which a request must have come; keep it below timeoutSeconds of the MutatingWebhookConfiguration
    #[arg(long, default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub request_timeout: Duration,

    /// Seconds between becoming unready and closing the listener on shutdown, so that nobody is sent here any more
    #[arg(long, default_value = "3", value_parser = seconds, value_name = "SECONDS")]
    pub shutdown_delay: Duration,

    /// Seconds for requests in flight to finish on shutdown
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    pub drain_timeout: Duration,
}

impl WebhookArgs {
    /// What a request may cost.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { body: self.max_body_bytes, time: self.request_timeout }
    }
}

/// Where the certificate comes from: files, or a Secret with an authority of the webhook's own.
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

    /// File with the certificate's key (PEM); read again when it changes
    #[arg(long, requires = "tls_cert", conflicts_with = "tls_secret", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Secret in Berth's namespace with the webhook's own authority and certificate; created and renewed by the webhook
    #[arg(long, value_name = "NAME")]
    pub tls_secret: Option<String>,

    /// MutatingWebhookConfiguration that the authority's certificate is written to (with --tls-secret)
    #[arg(long, default_value = "berth", value_name = "NAME")]
    pub webhook_configuration: String,

    /// Service that the certificate is made out for (with --tls-secret)
    #[arg(long, default_value = "webhook", value_name = "NAME")]
    pub service: String,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        webhook: WebhookArgs,
    }

    fn parse(line: &str) -> Result<WebhookArgs, String> {
        let words = std::iter::once("webhook").chain(line.split_whitespace());
        Program::try_parse_from(words).map(|program| program.webhook).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_read() {
        Program::command().debug_assert();
        let args = parse("--tls-secret a --request-timeout 0.5 --max-body-bytes 10").unwrap();
        assert_eq!((args.limits().body, args.limits().time), (10, Duration::from_millis(500)));
        let args = parse("--tls-cert c --tls-key k").unwrap();
        assert_eq!((args.limits().body, args.tls.webhook_configuration.as_str()), (8 << 20, "berth"));
    }

    #[test]
    fn a_certificate_comes_from_exactly_one_place() {
        for (line, said) in [
            ("", "--tls-cert"),
            ("--tls-cert c", "--tls-key"),
            ("--tls-key k", "--tls-cert"),
            ("--tls-cert c --tls-key k --tls-secret s", "cannot be used with"),
            ("--tls-secret s --request-timeout soon", "no number of seconds"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
