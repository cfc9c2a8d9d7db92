//! DestroyMachine: the machine is gone when it is done.

use berth_core::api::{MachineFact, MachinePhase, Server};

use super::{
    Finished, Place, Room, Tools,
    finished::Failure,
    machine::{target, uid},
};

pub(super) async fn destroy(tools: &Tools, server: &Server, place: &Place) -> Finished {
    try_destroy(tools, server, place).await.unwrap_or_else(Finished::from)
}

async fn try_destroy(tools: &Tools, server: &Server, place: &Place) -> Result<Finished, Failure> {
    place.answer(place.connection.provider.delete(uid(server)?).await)?;
    if let Some(target) = target(server) {
        tools.pool.forget(&target);
    }
    Ok(Finished { room: Some(Room::Some), ..Finished::succeeded("the machine is gone") }.with_machine(gone()))
}

fn gone() -> MachineFact {
    MachineFact { phase: MachinePhase::Gone, id: None, address: None, ssh: None, boot_id: None, created_at: None }
}
