//! Waits until a machine runs and answers, and says what is known of it then.

use std::time::Duration;

use berth_core::{
    api::{MachineAccess, MachineClass, MachineFact, MachinePhase, Server, SshAccess},
    protocol::TaskResult,
};
use berth_iaas::{ProviderMachine, ProviderMachinePhase};
use berth_machine::{Machine, ping::ping};
use berth_runtime::Backoff;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::{Instant, sleep};

use super::attempt::Attempt;

/// How long a machine may take until it runs: large images are copied before the first boot.
const RUN_LIMIT: Duration = Duration::from_mins(10);
/// How long a running machine may take until SSH answers: a slow boot with cloud-init takes about a minute.
const SSH_LIMIT: Duration = Duration::from_mins(3);
/// How long one ping may take; a machine that boots often accepts connections that it does not answer.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// Between two questions: containers run within a tenth of a second, virtual machines take minutes.
const POLL: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));

/// Waits until the machine runs and answers.
pub(super) async fn wait_until_reachable(
    attempt: &Attempt<'_>,
    machine: ProviderMachine,
) -> Result<MachineFact, TaskResult> {
    let machine = wait_until_running(attempt, machine).await?;
    let fact = machine_fact(attempt, &machine)?;
    let connection = attempt.context.connector.connect(&with_machine(attempt.server, fact.clone()))?;
    let boot_id = wait_for_ping(connection.machine.as_ref()).await?;
    Ok(MachineFact { boot_id: Some(boot_id), ..fact })
}

/// What is known of a machine that runs, its boot excepted.
fn machine_fact(attempt: &Attempt<'_>, machine: &ProviderMachine) -> Result<MachineFact, TaskResult> {
    let (server, provider) = (attempt.server, attempt.provider);
    let (Some(address), Some(host_key)) = (machine.address.clone(), host_key(server, machine)) else {
        return Err(TaskResult::retry("the provider does not say the machine's address and SSH host key"));
    };
    let access = access(server, provider.class.as_deref());
    Ok(MachineFact {
        phase: MachinePhase::Running,
        provider: Some(provider.connection.place.provider.clone()),
        place: Some(provider.connection.place.place.clone()),
        id: Some(machine.id.clone()),
        address: Some(address),
        ssh: Some(SshAccess { port: i32::from(machine.ssh_port), user: access.user, host_key, root: access.root }),
        boot_id: None,
        created_at: Some(Time(machine.created_at)),
    })
}

/// The Server as it will be once the fact is reported.
fn with_machine(server: &Server, fact: MachineFact) -> Server {
    let mut server = server.clone();
    server.status.get_or_insert_default().machine = Some(fact);
    server
}

/// How Berth logs in: as at the machine's creation, even if the class has changed since then.
fn access(server: &Server, class: Option<&MachineClass>) -> MachineAccess {
    match server.machine().and_then(|machine| machine.ssh.as_ref()) {
        Some(ssh) => MachineAccess { user: ssh.user.clone(), root: ssh.root.clone(), port: ssh.port },
        None => class.map(|class| class.spec.access.clone()).unwrap_or_default(),
    }
}

/// The host key that was pinned at the machine's creation. The provider's word is taken only once.
fn host_key(server: &Server, machine: &ProviderMachine) -> Option<String> {
    let known = server.machine().filter(|fact| fact.id.as_ref() == Some(&machine.id));
    let pinned = known.and_then(|fact| fact.ssh.as_ref()).map(|ssh| ssh.host_key.clone());
    pinned.or_else(|| machine.host_key.clone())
}

async fn wait_until_running(
    attempt: &Attempt<'_>,
    mut machine: ProviderMachine,
) -> Result<ProviderMachine, TaskResult> {
    let uid = machine.owner.uid.clone();
    let deadline = Instant::now() + RUN_LIMIT;
    let mut polls = 0;
    while machine.phase != ProviderMachinePhase::Running {
        if Instant::now() > deadline {
            return Err(TaskResult::retry(format!(
                "the machine does not run {RUN_LIMIT:?} after the provider was asked for it"
            )));
        }
        polls += 1;
        sleep(POLL.delay(polls)).await;
        let found = attempt.answer(attempt.provider.connection.provider.get(&uid).await)?;
        machine = found.ok_or_else(|| TaskResult::retry("the machine vanished before it ran"))?;
    }
    Ok(machine)
}

/// The machine's boot id, once SSH answers.
async fn wait_for_ping(machine: &dyn Machine) -> Result<String, TaskResult> {
    let deadline = Instant::now() + SSH_LIMIT;
    let mut polls = 0;
    loop {
        match ping(machine, PING_LIMIT).await {
            Ok(boot) => return Ok(boot.boot_id),
            Err(error) if error.is_unreachable() && Instant::now() < deadline => {}
            Err(error) => return Err(TaskResult::from(error).at("the machine runs, but SSH does not answer")),
        }
        polls += 1;
        sleep(POLL.delay(polls)).await;
    }
}
