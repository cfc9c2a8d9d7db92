//! The machine of a Server: its provider, and the way to it.

use std::time::Duration;

use berth_core::api::{MachineAccess, MachineClass, MachineFact, MachinePhase, Server, SshAccess};
use berth_machine::{
    Machine,
    fleet::{Fleet, Reached},
    ping::ping,
    ssh::SshTarget,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::{Instant, sleep};

use super::{Place, Tools, finished::Failure};
use crate::iaas::{MachineInfo, Phase};

/// How long a machine may take until it runs.
const RUN_LIMIT: Duration = Duration::from_mins(10);
/// How long a running machine may take until SSH answers.
const SSH_LIMIT: Duration = Duration::from_mins(3);
const PING_LIMIT: Duration = Duration::from_secs(10);
const FIRST_POLL: Duration = Duration::from_millis(50);
const LONGEST_POLL: Duration = Duration::from_secs(3);

/// The UID of the Server, by which providers know its machine.
pub(super) fn uid(server: &Server) -> Result<&str, Failure> {
    server.metadata.uid.as_deref().ok_or_else(|| Failure::fatal("the Server has no UID"))
}

/// What the Server says about its machine.
pub(super) fn fact(server: &Server) -> Option<&MachineFact> {
    server.status.as_ref()?.machine.as_ref()
}

/// The way to a Server's machine.
pub(super) fn target(server: &Server) -> Option<SshTarget> {
    let machine = fact(server)?;
    let ssh = machine.ssh.as_ref()?;
    Some(SshTarget {
        address: machine.address.clone()?,
        port: u16::try_from(ssh.port).ok()?,
        user: ssh.user.clone(),
        host_key: ssh.host_key.clone(),
    })
}

/// The machine of a Server, and the folder on it that is Berth's.
pub(super) fn reach(tools: &Tools, server: &Server) -> Result<(Reached, String), Failure> {
    let root = fact(server).and_then(|m| m.ssh.as_ref()).map(|ssh| ssh.root.clone());
    match (target(server), root) {
        (Some(target), Some(root)) => {
            let id = fact(server).and_then(|m| m.id.as_deref());
            Ok((Fleet::reach(tools.fleet.as_ref(), &tools.pool, id, target), root))
        }
        _ => Err(Failure::retry("the Server does not say how its machine is reached")),
    }
}

/// Waits until the machine runs and SSH answers, and says what is known of it then.
pub(super) async fn await_ssh(
    tools: &Tools,
    place: &Place,
    server: &Server,
    info: MachineInfo,
) -> Result<MachineFact, Failure> {
    let info = await_running(place, info).await?;
    let (Some(address), Some(host_key)) = (info.address.clone(), pinned(server, &info)) else {
        return Err(Failure::retry("the provider does not say the machine's address and SSH host key"));
    };
    let known = fact(server).and_then(|m| m.ssh.as_ref());
    let access = access(known, place.class.as_deref());
    let user = access.user.clone();
    let target = SshTarget { address: address.clone(), port: info.ssh_port, user, host_key: host_key.clone() };
    // With the provider, so that the machine can be destroyed after its class is gone.
    let id = format!("{}/{}", place.provider, info.id);
    let boot_id = await_ping(&Fleet::reach(tools.fleet.as_ref(), &tools.pool, Some(&id), target)).await?;
    Ok(MachineFact {
        phase: MachinePhase::Running,
        id: Some(id),
        address: Some(address),
        ssh: Some(SshAccess { port: i32::from(info.ssh_port), user: access.user, host_key, root: access.root }),
        boot_id: Some(boot_id),
        created_at: Some(Time(info.created_at)),
    })
}

/// How Berth logs in: as at the machine's creation, whatever became of the class since then.
fn access(known: Option<&SshAccess>, class: Option<&MachineClass>) -> MachineAccess {
    match known {
        Some(ssh) => MachineAccess { user: ssh.user.clone(), root: ssh.root.clone(), port: ssh.port },
        None => class.map(|c| c.spec.access.clone()).unwrap_or_default(),
    }
}

/// The host key from the machine's creation. The provider is asked only once.
fn pinned(server: &Server, info: &MachineInfo) -> Option<String> {
    let known = fact(server).filter(|m| m.id.as_ref().is_some_and(|id| id.ends_with(&format!("/{}", info.id))));
    known.and_then(|m| m.ssh.as_ref()).map(|ssh| ssh.host_key.clone()).or_else(|| info.host_key.clone())
}

async fn await_running(place: &Place, mut info: MachineInfo) -> Result<MachineInfo, Failure> {
    let uid = info.owner.uid.clone();
    let deadline = Instant::now() + RUN_LIMIT;
    let mut pause = FIRST_POLL;
    while info.phase != Phase::Running {
        if Instant::now() > deadline {
            return Err(Failure::retry(format!("the machine does not run {RUN_LIMIT:?} after it was asked for")));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_POLL);
        let found = place.answer(place.connection.provider.get(&uid).await)?;
        info = found.ok_or_else(|| Failure::retry("the machine vanished while it was being created"))?;
    }
    Ok(info)
}

/// The machine's boot id, once SSH answers.
async fn await_ping(machine: &dyn Machine) -> Result<String, Failure> {
    let deadline = Instant::now() + SSH_LIMIT;
    let mut pause = FIRST_POLL;
    loop {
        match ping(machine, PING_LIMIT).await {
            Ok(info) => return Ok(info.boot_id),
            Err(error) if error.is_unreachable() && Instant::now() < deadline => {}
            Err(error) => return Err(Failure::from(error).at("the machine runs, but SSH does not answer")),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_POLL);
    }
}
