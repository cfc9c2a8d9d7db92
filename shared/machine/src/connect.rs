//! The way from a Server to its machine.

use std::{fmt, sync::Arc};

use berth_core::api::Server;

use crate::{
    machine::Machine,
    ssh::{SshMachine, SshPool, SshTarget},
};

/// Finds the machine of a Server.
///
/// A trait, so that a provider whose machines have no SSH server (the simulated one) can bring its own way.
pub trait Connector: Send + Sync {
    /// The machine that the Server's `status.machine` names. Does not connect yet: an unreachable machine shows only
    /// when a script runs on it.
    fn connect(&self, server: &Server) -> Result<MachineConnection, NotConnectable>;

    /// Whether what this process sees on the Server's machine includes the application, which another program deploys.
    fn sees_application(&self, _: &Server) -> bool {
        true
    }

    /// Drops everything that is kept open to the Server's machine: a command on a connection to a machine that hangs,
    /// was rebooted or is gone would wait in vain. Does nothing when the Server names no machine.
    fn forget(&self, server: &Server);
}

/// A Server's machine, and the folder on it that belongs to Berth.
#[derive(Clone)]
pub struct MachineConnection {
    /// Runs scripts.
    pub machine: Arc<dyn Machine>,
    /// Berth's folder on the machine: absolute, or relative to the login's home.
    pub root: String,
}

impl fmt::Debug for MachineConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineConnection").field("root", &self.root).finish_non_exhaustive()
    }
}

/// The Server's status lacks the machine's address, its SSH access, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Server does not say how its machine is reached")]
pub struct NotConnectable;

/// Reaches machines over SSH, as the Server's `status.machine.ssh` says.
#[derive(Clone, Debug)]
pub struct SshConnector {
    pool: SshPool,
}

impl SshConnector {
    /// Uses the connections of `pool`.
    #[must_use]
    pub fn new(pool: SshPool) -> Self {
        Self { pool }
    }
}

impl Connector for SshConnector {
    fn connect(&self, server: &Server) -> Result<MachineConnection, NotConnectable> {
        let target = SshTarget::of(server).ok_or(NotConnectable)?;
        let root = root(server).ok_or(NotConnectable)?.to_owned();
        Ok(MachineConnection { machine: Arc::new(SshMachine::new(&self.pool, target)), root })
    }

    fn forget(&self, server: &Server) {
        if let Some(target) = SshTarget::of(server) {
            self.pool.forget(&target);
        }
    }
}

/// Berth's folder on the Server's machine.
fn root(server: &Server) -> Option<&str> {
    Some(&server.status.as_ref()?.machine.as_ref()?.ssh.as_ref()?.root)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ssh::{ClientKey, PoolConfig};

    fn server(machine: &Value) -> Server {
        berth_testing::server(json!({"metadata": {"name": "web-0"},
            "spec": {"machine": {"className": "small"}}, "status": {"machine": machine},
        }))
    }

    fn connector() -> SshConnector {
        SshConnector::new(SshPool::new(ClientKey::generate().unwrap(), PoolConfig::default()))
    }

    #[test]
    fn a_server_that_names_its_ssh_access_is_connectable() {
        let ssh = json!({"port": 2222, "user": "berth", "hostKey": "ssh-ed25519 AAAA", "root": "opt/berth"});
        let server = server(&json!({"phase": "Running", "address": "10.0.0.7", "ssh": ssh}));
        let target = SshTarget::of(&server).unwrap();
        assert_eq!((target.endpoint().as_str(), target.user.as_str()), ("10.0.0.7:2222", "berth"));
        assert_eq!(target.host_key, "ssh-ed25519 AAAA");
        assert_eq!(connector().connect(&server).unwrap().root, "opt/berth");
        connector().forget(&server);
    }

    #[test]
    fn a_server_without_address_or_ssh_access_is_not_connectable() {
        let ssh = json!({"port": 22, "user": "berth", "hostKey": "ssh-ed25519 AAAA", "root": "opt/berth"});
        let bad_port = json!({"port": 70000, "user": "berth", "hostKey": "k", "root": "r"});
        for machine in [
            json!({"phase": "Creating"}),
            json!({"phase": "Running", "address": "10.0.0.7"}),
            json!({"phase": "Running", "ssh": ssh}),
            json!({"phase": "Running", "address": "10.0.0.7", "ssh": bad_port}),
        ] {
            let error = connector().connect(&server(&machine)).unwrap_err();
            assert_eq!(error.to_string(), "the Server does not say how its machine is reached", "{machine}");
        }
    }
}
