//! The command-line arguments that all binaries have in common.

use std::{net::SocketAddr, path::PathBuf};

use berth_core::identity::Identities;
use clap::{Args, Parser, ValueEnum};

/// The command-line arguments of a binary.
pub trait Arguments: Parser {
    /// The arguments that all binaries have in common.
    fn common(&self) -> &CommonArgs;
}

/// Format of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The command-line arguments that all binaries have in common.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// Kubeconfig file; without it the ServiceAccount of the pod is used
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of Berth's ServiceAccounts
    #[arg(long, env = "BERTH_NAMESPACE", default_value = "berth-system", value_name = "NAME")]
    pub berth_namespace: String,
    /// Format of the logs
    #[arg(long, env = "BERTH_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as `info,kube=debug`
    #[arg(long, env = "BERTH_LOG", default_value = "info", value_name = "FILTER")]
    pub log_level: String,
    /// Address for /metrics, /healthz and /readyz
    #[arg(long, env = "BERTH_HTTP_ADDRESS", default_value = "0.0.0.0:8080", value_name = "IP:PORT")]
    pub http_address: SocketAddr,
    /// Name of this copy, such as that of its pod; a random part is added to it at each start
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub instance: Option<String>,
    /// How many objects are reconciled at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    pub concurrency: u16,
    /// Seconds after which a call to the API server has failed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=300), value_name = "SECONDS")]
    pub call_timeout: u32,
    /// Seconds for which a Server's lock is claimed; it is renewed after half of them
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i32).range(5..=3600), value_name = "SECONDS")]
    pub lock_seconds: i32,
}

impl CommonArgs {
    /// Which users are Berth's controllers.
    #[must_use]
    pub fn identities(&self) -> Identities {
        Identities { namespace: self.berth_namespace.clone() }
    }

    /// A new name for this process, which no other copy and no earlier process of this copy has: with 64 random bits. A
    /// restarted container would otherwise pass for the holder of a lock whose work may still be going on.
    #[must_use]
    pub fn new_instance(&self) -> String {
        let random = format!("{:016x}", rand::random::<u64>());
        self.instance.as_ref().map_or_else(|| random.clone(), |name| format!("{name}-{random}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        common: CommonArgs,
    }

    fn parse(line: &str) -> Result<CommonArgs, clap::Error> {
        Program::try_parse_from(std::iter::once("program").chain(line.split_whitespace())).map(|p| p.common)
    }

    #[test]
    fn clap_accepts_the_definitions() {
        Program::command().debug_assert();
    }

    #[test]
    fn arguments_and_defaults_are_parsed() {
        let args = parse("--http-address 127.0.0.1:9 --log-format json --instance a --concurrency 3").unwrap();
        assert_eq!(args.http_address, "127.0.0.1:9".parse().unwrap());
        assert_eq!((args.log_format, args.instance.as_deref(), args.concurrency), (LogFormat::Json, Some("a"), 3));
        assert_eq!((args.call_timeout, args.lock_seconds), (10, 30));
        assert_eq!(args.identities(), Identities::default());
    }

    #[test]
    fn every_start_of_a_copy_has_a_name_of_its_own() {
        for line in ["", "--instance lb-controller-7d9f"] {
            let args = parse(line).unwrap();
            let (first, second) = (args.new_instance(), args.new_instance());
            assert_ne!(first, second);
            assert!(first.starts_with(args.instance.as_deref().unwrap_or_default()), "{first}");
        }
    }

    #[test]
    fn invalid_values_are_refused_with_the_argument_and_what_is_allowed() {
        for (line, argument, allowed) in [
            ("--concurrency 0", "--concurrency", "1..=1024"),
            ("--lock-seconds 1", "--lock-seconds", "5..=3600"),
            ("--log-format xml", "--log-format", "json"),
            ("--http-address nowhere", "--http-address", "invalid socket address"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(argument) && error.contains(allowed), "{error}");
        }
    }
}
