//! The provider of a Server's machine.

use std::sync::Arc;

use berth_core::api::{MachineClass, Server, TaskKind};
use berth_iaas::{Classes, Place, ProviderConnection, UnusableClass};

/// The provider of a Server's machine.
#[derive(Clone, Debug)]
pub(super) struct MachineProvider {
    /// The Server's MachineClass as it is now; none when the machine's place is reached without it, so that the machine can only
    /// be rebooted or destroyed.
    pub(super) class: Option<Arc<MachineClass>>,
    /// The connection to it.
    pub(super) connection: ProviderConnection,
}

/// The provider of the Server's machine, if a task of this kind needs it.
///
/// # Errors
/// When the provider cannot be used, or there is no way to the place where the machine is.
pub(super) async fn provider_for_task(
    classes: &Classes,
    server: &Server,
    kind: TaskKind,
) -> Result<Option<MachineProvider>, UnusableClass> {
    let class = &server.spec.machine.class_name;
    match (kind, Place::of_machine(server)) {
        (TaskKind::CreateMachine, place) => {
            let provider = of_class(classes, class, place.as_ref()).await?;
            // Where a machine may exist, its class was reserved before.
            if place.is_none() {
                classes.reserve(server).await?;
            }
            Ok(Some(provider))
        }
        (TaskKind::RebootMachine | TaskKind::DestroyMachine, None) => of_class(classes, class, None).await.map(Some),
        (TaskKind::RebootMachine | TaskKind::DestroyMachine, Some(place)) => {
            let (class, connection) = classes.connection_to(class, &place).await?;
            Ok(Some(MachineProvider { class, connection }))
        }
        _ => Ok(None),
    }
}

/// The provider that the class names, if that is where the machine is.
async fn of_class(classes: &Classes, class: &str, place: Option<&Place>) -> Result<MachineProvider, UnusableClass> {
    let (class, connection) = classes.usable_connection(class).await?;
    match place.filter(|place| **place != connection.place) {
        Some(place) => Err(UnusableClass::elsewhere(class.name(), place, Some(&connection.place))),
        None => Ok(MachineProvider { class: Some(class), connection }),
    }
}
