//! The tasks that replicaset-controller carries out on machines: look first, act only on a difference, report what is.

mod create;
mod destroy;
mod finished;
mod install;
mod machine;
mod reboot;

use std::sync::Arc;

use berth_core::api::{MachineClass, Outcome, Server, TaskKind};
use berth_machine::ssh::SshPool;

use crate::iaas::Providers;
pub use finished::Finished;

/// What the tasks work with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Where machines come from.
    pub providers: Providers,
    /// The way to the machines.
    pub pool: SshPool,
    /// OpenSSH public key line that machines are to accept.
    pub authorized_key: String,
    /// Name of this cluster.
    pub cluster: String,
}

/// Carries a task out. `class` is the Server's MachineClass as it is now, if there is one.
pub async fn carry_out(tools: &Tools, server: &Server, class: Option<Arc<MachineClass>>, kind: TaskKind) -> Finished {
    let class = class.as_deref();
    match kind {
        TaskKind::CreateMachine => create::create(tools, server, class).await,
        TaskKind::InstallPackages => install::install(tools, server).await,
        TaskKind::RebootMachine => reboot::reboot(tools, server, class).await,
        TaskKind::DestroyMachine => destroy::destroy(tools, server, class).await,
        other => Finished::new(Outcome::Failed, format!("replicaset-controller does not know how to do {other}")),
    }
}
