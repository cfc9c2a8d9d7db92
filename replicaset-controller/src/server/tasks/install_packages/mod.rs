//! InstallPackages: makes the machine's packages those that are declared, and reads back what is installed.
//!
//! One script reads everything at once. Then one script runs for each package that has to change (one for all packages of
//! apt, and one for all of dnf), and one that reads back. A machine that is as declared costs a single round trip.

mod apply;
mod declared;
mod environment;
mod read;
#[cfg(test)]
mod tests;

use berth_core::{
    api::{EnvironmentFact, MachineFact, Server},
    protocol::{Fact, TaskResult},
};
use berth_machine::{Machine, inventory::Inventory, unless_cancelled};
use tokio_util::sync::CancellationToken;

use super::context::TaskContext;
use apply::Installer;
pub(crate) use environment::difference;
pub(crate) use read::read_environment;

pub(super) async fn install(
    context: &TaskContext,
    server: &Server,
    cancel: &CancellationToken,
) -> Result<TaskResult, TaskResult> {
    let connection = context.connector.connect(server)?;
    let (machine, root) = (connection.machine.as_ref(), connection.root.as_str());
    let work = async { install_on(machine, root, server).await.unwrap_or_else(|failed| failed) };
    Ok(unless_cancelled(machine, root, cancel.cancelled(), work).await)
}

/// Installs the declared packages on a machine. What is installed is reported also after a failure, as far as it can be
/// read.
async fn install_on(machine: &dyn Machine, root: &str, server: &Server) -> Result<TaskResult, TaskResult> {
    let declared = declared::packages(server)?;
    let read = || read::read_inventory(machine, root, &declared);
    let before = read().await.map_err(|error| TaskResult::from(error).at("reading what is installed"))?;
    let mut installer = Installer::new(machine, root, &declared);
    let applied = installer.apply(&before, server.spec.prune_packages).await;
    let changes = installer.changes;
    let after = if applied.is_ok() && changes.is_empty() { Ok(before) } else { read().await };
    match (applied, after) {
        (Ok(()), Ok(after)) => verify(server, environment::fact(&declared, &after), &after, &changes),
        (Err(failed), Ok(after)) => {
            Err(with_facts(failed, server, unverified(environment::fact(&declared, &after)), &after))
        }
        (Ok(()), Err(error)) => Err(TaskResult::from(error).at("reading back what is installed")),
        (Err(failed), Err(_)) => Err(failed),
    }
}

/// Whether the machine is now as declared: every step may have succeeded, and one undone what another did.
fn verify(
    server: &Server,
    environment: EnvironmentFact,
    after: &Inventory,
    changes: &[String],
) -> Result<TaskResult, TaskResult> {
    match difference(server, &environment) {
        None => Ok(with_facts(TaskResult::succeeded(summary(server, changes)), server, environment, after)),
        Some(difference) => {
            let failed = TaskResult::retry(format!("after all was done the machine is not as declared: {difference}"));
            Err(with_facts(failed, server, unverified(environment), after))
        }
    }
}

fn unverified(environment: EnvironmentFact) -> EnvironmentFact {
    EnvironmentFact { verified: false, ..environment }
}

fn with_facts(result: TaskResult, server: &Server, environment: EnvironmentFact, after: &Inventory) -> TaskResult {
    let result = result.with(Fact::Environment(environment));
    match rebooted(server, after) {
        Some(machine) => result.with(Fact::Machine(machine)),
        None => result,
    }
}

/// The machine, if it was rebooted since it was last read.
fn rebooted(server: &Server, inventory: &Inventory) -> Option<MachineFact> {
    let boot_id = Some(inventory.machine.boot_id.clone());
    let known = server.machine().filter(|known| known.boot_id != boot_id)?;
    Some(MachineFact { boot_id, ..known.clone() })
}

fn summary(server: &Server, changes: &[String]) -> String {
    if changes.is_empty() {
        format!("the {} declared packages are installed", server.spec.packages.len())
    } else {
        changes.join(", ")
    }
}
