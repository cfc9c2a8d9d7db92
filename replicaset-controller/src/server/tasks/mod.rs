//! The tasks that replicaset-controller carries out on machines. Each looks first, acts only on a difference, and reports
//! what is true afterwards.

mod attempt;
mod context;
mod create_machine;
mod destroy_machine;
pub(crate) mod install_packages;
mod provider;
mod reachable;
mod reboot_machine;
mod resources;

use berth_core::{
    api::{Server, TaskKind},
    protocol::TaskResult,
};
use tokio_util::sync::CancellationToken;

use attempt::Attempt;
pub use context::TaskContext;
pub use resources::{TaskResources, acquire};

/// Carries out a task of this kind with the resources that were acquired for it.
///
/// On `cancel` it stops, but still waits for the provider's answer: a creation that goes on after the machine's destruction
/// has begun would leave a machine behind.
pub async fn carry_out(
    context: &TaskContext,
    server: &Server,
    kind: TaskKind,
    resources: &TaskResources,
    cancel: &CancellationToken,
) -> TaskResult {
    let provider = match &resources.provider {
        Ok(provider) => provider.as_ref(),
        Err(problem) => return TaskResult::failed(problem.message.clone()),
    };
    let attempt = provider.map(|provider| Attempt { context, server, provider, slot: &resources.slot, cancel });
    let result = match (kind, attempt) {
        (TaskKind::InstallPackages, _) => install_packages::install(context, server, cancel).await,
        (TaskKind::CreateMachine, Some(attempt)) => create_machine::create(&attempt).await,
        (TaskKind::RebootMachine, Some(attempt)) => reboot_machine::reboot(&attempt).await,
        (TaskKind::DestroyMachine, Some(attempt)) => destroy_machine::destroy(&attempt).await,
        (other, _) => Err(TaskResult::failed(format!("replicaset-controller cannot carry out {other}"))),
    };
    result.unwrap_or_else(|failed| failed)
}
