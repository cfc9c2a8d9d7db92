//! Whether machines can be created for a set, and what became of a machine that is unreachable.

use std::{fmt, time::Duration};

use berth_core::api::{Server, VMReplicaSet};
use berth_iaas::{Classes, Place, ProviderMachinePhase, UnusableClass};
use futures::{FutureExt as _, future::BoxFuture};

/// When to reconcile a set again whose class waits for a change: no watch reports a changed Secret.
const UNUSABLE: Duration = Duration::from_mins(1);
/// When to reconcile a set again whose class's provider does not answer: soon enough that people see it go on.
const UNAVAILABLE: Duration = Duration::from_secs(8);

/// Why no machines can be created for a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMachines {
    /// Reason of a condition.
    pub reason: &'static str,
    /// Human-readable explanation, with the name of the class.
    pub message: String,
    /// Whether it may pass without a change of what is declared or configured.
    pub is_temporary: bool,
}

impl NoMachines {
    pub(super) fn requeue_after(&self) -> Duration {
        if self.is_temporary { UNAVAILABLE } else { UNUSABLE }
    }
}

impl From<UnusableClass> for NoMachines {
    fn from(class: UnusableClass) -> Self {
        Self { reason: class.reason, message: class.message, is_temporary: class.is_temporary }
    }
}

/// What the provider says about the machine of a Server that is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineAtProvider {
    /// There is none.
    Gone,
    /// It does not run.
    Stopped,
    /// It runs, or is about to.
    Running,
}

impl fmt::Display for MachineAtProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "is gone",
            Self::Stopped => "is stopped",
            Self::Running => "runs",
        })
    }
}

/// Where machines come from.
pub trait MachineSource: Send + Sync {
    /// Whether machines can be created for the set.
    fn check<'a>(&'a self, set: &'a VMReplicaSet) -> BoxFuture<'a, Result<(), NoMachines>>;
    /// What became of the Server's machine, or why the provider does not say.
    fn find<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<MachineAtProvider, String>>;
}

impl MachineSource for Classes {
    fn check<'a>(&'a self, set: &'a VMReplicaSet) -> BoxFuture<'a, Result<(), NoMachines>> {
        async move {
            let class = &set.spec.template.spec.machine.class_name;
            self.usable(class).await.map_err(NoMachines::from)
        }
        .boxed()
    }

    fn find<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<MachineAtProvider, String>> {
        async move {
            let class = &server.spec.machine.class_name;
            let connection = match Place::of_machine(server) {
                Some(place) => self.connection_to(class, &place).await.map(|(_, connection)| connection),
                None => self.connection(class).await.map(|(_, connection)| connection),
            };
            let connection = connection.map_err(|unusable| unusable.message)?;
            match connection.provider.get(server.uid()).await.map_err(|error| error.to_string())? {
                None => Ok(MachineAtProvider::Gone),
                Some(machine) if machine.phase == ProviderMachinePhase::Stopped => Ok(MachineAtProvider::Stopped),
                Some(_) => Ok(MachineAtProvider::Running),
            }
        }
        .boxed()
    }
}
