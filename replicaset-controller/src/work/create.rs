//! CreateMachine: makes the machine exist and run.

use berth_core::api::{MachineClass, Server, TaskKind};
use tokio_util::sync::CancellationToken;

use super::{
    Finished, Tools,
    finished::Failure,
    machine::{await_ssh, provider, uid},
    unless_cancelled,
};
use crate::iaas::{MachineRequest, Owner};

pub(super) async fn create(
    tools: &Tools,
    server: &Server,
    class: Option<&MachineClass>,
    cancel: &CancellationToken,
) -> Finished {
    try_create(tools, server, class, cancel).await.unwrap_or_else(Finished::from)
}

async fn try_create(
    tools: &Tools,
    server: &Server,
    class: Option<&MachineClass>,
    cancel: &CancellationToken,
) -> Result<Finished, Failure> {
    let provider = provider(tools, server, class)?;
    let request = request(tools, server, class)?;
    let info = provider.create(&request).await?;
    let fact = unless_cancelled(cancel, await_ssh(tools, provider.as_ref(), class, server, info)).await?;
    let address = fact.address.as_deref().unwrap_or_default();
    Ok(Finished {
        next: Some(TaskKind::InstallPackages),
        ..Finished::succeeded(format!("the machine runs at {address}"))
    }
    .with_machine(fact))
}

fn request(tools: &Tools, server: &Server, class: Option<&MachineClass>) -> Result<MachineRequest, Failure> {
    let declared = &server.spec.machine;
    let class = class.map(|c| c.spec.clone());
    let port = class.as_ref().map_or(22, |c| c.access.port);
    Ok(MachineRequest {
        owner: Owner {
            cluster: tools.cluster.clone(),
            namespace: server.metadata.namespace.clone().unwrap_or_default(),
            name: server.metadata.name.clone().unwrap_or_default(),
            uid: uid(server)?.to_owned(),
        },
        image: declared.image.clone().or_else(|| class.as_ref().and_then(|c| c.image.clone())),
        flavor: declared.flavor.clone().or_else(|| class.as_ref().and_then(|c| c.flavor.clone())),
        parameters: class.map(|c| c.parameters).unwrap_or_default(),
        ssh_port: u16::try_from(port).map_err(|_| Failure::retry("spec.access.port of the MachineClass is no port"))?,
        authorized_key: tools.authorized_key.clone(),
    })
}
