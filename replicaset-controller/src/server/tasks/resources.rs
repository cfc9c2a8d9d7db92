//! What a task needs before it is claimed.

use std::time::Duration;

use berth_core::api::{Server, TaskKind};
use berth_iaas::{Classes, Slot};

use super::provider::{MachineProvider, provider_for_task};

/// What a task needs before it is claimed.
pub struct TaskResources {
    /// The provider of the Server's machine, for the tasks that need it.
    pub(super) provider: Option<MachineProvider>,
    /// A slot in the bulkhead of the Server's class.
    pub(super) slot: Slot,
}

/// Acquires what a task of this kind needs.
///
/// # Errors
/// When the class cannot be used or all of its slots are in use: after how long to requeue the Server.
/// [`Classes::notifications`] names it as soon as it may be different.
pub async fn acquire(classes: &Classes, server: &Server, kind: TaskKind) -> Result<TaskResources, Duration> {
    let mut provider = provider_for_task(classes, server, kind).await;
    if let Err(problem) = &provider {
        let requeue_after = classes.notify_when_usable(server, problem);
        // The class may have become usable just before the notification was asked for.
        provider = provider_for_task(classes, server, kind).await;
        if let Err(problem) = &provider {
            let (server, reason) = (server.name(), problem.reason);
            tracing::debug!(server, reason, problem = problem.message, "the class cannot be used; nothing is claimed");
            return Err(requeue_after);
        }
    }
    let slot = classes.acquire_slot(server, kind)?;
    Ok(TaskResources { provider: provider.ok().flatten(), slot })
}
