//! The arguments that every binary takes.

use std::{net::SocketAddr, path::PathBuf};

use berth_core::identity::Identities;
use clap::{Args, Parser, ValueEnum};

/// The arguments of a binary.
pub trait Arguments: Parser {
    /// Those that every binary takes.
    fn common(&self) -> &CommonArgs;
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The arguments that every binary takes.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// Kubeconfig file; without one, the ServiceAccount of the pod
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of Berth's ServiceAccounts
    #[arg(long, env = "BERTH_NAMESPACE", default_value = "berth-system", value_name = "NAME")]
    pub berth_namespace: String,
    /// How logs are written
    #[arg(long, env = "BERTH_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as `info,kube=debug`
    #[arg(long, env = "BERTH_LOG", default_value = "info", value_name = "FILTER")]
    pub log_level: String,
    /// Address for /metrics, /healthz and /readyz
    #[arg(long, env = "BERTH_HTTP_ADDRESS", default_value = "0.0.0.0:8080", value_name = "IP:PORT")]
    pub http_address: SocketAddr,
    /// Name of this instance, unique among the copies of this binary
    #[arg(long, env = "POD_NAME", default_value_t = random_instance(), hide_default_value = true, value_name = "NAME")]
    pub instance: String,
    /// Objects that are worked on at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    pub concurrency: u16,
    /// Seconds that one call of the API server may take
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=300), value_name = "SECONDS")]
    pub call_timeout: u32,
    /// Seconds that a Server's lock is taken for; it is renewed at half of that
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i32).range(5..=3600), value_name = "SECONDS")]
    pub lock_seconds: i32,
}

impl CommonArgs {
    /// Which users Berth's controllers are.
    #[must_use]
    pub fn identities(&self) -> Identities {
        Identities { namespace: self.berth_namespace.clone() }
    }
}

/// A name that another copy is not going to have.
fn random_instance() -> String {
    format!("{:016x}", rand::random::<u64>())
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
    fn the_arguments_are_consistent() {
        Program::command().debug_assert();
    }

    #[test]
    fn arguments_are_read() {
        let args = parse("--http-address 127.0.0.1:9 --log-format json --instance a --concurrency 3").unwrap();
        assert_eq!(args.http_address, "127.0.0.1:9".parse().unwrap());
        assert_eq!((args.log_format, args.instance.as_str(), args.concurrency), (LogFormat::Json, "a", 3));
        assert_eq!((args.call_timeout, args.lock_seconds), (10, 30));
        assert_eq!(args.identities(), Identities::default());
    }

    #[test]
    fn every_copy_gets_a_name_of_its_own() {
        assert_ne!(random_instance(), random_instance());
    }

    #[test]
    fn bad_values_are_refused_with_the_argument_and_what_is_allowed() {
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
