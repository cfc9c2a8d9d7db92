//! CreateMachine: makes the machine exist and run.

use berth_core::api::{Server, TaskKind};
use tokio_util::sync::CancellationToken;

use super::{
    Finished, Place, Room, Tools,
    finished::Failure,
    machine::{await_ssh, uid},
    unless_cancelled,
};
use crate::iaas::{MachineRequest, Owner};

pub(super) async fn create(tools: &Tools, server: &Server, place: &Place, cancel: &CancellationToken) -> Finished {
    try_create(tools, server, place, cancel).await.unwrap_or_else(Finished::from)
}

async fn try_create(
    tools: &Tools,
    server: &Server,
    place: &Place,
    cancel: &CancellationToken,
) -> Result<Finished, Failure> {
    let request = request(tools, server, place)?;
    let info = place.answer(place.connection.provider.create(&request).await)?;
    let fact = unless_cancelled(cancel, await_ssh(tools, place, server, info)).await?;
    let address = fact.address.as_deref().unwrap_or_default();
    Ok(Finished {
        next: Some(TaskKind::InstallPackages),
        room: Some(Room::Some),
        ..Finished::succeeded(format!("the machine runs at {address}"))
    }
    .with_machine(fact))
}

fn request(tools: &Tools, server: &Server, place: &Place) -> Result<MachineRequest, Failure> {
    let declared = &server.spec.machine;
    let class = place.class.as_ref().map(|class| &class.spec);
    let port = class.map_or(22, |c| c.access.port);
    Ok(MachineRequest {
        owner: Owner {
            cluster: tools.cluster.clone(),
            namespace: server.metadata.namespace.clone().unwrap_or_default(),
            name: server.metadata.name.clone().unwrap_or_default(),
            uid: uid(server)?.to_owned(),
        },
        image: declared.image.clone().or_else(|| class.and_then(|c| c.image.clone())),
        flavor: declared.flavor.clone().or_else(|| class.and_then(|c| c.flavor.clone())),
        ssh_port: u16::try_from(port).map_err(|_| Failure::retry("spec.access.port of the MachineClass is no port"))?,
        authorized_key: tools.authorized_key.clone(),
    })
}
