//! Whether machines can be created for a set, and what became of a machine that is unreachable.

use std::{sync::Arc, time::Duration};

use berth_core::api::{Server, VMReplicaSet};
use berth_iaas::{Classes, Place, ProviderMachinePhase, UnusableClass};
use berth_machine::{
    Connector, MachineError,
    ping::{BootInfo, ping},
};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::sleep;

use super::zone::ZONE_LABEL;

/// When to reconcile a set again whose class waits for a change: no watch reports a changed Secret.
const UNUSABLE: Duration = Duration::from_mins(1);
/// When to reconcile a set again whose class's provider does not answer: soon enough that people see it go on.
const UNAVAILABLE: Duration = Duration::from_secs(8);
/// How long a knock may take, connecting included: the script does next to nothing.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// How often it is knocked until a machine counts as silent. An SSH server that starts anew, or has as many logins as it allows,
/// refuses one connection and takes the next.
const KNOCKS: usize = 2;
/// How long to wait before the next knock.
const BETWEEN_KNOCKS: Duration = Duration::from_secs(2);

/// Why no machines can be created for a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMachines {
    /// Reason of a condition.
    pub reason: &'static str,
    /// Human-readable explanation, with the name of the class.
    pub message: String,
    /// Whether it may pass without a change of what is declared or configured.
    pub is_temporary: bool,
    /// How many Servers may be created all the same.
    pub room: usize,
}

impl NoMachines {
    pub(super) fn requeue_after(&self) -> Duration {
        if self.is_temporary { UNAVAILABLE } else { UNUSABLE }
    }
}

impl From<UnusableClass> for NoMachines {
    fn from(class: UnusableClass) -> Self {
        Self { reason: class.reason, message: class.message, is_temporary: class.is_temporary, room: 0 }
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

/// Where machines come from, and what became of them.
pub trait MachineSource: Send + Sync {
    /// Whether machines can be created for the set.
    fn check<'a>(&'a self, set: &'a VMReplicaSet) -> BoxFuture<'a, Result<(), NoMachines>>;
    /// What became of the Server's machine, or why the provider does not say.
    fn find<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<MachineAtProvider, String>>;
    /// Knocks at the machine by SSH, over a new connection, and once more if it does not answer. Says whether the machine answers:
    /// one with the pinned host key does if it can be talked to at all, even if it cannot do what it is asked to.
    fn knock<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, bool>;
    /// The zone of the machines of this class, if the class says so.
    fn zone(&self, class: &str) -> Option<String>;
}

/// The machines of the MachineClasses of a cluster, reached by SSH.
#[derive(Clone)]
pub struct ClassMachines {
    classes: Classes,
    connector: Arc<dyn Connector>,
}

impl ClassMachines {
    /// Machines of these classes, to which `connector` leads.
    #[must_use]
    pub fn new(classes: Classes, connector: Arc<dyn Connector>) -> Self {
        Self { classes, connector }
    }
}

impl MachineSource for ClassMachines {
    fn check<'a>(&'a self, set: &'a VMReplicaSet) -> BoxFuture<'a, Result<(), NoMachines>> {
        async move {
            let machine = &set.spec.template.spec.machine;
            self.classes.usable_for(set.namespace(), machine).await.map_err(NoMachines::from)
        }
        .boxed()
    }

    fn find<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, Result<MachineAtProvider, String>> {
        async move {
            let class = &server.spec.machine.class_name;
            let connection = match Place::of_machine(server) {
                Some(place) => self.classes.connection_to(class, &place).await.map(|(_, connection)| connection),
                None => self.classes.connection(class).await.map(|(_, connection)| connection),
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

    fn knock<'a>(&'a self, server: &'a Server) -> BoxFuture<'a, bool> {
        knock(&*self.connector, server).boxed()
    }

    fn zone(&self, class: &str) -> Option<String> {
        self.classes.get(class)?.metadata.labels.as_ref()?.get(ZONE_LABEL).cloned()
    }
}

/// See [`MachineSource::knock`].
async fn knock(connector: &dyn Connector, server: &Server) -> bool {
    for knock in 0..KNOCKS {
        if knock > 0 {
            sleep(BETWEEN_KNOCKS).await;
        }
        // A connection from before the machine was lost would say nothing about now.
        connector.forget(server);
        let Ok(connection) = connector.connect(server) else { return false };
        if is_answer(&ping(&*connection.machine, PING_LIMIT).await) {
            return true;
        }
    }
    false
}

/// Whether the Server's own machine has answered in whatever way.
fn is_answer(result: &Result<BootInfo, MachineError>) -> bool {
    match result {
        // Over a new connection a command runs only after the login: the machine has shown the pinned host key before it broke.
        Ok(_) | Err(MachineError::ConnectionLost { .. }) => true,
        // Whatever answers there is not this machine.
        Err(MachineError::HostKeyMismatch { .. }) => false,
        Err(error) => !error.is_unreachable(),
    }
}

#[cfg(test)]
mod tests {
    use berth_machine::SshPhase;

    use super::*;

    #[test]
    fn a_machine_answers_if_it_can_be_talked_to_at_all() {
        let address = || "127.0.0.1:22".to_owned();
        let reason = || "x".to_owned();
        let late = |phase| MachineError::Timeout { address: address(), phase, after: PING_LIMIT };
        for (error, answers) in [
            (MachineError::Unreachable { address: address(), reason: reason() }, false),
            (late(SshPhase::Handshake), false),
            (late(SshPhase::Authentication), false),
            (late(SshPhase::Session), false),
            (MachineError::HostKeyMismatch { address: address(), expected: "a".into(), actual: "b".into() }, false),
            // It has shown the pinned host key.
            (late(SshPhase::Command), true),
            (MachineError::ConnectionLost { address: address(), reason: reason() }, true),
            (MachineError::AuthRefused { address: address(), user: "berth".into() }, true),
            (MachineError::Command { status: 1, signal: None, stderr: "read-only file system".into() }, true),
        ] {
            let result = Err(error);
            assert_eq!(is_answer(&result), answers, "{result:?}");
        }
        assert!(is_answer(&Ok(BootInfo { boot_id: "b".into(), uptime: None })));
    }
}
