//! Machines in memory by id, beside those behind SSH: for tests of scale, where every step succeeds at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{
    Machine, Output, Result,
    fake::FakeMachine,
    ssh::{SshMachine, SshPool, SshTarget},
};

/// How the ids of simulated machines begin, as Servers have them.
pub const PREFIX: &str = "simulated/";

/// Machines in memory. Clones are the same. What is done on them is known to this process alone.
#[derive(Clone, Debug, Default)]
pub struct Fleet(Arc<Mutex<HashMap<String, FakeMachine>>>);

impl Fleet {
    /// The machine with this id; a fresh one if it was not asked for before.
    #[must_use]
    pub fn machine(&self, id: &str) -> FakeMachine {
        self.lock().entry(id.to_owned()).or_default().clone()
    }

    /// Forgets a machine that is gone.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// The way to a machine: to the one in memory if its id says so, else over SSH.
    #[must_use]
    pub fn reach(fleet: Option<&Self>, pool: &SshPool, id: Option<&str>, target: SshTarget) -> Reached {
        match (fleet, id.filter(|id| id.starts_with(PREFIX))) {
            (Some(fleet), Some(id)) => Reached::Simulated(fleet.machine(id)),
            _ => Reached::Ssh(pool.machine(target)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, FakeMachine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine, wherever it is.
#[derive(Clone, Debug)]
pub enum Reached {
    /// Behind SSH.
    Ssh(SshMachine),
    /// In memory.
    Simulated(FakeMachine),
}

impl Machine for Reached {
    fn exec<'a>(&'a self, script: &'a str, stdin: Option<Bytes>, timeout: Duration) -> BoxFuture<'a, Result<Output>> {
        match self {
            Self::Ssh(machine) => machine.exec(script, stdin, timeout),
            Self::Simulated(machine) => machine.exec(script, stdin, timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ping::ping,
        ssh::{ClientKey, PoolConfig},
    };

    #[tokio::test]
    async fn only_a_simulated_id_leads_to_a_machine_in_memory_and_only_where_that_is_wanted() {
        let pool = SshPool::new(ClientKey::generate().unwrap(), PoolConfig::default());
        let target = || SshTarget {
            address: "127.0.0.1".into(),
            port: 1,
            user: "berth".into(),
            host_key: ClientKey::generate().unwrap().public_openssh().unwrap(),
        };
        let fleet = Fleet::default();
        let limit = Duration::from_secs(5);
        for (fleet, id, simulated) in [
            (Some(&fleet), Some("simulated/u"), true),
            (Some(&fleet), Some("local/u"), false),
            (Some(&fleet), None, false),
            (None, Some("simulated/u"), false),
        ] {
            let machine = Fleet::reach(fleet, &pool, id, target());
            assert_eq!(ping(&machine, limit).await.is_ok(), simulated, "{id:?}");
        }
        fleet.machine("simulated/u").reboot();
        let again = Fleet::reach(Some(&fleet), &pool, Some("simulated/u"), target());
        assert_eq!(ping(&again, limit).await.unwrap().boot_id, "fake-1");
        fleet.forget("simulated/u");
        assert_eq!(fleet.machine("simulated/u").state().boot, 0);
    }
}
