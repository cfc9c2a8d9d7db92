//! The way to simulated machines, which have no SSH server.

use std::sync::Arc;

use berth_core::api::Server;
use berth_machine::{Connector, MachineConnection, NotConnectable};

use super::machines::{PROVIDER, SimulatedMachines};

/// Connects to simulated machines in memory, and to all others through another connector.
#[derive(Clone)]
pub struct SimulatedConnector {
    machines: SimulatedMachines,
    others: Arc<dyn Connector>,
}

impl SimulatedConnector {
    /// Connects to `machines`, and through `others` to machines of other providers.
    #[must_use]
    pub fn new(machines: SimulatedMachines, others: Arc<dyn Connector>) -> Self {
        Self { machines, others }
    }
}

impl Connector for SimulatedConnector {
    fn connect(&self, server: &Server) -> Result<MachineConnection, NotConnectable> {
        // Simulated machines have an SSH access on paper, too: the other connector checks that it is complete.
        let connection = self.others.connect(server)?;
        Ok(match simulated_id(server) {
            Some(id) => MachineConnection { machine: Arc::new(self.machines.of_server(id)), ..connection },
            None => connection,
        })
    }

    /// A simulated machine exists once in each program.
    fn sees_application(&self, server: &Server) -> bool {
        simulated_id(server).is_none() && self.others.sees_application(server)
    }

    fn forget(&self, server: &Server) {
        self.others.forget(server);
    }
}

/// The id of the Server's machine, if it is a simulated one.
fn simulated_id(server: &Server) -> Option<&str> {
    let machine = server.machine().filter(|machine| machine.provider.as_deref() == Some(PROVIDER))?;
    machine.id.as_deref()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use berth_machine::{
        SshConnector,
        ping::ping,
        ssh::{ClientKey, PoolConfig, SshPool},
    };
    use serde_json::json;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn server(provider: Option<&str>) -> Server {
        let host_key = ClientKey::generate().unwrap().public_openssh().unwrap();
        let ssh = json!({"port": 1, "user": "berth", "hostKey": host_key, "root": "/opt/berth"});
        berth_testing::server(json!({"metadata": {"name": "web-0"},
            "spec": {"machine": {"className": "c"}},
            "status": {"machine": {"phase": "Running", "provider": provider, "id": "u", "address": "127.0.0.1", "ssh": ssh}},
        }))
    }

    fn ssh() -> SshConnector {
        SshConnector::new(SshPool::new(ClientKey::generate().unwrap(), PoolConfig::default()))
    }

    #[tokio::test]
    async fn only_the_simulated_provider_leads_to_a_machine_in_memory() {
        let machines = SimulatedMachines::default();
        let connector = SimulatedConnector::new(machines.clone(), Arc::new(ssh()));
        for (provider, simulated) in [(Some("simulated"), true), (Some("local"), false), (None, false)] {
            let connection = connector.connect(&server(provider)).unwrap();
            assert_eq!(ping(connection.machine.as_ref(), LIMIT).await.is_ok(), simulated, "{provider:?}");
            assert_eq!(connection.root, "/opt/berth");
        }
        machines.of_server("u").reboot();
        let rebooted = connector.connect(&server(Some("simulated"))).unwrap();
        assert_eq!(ping(rebooted.machine.as_ref(), LIMIT).await.unwrap().boot_id, "fake-1");
    }

    #[tokio::test]
    async fn without_a_simulated_connector_no_provider_leads_to_a_machine_in_memory() {
        let connection = ssh().connect(&server(Some("simulated"))).unwrap();
        assert!(ping(connection.machine.as_ref(), LIMIT).await.is_err());
    }
}
