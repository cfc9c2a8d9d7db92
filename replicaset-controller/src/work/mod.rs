//! The tasks that replicaset-controller carries out on machines: look first, act only on a difference, report what is.

mod create;
mod destroy;
mod finished;
pub(crate) mod install;
mod machine;
mod place;
mod reboot;

use berth_core::api::{Outcome, Server, TaskKind};
use berth_machine::{fleet::Fleet, ssh::SshPool};

use finished::Failure;
pub use finished::{Finished, Room};
pub use place::{Place, find as find_place};
use tokio_util::sync::CancellationToken;

/// What the tasks work with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The way to the machines.
    pub pool: SshPool,
    /// The machines that are simulated, if there are any.
    pub fleet: Option<Fleet>,
    /// OpenSSH public key line that machines are to accept.
    pub authorized_key: String,
    /// Name of this cluster.
    pub cluster: String,
}

/// Carries a task out. `place` is where the machine is made, for the tasks that need it: see [`find_place`].
///
/// On `cancel` it comes to a halt. What a provider has been asked for is waited for all the same: a creation that went
/// on after the machine's destruction was begun would leave a machine behind.
pub async fn carry_out(
    tools: &Tools,
    server: &Server,
    place: Option<&Place>,
    kind: TaskKind,
    cancel: &CancellationToken,
) -> Finished {
    match (kind, place) {
        (TaskKind::InstallPackages, _) => {
            let work = async { Ok(install::install(tools, server).await) };
            unless_cancelled(cancel, work).await.unwrap_or_else(Finished::from)
        }
        (TaskKind::CreateMachine, Some(place)) => create::create(tools, server, place, cancel).await,
        (TaskKind::RebootMachine, Some(place)) => reboot::reboot(tools, server, place, cancel).await,
        (TaskKind::DestroyMachine, Some(place)) => destroy::destroy(tools, server, place).await,
        (other, _) => Finished::new(Outcome::Failed, format!("replicaset-controller does not know how to do {other}")),
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
