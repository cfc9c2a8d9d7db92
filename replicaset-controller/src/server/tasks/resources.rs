//! What a task needs before it is claimed.

use std::time::Duration;

use berth_core::{
    api::{MachineFact, MachinePhase, Server, TaskKind},
    protocol::Fact,
};
use berth_iaas::{Classes, Place, Slot, UnusableClass};

use super::provider::{MachineProvider, provider_for_task};

/// What a task needs before it is claimed.
pub struct TaskResources {
    /// The provider of the Server's machine, for the tasks that need it, or why there is no way to the machine.
    pub(super) provider: Result<Option<MachineProvider>, UnusableClass>,
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
    if let Err(problem) = provider.as_ref()
        && !problem.is_elsewhere()
    {
        let requeue_after = classes.notify_when_usable(server, problem);
        // The class may have become usable just before the notification was asked for.
        provider = provider_for_task(classes, server, kind).await;
        if let Err(problem) = provider.as_ref()
            && !problem.is_elsewhere()
        {
            let (server, reason) = (server.name(), problem.reason);
            tracing::debug!(server, reason, problem = problem.message, "the class cannot be used; nothing is claimed");
            return Err(requeue_after);
        }
    }
    let slot = classes.acquire_slot(server, kind)?;
    Ok(TaskResources { provider, slot })
}

impl TaskResources {
    /// Whether they are enough for a task of this kind. Those of InstallPackages have no provider, and the task that follows it may be
    /// DestroyMachine: when the Server was retired meanwhile.
    #[must_use]
    pub fn suffice_for(&self, kind: TaskKind) -> bool {
        kind == TaskKind::InstallPackages || !matches!(self.provider, Ok(None))
    }

    /// What has to be known as soon as a task of this kind may have an effect: where the machine is that CreateMachine creates.
    #[must_use]
    pub fn facts_of_claim(&self, server: &Server, kind: TaskKind) -> Vec<Fact> {
        let Ok(Some(provider)) = &self.provider else { return Vec::new() };
        let is_known = server.machine().is_some_and(|machine| machine.phase != MachinePhase::Gone);
        if kind != TaskKind::CreateMachine || is_known {
            return Vec::new();
        }
        let Place { provider, place } = provider.connection.place.clone();
        vec![Fact::Machine(MachineFact {
            phase: MachinePhase::Creating,
            provider: Some(provider),
            place: Some(place),
            id: None,
            address: None,
            ssh: None,
            boot_id: None,
            created_at: None,
        })]
    }
}
