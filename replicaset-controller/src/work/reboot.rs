//! RebootMachine: reboots the machine hard and waits until SSH answers.

use berth_core::api::{MachineClass, Server};
use tokio_util::sync::CancellationToken;

use super::{
    Finished, Tools,
    finished::Failure,
    machine::{await_ssh, provider_of_machine, target, uid},
    unless_cancelled,
};

pub(super) async fn reboot(
    tools: &Tools,
    server: &Server,
    class: Option<&MachineClass>,
    cancel: &CancellationToken,
) -> Finished {
    try_reboot(tools, server, class, cancel).await.unwrap_or_else(Finished::from)
}

async fn try_reboot(
    tools: &Tools,
    server: &Server,
    class: Option<&MachineClass>,
    cancel: &CancellationToken,
) -> Result<Finished, Failure> {
    let provider = provider_of_machine(tools, server, class)?;
    if let Some(target) = target(server) {
        // What is connected to a machine that hangs would be waited for in vain.
        tools.pool.forget(&target);
    }
    let info = provider.reboot(uid(server)?).await?;
    let fact = unless_cancelled(cancel, await_ssh(tools, provider.as_ref(), class, server, info)).await?;
    Ok(Finished::succeeded("the machine was rebooted and can be reached").with_machine(fact))
}
