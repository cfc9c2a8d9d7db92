//! The arguments of replicaset-controller.

use std::path::PathBuf;

use berth_runtime::{Arguments, CommonArgs};
use clap::Parser;

/// Creates and retires Servers for VMReplicaSets, rolls environments out, and carries out machine and package tasks.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// The arguments that every controller has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Private key with which Berth logs in to machines: OpenSSH format, ed25519, without a passphrase
    #[arg(long, env = "BERTH_SSH_KEY", value_name = "FILE")]
    pub ssh_key: PathBuf,
    /// Name of this cluster, unique among those that share an IaaS provider; by default the UID of the namespace
    /// kube-system, which is unique
    #[arg(long, env = "BERTH_CLUSTER_NAME", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub cluster_name: Option<String>,
    /// Servers of one VMReplicaSet whose creation may be under way at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    pub max_creating: u16,
    /// Servers that one VMReplicaSet may have at most; a larger `replicas` creates no more
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub max_replicas: usize,
    /// Percent of the Servers of one MachineClass in one zone, counted over all sets: while more of them are unreachable, and
    /// more than two, or all of them, no set reboots, replaces or gives up any of them
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "PERCENT")]
    pub failover_brake: u8,
    #[cfg(feature = "local")]
    /// Folder of the machines of provider `local`, which are processes; without it that provider is off
    #[arg(long, env = "BERTH_LOCAL_DIR", value_name = "DIR")]
    pub local_dir: Option<PathBuf>,
    #[cfg(feature = "local")]
    /// Program that is a machine of provider `local`; by default the one that BERTH_LOCAL_MACHINE names, else
    /// berth-local-machine beside this program
    #[arg(long, value_name = "FILE", requires = "local_dir")]
    pub local_machine_binary: Option<PathBuf>,
    /// Seconds between two comparisons of the providers' machines with the Servers; 0 turns them off
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub orphan_period: u32,
    /// Seconds between two checks of a Ready Server's machine for drift; 0 turns them off
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub drift_interval: u32,
    #[cfg(feature = "simulated")]
    /// Turns on the provider `simulated`, for tests of scale and of faults: its machines exist only in the memory of this
    /// process and end with it
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

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("replicaset-controller").chain(line.split_whitespace()))
    }

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn arguments_have_defaults_and_bounds() {
        let args = parse("--ssh-key k").unwrap();
        assert_eq!(args.drift_interval, 600);
        assert_eq!((args.max_replicas, args.failover_brake), (10_000, 40));
        assert_eq!((args.cluster_name, args.max_creating), (None, 50));
        for (line, argument) in [
            ("", "--ssh-key"),
            ("--ssh-key k --max-creating 0", "--max-creating"),
            ("--ssh-key k --failover-brake 0", "--failover-brake"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(argument), "{error}");
        }
    }

    #[cfg(feature = "local")]
    #[test]
    fn local_machine_binary_requires_local_dir() {
        assert_eq!(parse("--ssh-key k").unwrap().local_dir, None);
        let error = parse("--ssh-key k --local-machine-binary x").unwrap_err().to_string();
        assert!(error.contains("--local-dir"), "{error}");
    }
}
