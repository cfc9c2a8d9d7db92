//! The arguments of monitor-controller.

use std::net::SocketAddr;

use berth_runtime::{Arguments, CommonArgs};
use clap::Parser;

/// Probes whether machines can be reached and applications are healthy, reports it, and carries out monitoring tasks.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Arguments that all controllers share.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Maximum number of concurrent probes
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=16384), value_name = "N")]
    pub probe_concurrency: u16,
    /// Percentage of lost machines above which this copy may be blind: then it calls no machine unreachable and no application
    /// unhealthy until replicaset-controller confirms the loss or it sees again; 100 turns that off
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "PERCENT")]
    pub blind_share: u8,
    /// Address for /targets, the monitoring targets for Prometheus' HTTP service discovery; not served if it is not given
    #[arg(long, env = "BERTH_TARGETS_ADDRESS", value_name = "IP:PORT")]
    pub targets_address: Option<SocketAddr>,
}

impl Arguments for Args {
    fn common(&self) -> &CommonArgs {
        &self.common
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_consistent_and_bounded() {
        Args::command().debug_assert();
        assert_eq!(Args::try_parse_from(["monitor-controller"]).unwrap().probe_concurrency, 512);
        assert_eq!(Args::try_parse_from(["monitor-controller"]).unwrap().blind_share, 30);
        let error = Args::try_parse_from(["monitor-controller", "--probe-concurrency", "0"]).unwrap_err().to_string();
        assert!(error.contains("--probe-concurrency") && error.contains("1..=16384"), "{error}");
    }
}
