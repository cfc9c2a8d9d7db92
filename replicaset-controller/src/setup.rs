//! What the arguments bring about: where machines come from, and the way to them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use berth_machine::{
    fleet::Fleet,
    ssh::{ClientKey, PoolConfig, SshPool},
};

use crate::{
    args::Args,
    iaas::{
        Providers,
        incus::IncusDriver,
        local::LocalProvider,
        simulated::{self, Simulation},
    },
    work::Tools,
};

/// The way to machines, and where they come from.
pub(crate) fn machines(args: &Args) -> Result<(Tools, Providers)> {
    let fleet = args.simulated.then(Fleet::default);
    let key = ClientKey::from_file(&args.ssh_key).context("--ssh-key")?;
    let authorized_key = key.public_openssh()?;
    let pool = SshPool::new(key, PoolConfig::default());
    let providers = providers(args, fleet.clone())?;
    Ok((Tools { pool, fleet, authorized_key, cluster: args.cluster_name.clone() }, providers))
}

fn providers(args: &Args, fleet: Option<Fleet>) -> Result<Providers> {
    let mut providers = Providers::default().with("incus", Arc::new(IncusDriver::new(&args.cluster_name)));
    if let Some(dir) = &args.local_dir {
        let binary = args.local_machine_binary.clone().map_or_else(local_machine::find_binary, Ok)?;
        providers = providers.with("local", Arc::new(LocalProvider::new(dir, binary)?));
    }
    if let Some(fleet) = fleet {
        tracing::warn!("the provider simulated is on: its machines exist in the memory of this process alone");
        providers = providers.with(simulated::NAME, Arc::new(Simulation::new(fleet)));
    }
    Ok(providers)
}
