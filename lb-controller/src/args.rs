//! The arguments of lb-controller.

use std::net::SocketAddr;

use berth_runtime::{Arguments, CommonArgs};
use clap::Parser;

use crate::panic_floor::PanicThreshold;

/// Carries out traffic tasks on load balancers: registers Servers, releases traffic to them, drains them, and removes them. The
/// load balancers are Services without a selector, by their EndpointSlices, and those of BalancerClasses.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// The arguments that every controller takes.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Milliseconds during which changes of one Service's endpoints are collected, to write them together. Between two writes
    /// for one Service are at least ten times as many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(0..=5000), value_name = "MS")]
    pub batch_window_ms: u16,
    /// Share of a Service's Servers that stays in traffic although probes say that they are sick or silent. The annotation
    /// berth.dev/panic-threshold of a Service outranks it; 0% turns it off
    #[arg(long, default_value_t = PanicThreshold::DEFAULT, value_name = "PERCENT")]
    pub panic_threshold: PanicThreshold,
    /// Address for load balancers: /haproxy/CLASS/BACKEND, the servers of a backend as lines of HAProxy's configuration, which it needs
    /// when it is reloaded or restarted, and /v3/discovery:endpoints, where Envoy asks for its endpoints; not served if it is not given
    #[arg(long, env = "BERTH_SERVERS_ADDRESS", value_name = "IP:PORT")]
    pub servers_address: Option<SocketAddr>,
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
        assert_eq!(Args::try_parse_from(["lb-controller"]).unwrap().batch_window_ms, 50);
        let error = Args::try_parse_from(["lb-controller", "--batch-window-ms", "6000"]).unwrap_err().to_string();
        assert!(error.contains("--batch-window-ms") && error.contains("0..=5000"), "{error}");
        let threshold = |text: &str| Args::try_parse_from(["lb-controller", "--panic-threshold", text]);
        assert_eq!(Args::try_parse_from(["lb-controller"]).unwrap().panic_threshold.to_string(), "50%");
        assert_eq!(threshold("0%").unwrap().panic_threshold.to_string(), "0%");
        let error = threshold("101%").unwrap_err().to_string();
        assert!(error.contains("--panic-threshold") && error.contains("from 0% to 100%"), "{error}");
    }
}
