//! CreateMachine: creates the machine and waits until it answers.

use berth_core::{
    api::TaskKind,
    protocol::{Fact, TaskResult},
};
use berth_iaas::{MachineOwner, MachineRequest, ProviderCapacity};

use super::{
    attempt::{Attempt, unless_cancelled},
    reachable::wait_until_reachable,
};

/// The port of SSH when no class says another one.
const SSH_PORT: i32 = 22;

pub(super) async fn create(attempt: &Attempt<'_>) -> Result<TaskResult, TaskResult> {
    let request = request(attempt)?;
    let machine = attempt.answer(attempt.provider.connection.provider.create(&request).await)?;
    attempt.slot.report(ProviderCapacity::Available);
    let fact = unless_cancelled(attempt.cancel, wait_until_reachable(attempt, machine)).await?;
    let address = fact.address.as_deref().unwrap_or_default();
    let result = TaskResult::succeeded(format!("the machine runs at {address}"));
    Ok(result.with(Fact::Machine(fact)).and_claim(TaskKind::InstallPackages))
}

fn request(attempt: &Attempt<'_>) -> Result<MachineRequest, TaskResult> {
    let (server, declared) = (attempt.server, &attempt.server.spec.machine);
    let class = attempt.provider.class.as_ref().map(|class| &class.spec);
    let port = class.map_or(SSH_PORT, |class| class.access.port);
    Ok(MachineRequest {
        owner: MachineOwner {
            cluster: attempt.context.cluster.clone(),
            namespace: server.namespace().to_owned(),
            name: server.name().to_owned(),
            uid: attempt.uid()?.to_owned(),
        },
        image: declared.image.clone().or_else(|| class.and_then(|class| class.image.clone())),
        flavor: declared.flavor.clone().or_else(|| class.and_then(|class| class.flavor.clone())),
        ssh_port: u16::try_from(port)
            .map_err(|_| TaskResult::retry(format!("spec.access.port of the MachineClass: {port} is not a port")))?,
        authorized_key: attempt.context.authorized_key.clone(),
    })
}
