//! RebootMachine: reboots the machine hard and waits until SSH answers.

use berth_core::api::Server;
use tokio_util::sync::CancellationToken;

use super::{
    Finished, Place, Tools,
    finished::Failure,
    machine::{await_ssh, target, uid},
    unless_cancelled,
};

pub(super) async fn reboot(tools: &Tools, server: &Server, place: &Place, cancel: &CancellationToken) -> Finished {
    try_reboot(tools, server, place, cancel).await.unwrap_or_else(Finished::from)
}

async fn try_reboot(
    tools: &Tools,
    server: &Server,
    place: &Place,
    cancel: &CancellationToken,
) -> Result<Finished, Failure> {
    if let Some(target) = target(server) {
        // What is connected to a machine that hangs would be waited for in vain.
        tools.pool.forget(&target);
    }
    let info = place.answer(place.connection.provider.reboot(uid(server)?).await)?;
    let fact = unless_cancelled(cancel, await_ssh(tools, place, server, info)).await?;
    Ok(Finished::succeeded("the machine was rebooted and can be reached").with_machine(fact))
}
