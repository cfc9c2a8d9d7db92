//! Reads what is installed on a machine. Takes no lock and changes nothing.

use std::time::Duration;

use berth_core::{
    api::{EnvironmentFact, Server},
    protocol::TaskResult,
};
use berth_machine::{
    Machine,
    inventory::{self, DeclaredPackage, Inventory},
};

use super::{declared, environment};
use crate::server::tasks::context::TaskContext;

/// For one script that reads everything, including the checks of script packages, which should take seconds.
const READ_LIMIT: Duration = Duration::from_mins(1);

/// What is installed on the Server's machine, for a check outside of a task.
///
/// # Errors
/// Why it cannot be read, for people.
pub(crate) async fn read_environment(context: &TaskContext, server: &Server) -> Result<EnvironmentFact, String> {
    let read = async {
        let connection = context.connector.connect(server)?;
        let declared = declared::packages(server)?;
        let inventory = read_inventory(connection.machine.as_ref(), &connection.root, &declared).await?;
        Ok(environment::fact(&declared, &inventory))
    };
    read.await.map_err(|failed: TaskResult| failed.message)
}

/// What is installed on a machine.
pub(super) async fn read_inventory(
    machine: &dyn Machine,
    root: &str,
    declared: &[DeclaredPackage],
) -> berth_machine::Result<Inventory> {
    inventory::read(machine, root, declared, READ_LIMIT).await
}
