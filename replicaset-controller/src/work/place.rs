//! Where a Server's machine is made.

use std::sync::Arc;

use berth_core::api::{MachineClass, Server, TaskKind};

use super::{finished::Failure, machine::fact};
use crate::iaas::{self, ClassProblem, Classes, Connection};

/// Where a Server's machine is made, and as what.
#[derive(Clone, Debug)]
pub struct Place {
    /// The Server's MachineClass as it is now. None when it is gone or names another provider by now: then the machine
    /// can only be rebooted or destroyed.
    pub class: Option<Arc<MachineClass>>,
    /// Name of the provider.
    pub provider: String,
    /// The provider.
    pub connection: Connection,
}

impl Place {
    /// What the provider answered. A failure that may be due to its end or to the credentials brings another check.
    pub(super) fn answer<T>(&self, answer: iaas::Result<T>) -> Result<T, Failure> {
        if let Err(iaas::Error::Retryable(_) | iaas::Error::Credentials(_)) = &answer {
            self.connection.doubt();
        }
        Ok(answer?)
    }
}

/// Where the machine is made, if a task of this kind has to know.
///
/// # Errors
/// When the provider cannot be used.
pub async fn find(classes: &Classes, server: &Server, kind: TaskKind) -> Result<Option<Place>, ClassProblem> {
    let class = &server.spec.machine.class_name;
    match kind {
        TaskKind::CreateMachine => of_class(classes, class).await.map(Some),
        TaskKind::RebootMachine | TaskKind::DestroyMachine => of_machine(classes, server, class).await.map(Some),
        _ => Ok(None),
    }
}

async fn of_class(classes: &Classes, name: &str) -> Result<Place, ClassProblem> {
    let (class, connection) = classes.usable_connection(name).await?;
    Ok(Place { provider: class.spec.provider.clone(), class: Some(class), connection })
}

/// The provider that the machine is known to come from: through its class while that still names it.
async fn of_machine(classes: &Classes, server: &Server, class: &str) -> Result<Place, ClassProblem> {
    let id = fact(server).and_then(|m| m.id.as_deref()).and_then(|id| id.split_once('/'));
    let Some((provider, _)) = id else { return of_class(classes, class).await };
    if classes.get(class).is_some_and(|class| class.spec.provider == provider) {
        match of_class(classes, class).await {
            // Where the provider needs nothing of the class, what is wrong with it does not keep the machine alive.
            Err(problem) if !problem.is_temporary => {
                return without_class(classes, class, provider).map_err(|_| problem);
            }
            place => return place,
        }
    }
    without_class(classes, class, provider)
}

fn without_class(classes: &Classes, class: &str, provider: &str) -> Result<Place, ClassProblem> {
    let connection = classes.without_class(class, provider)?;
    Ok(Place { class: None, provider: provider.to_owned(), connection })
}
