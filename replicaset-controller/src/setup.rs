//! Makes, from the arguments, the drivers of providers and the connector to machines.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use berth_iaas::{Drivers, incus::IncusDriver};
use berth_machine::{
    Connector, SshConnector,
    ssh::{ClientKey, PoolConfig, SshPool},
};

use crate::{args::Args, server::tasks::TaskContext};

/// What tasks share, and the drivers of all providers.
///
/// # Errors
/// When the SSH key cannot be read, or a provider cannot be set up.
pub(crate) fn machines(args: &Args, cluster: &str) -> Result<(TaskContext, Drivers)> {
    let key = ClientKey::from_file(&args.ssh_key).context("--ssh-key")?;
    let authorized_key = key.public_openssh()?;
    let connector: Arc<dyn Connector> = Arc::new(SshConnector::new(SshPool::new(key, PoolConfig::default())));
    let drivers = Drivers::default().with("incus", Arc::new(IncusDriver::new(cluster)));
    #[cfg(feature = "local")]
    let drivers = with_local(args, drivers)?;
    #[cfg(feature = "simulated")]
    let (connector, drivers) = with_simulated(args, connector, drivers);
    Ok((TaskContext { connector, authorized_key, cluster: cluster.to_owned() }, drivers))
}

#[cfg(feature = "local")]
fn with_local(args: &Args, drivers: Drivers) -> Result<Drivers> {
    let Some(dir) = &args.local_dir else { return Ok(drivers) };
    let binary = args.local_machine_binary.clone().map_or_else(berth_iaas::local::find_binary, Ok)?;
    Ok(drivers.with("local", Arc::new(berth_iaas::local::LocalProvider::new(dir, binary)?)))
}

#[cfg(feature = "simulated")]
fn with_simulated(args: &Args, others: Arc<dyn Connector>, drivers: Drivers) -> (Arc<dyn Connector>, Drivers) {
    use berth_iaas::simulated::{PROVIDER, SimulatedConnector, SimulatedMachines, Simulation};

    if !args.simulated {
        return (others, drivers);
    }
    tracing::warn!("the provider simulated is on: its machines exist in the memory of this process alone");
    let machines = SimulatedMachines::default();
    let drivers = drivers.with(PROVIDER, Arc::new(Simulation::new(machines.clone())));
    (Arc::new(SimulatedConnector::new(machines, others)), drivers)
}
