//! The provider of a Server's machine.

use std::sync::Arc;

use berth_core::api::{MachineClass, Server, TaskKind};
use berth_iaas::{Classes, ProviderConnection, UnusableClass};

/// The provider of a Server's machine.
#[derive(Clone, Debug)]
pub(super) struct MachineProvider {
    /// The Server's MachineClass as it is now; none when it is gone or names another provider by now, so that the machine can
    /// only be rebooted or destroyed.
    pub(super) class: Option<Arc<MachineClass>>,
    /// Name of the provider.
    pub(super) name: String,
    /// The connection to it.
    pub(super) connection: ProviderConnection,
}

/// The provider of the Server's machine, if a task of this kind needs it.
///
/// # Errors
/// When the provider cannot be used.
pub(super) async fn provider_for_task(
    classes: &Classes,
    server: &Server,
    kind: TaskKind,
) -> Result<Option<MachineProvider>, UnusableClass> {
    let class = &server.spec.machine.class_name;
    match kind {
        TaskKind::CreateMachine => of_class(classes, class).await.map(Some),
        TaskKind::RebootMachine | TaskKind::DestroyMachine => {
            of_existing_machine(classes, server, class).await.map(Some)
        }
        _ => Ok(None),
    }
}

async fn of_class(classes: &Classes, class: &str) -> Result<MachineProvider, UnusableClass> {
    let (class, connection) = classes.usable_connection(class).await?;
    Ok(MachineProvider { name: class.spec.provider.clone(), class: Some(class), connection })
}

/// The provider that created the machine: through the Server's class while that still names it.
async fn of_existing_machine(
    classes: &Classes,
    server: &Server,
    class: &str,
) -> Result<MachineProvider, UnusableClass> {
    let id = server.machine().and_then(|machine| machine.id.as_deref()).and_then(|id| id.split_once('/'));
    let Some((provider, _)) = id else { return of_class(classes, class).await };
    if classes.get(class).is_none_or(|class| class.spec.provider != provider) {
        return without_class(classes, class, provider);
    }
    match of_class(classes, class).await {
        // A mistake in the class must not keep the machine alive if its provider needs nothing of the class.
        Err(problem) if !problem.is_temporary => without_class(classes, class, provider).map_err(|_| problem),
        found => found,
    }
}

fn without_class(classes: &Classes, class: &str, provider: &str) -> Result<MachineProvider, UnusableClass> {
    let connection = classes.without_class(class, provider)?;
    Ok(MachineProvider { class: None, name: provider.to_owned(), connection })
}
