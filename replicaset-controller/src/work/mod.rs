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
use finished::Failure;
pub use finished::Finished;
use tokio_util::sync::CancellationToken;

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
///
/// On `cancel` it comes to a halt. What a provider has been asked for is waited for all the same: a creation that went
/// on after the machine's destruction was begun would leave a machine behind.
pub async fn carry_out(
    tools: &Tools,
    server: &Server,
    class: Option<Arc<MachineClass>>,
    kind: TaskKind,
    cancel: &CancellationToken,
) -> Finished {
    let class = class.as_deref();
    match kind {
        TaskKind::CreateMachine => create::create(tools, server, class, cancel).await,
        TaskKind::InstallPackages => {
            let work = async { Ok(install::install(tools, server).await) };
            unless_cancelled(cancel, work).await.unwrap_or_else(Finished::from)
        }
        TaskKind::RebootMachine => reboot::reboot(tools, server, class, cancel).await,
        TaskKind::DestroyMachine => destroy::destroy(tools, server, class).await,
        other => Finished::new(Outcome::Failed, format!("replicaset-controller does not know how to do {other}")),
    }
}

/// What `work` comes to, or that it was stopped.
async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        result = work => result,
        () = cancel.cancelled() => Err(Failure::retry("stopped before it was done")),
    }
}
