//! The arguments of deployment-controller.

use std::path::PathBuf;

use berth_runtime::{Arguments, CommonArgs};
use clap::Parser;

/// Maintains the VMReplicaSets of VMDeployments, rolls applications out, and carries out DeployApp tasks.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// The arguments of every controller.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Private key with which Berth logs in to machines: OpenSSH format, ed25519, without a passphrase
    #[arg(long, env = "BERTH_SSH_KEY", value_name = "FILE")]
    pub ssh_key: PathBuf,
    #[cfg(feature = "simulated")]
    /// For tests of scale and of faults: machines of the provider `simulated` exist only in the memory of this process
    #[arg(long, env = "BERTH_SIMULATED")]
    pub simulated: bool,
}

impl Arguments for Args {
    fn common(&self) -> &CommonArgs {
        &self.common
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        super::Args::command().debug_assert();
    }
}
