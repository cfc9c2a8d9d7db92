//! DestroyMachine: the machine is gone when it is done.

use berth_core::api::{MachineClass, MachineFact, MachinePhase, Server};

use super::{
    Finished, Tools,
    finished::Failure,
    machine::{provider_of_machine, target, uid},
};

pub(super) async fn destroy(tools: &Tools, server: &Server, class: Option<&MachineClass>) -> Finished {
    try_destroy(tools, server, class).await.unwrap_or_else(Finished::from)
}

async fn try_destroy(tools: &Tools, server: &Server, class: Option<&MachineClass>) -> Result<Finished, Failure> {
    let provider = provider_of_machine(tools, server, class)?;
    provider.delete(uid(server)?).await?;
    if let Some(target) = target(server) {
        tools.pool.forget(&target);
    }
    Ok(Finished::succeeded("the machine is gone").with_machine(gone()))
}

fn gone() -> MachineFact {
    MachineFact { phase: MachinePhase::Gone, id: None, address: None, ssh: None, boot_id: None, created_at: None }
}
