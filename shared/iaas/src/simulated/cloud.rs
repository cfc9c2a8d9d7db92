//! The accounts of the simulated provider and the machines in them.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use berth_machine::fake::{FakeMachine, MachineFault};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::index::Index;
use crate::{
    error::{ProviderError, Result},
    provider::{MachineOwner, MachineRequest, ProviderMachine, ProviderMachinePhase},
};

/// The first address, 127.128.0.1: provider `local` uses others.
const FIRST: u32 = 0x7f80_0001;
/// The first address after the last one.
const END: u32 = 0x7fff_ff00;

/// All machines of all accounts.
#[derive(Debug, Default)]
pub(super) struct Cloud {
    machines: HashMap<(String, String), SimulatedMachine>,
    index: Index,
    /// Addresses of destroyed machines.
    free: BTreeSet<u32>,
    /// Whether no machine gets an address that another one had.
    has_new_addresses: bool,
    /// How many addresses from [`FIRST`] on have ever been used.
    used: u32,
    /// How many random numbers were drawn, by Server and purpose.
    draws: HashMap<String, HashMap<&'static str, u64>>,
}

#[derive(Debug)]
struct SimulatedMachine {
    owner: MachineOwner,
    address: u32,
    ssh_port: u16,
    boots: u32,
    runs_from: Instant,
    stops_at: Option<Instant>,
    created_at: Timestamp,
    fake: FakeMachine,
}

/// What a machine is created with.
pub(super) struct NewMachine {
    pub(super) boot: Boot,
    /// Where its commands run.
    pub(super) fake: FakeMachine,
    pub(super) created_at: Timestamp,
}

/// How a boot goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    /// Until the machine runs.
    pub(super) duration: Duration,
    /// How long it runs after that; none for ever.
    pub(super) lifetime: Option<Duration>,
}

impl SimulatedMachine {
    fn boot(&mut self, boot: Boot) {
        self.boots += 1;
        self.runs_from = Instant::now() + boot.duration;
        self.stops_at = boot.lifetime.map(|lifetime| self.runs_from + lifetime);
        self.fake.fail_always(None);
        self.fake.reboot();
    }

    fn phase(&self) -> ProviderMachinePhase {
        let now = Instant::now();
        if self.stops_at.is_some_and(|at| at <= now) {
            self.fake.fail_always(Some(MachineFault::Unreachable));
            return ProviderMachinePhase::Stopped;
        }
        if self.runs_from <= now { ProviderMachinePhase::Running } else { ProviderMachinePhase::Starting }
    }

    fn machine(&self, host_key: &str) -> ProviderMachine {
        let phase = self.phase();
        ProviderMachine {
            owner: self.owner.clone(),
            id: self.owner.uid.clone(),
            phase,
            address: Some(Ipv4Addr::from_bits(self.address).to_string()),
            ssh_port: self.ssh_port,
            host_key: Some(host_key.to_owned()),
            boot_id: (phase == ProviderMachinePhase::Running).then(|| format!("{}-{}", self.owner.uid, self.boots)),
            created_at: self.created_at,
        }
    }
}

impl Cloud {
    /// Counts the draws for a Server and a purpose.
    pub(super) fn count_draw(&mut self, server: &str, purpose: &'static str) -> u64 {
        let counts = self.draws.entry(server.to_owned()).or_default();
        let count = counts.entry(purpose).or_default();
        *count += 1;
        *count
    }

    /// The key of the Server that a machine belongs to.
    pub(super) fn server(&self, account: &str, uid: &str) -> Option<String> {
        self.machines.get(&key(account, uid)).map(|machine| server_key(&machine.owner))
    }

    pub(super) fn create(
        &mut self,
        account: &str,
        request: &MachineRequest,
        capacity: Option<usize>,
        new: NewMachine,
        host_key: &str,
    ) -> Result<ProviderMachine> {
        let key = key(account, &request.owner.uid);
        if let Some(machine) = self.machines.get_mut(&key) {
            if machine.phase() == ProviderMachinePhase::Stopped {
                machine.boot(new.boot);
            }
            return Ok(machine.machine(host_key));
        }
        let count = || self.machines.keys().filter(|(of, _)| of == account).count();
        if let Some(capacity) = capacity.filter(|capacity| count() >= *capacity) {
            return Err(ProviderError::Quota(format!("all {capacity} machines of the account are in use")));
        }
        let mut machine = SimulatedMachine {
            owner: request.owner.clone(),
            address: self.take_address()?,
            ssh_port: request.ssh_port,
            boots: 0,
            runs_from: Instant::now(),
            stops_at: None,
            created_at: new.created_at,
            fake: new.fake,
        };
        machine.boot(new.boot);
        let info = machine.machine(host_key);
        self.index.add(&key, machine.address);
        self.machines.insert(key, machine);
        Ok(info)
    }

    pub(super) fn get(&self, account: &str, uid: &str, host_key: &str) -> Option<ProviderMachine> {
        self.machines.get(&key(account, uid)).map(|machine| machine.machine(host_key))
    }

    pub(super) fn reboot(&mut self, account: &str, uid: &str, boot: Boot, host_key: &str) -> Result<ProviderMachine> {
        let machine = self.machines.get_mut(&key(account, uid));
        let machine = machine.ok_or_else(|| ProviderError::Retryable(format!("the Server {uid} has no machine")))?;
        machine.boot(boot);
        Ok(machine.machine(host_key))
    }

    pub(super) fn delete(&mut self, account: &str, uid: &str) {
        let key = key(account, uid);
        let Some(machine) = self.machines.remove(&key) else { return };
        self.index.remove(&key, machine.address);
        machine.fake.fail_always(Some(MachineFault::Unreachable));
        machine.fake.end_scripts();
        self.free.insert(machine.address);
        self.draws.remove(&server_key(&machine.owner));
    }

    pub(super) fn list(&self, account: &str, cluster: &str, host_key: &str) -> Vec<ProviderMachine> {
        let own = self.machines.iter().filter(|((of, _), machine)| of == account && machine.owner.cluster == cluster);
        own.map(|(_, machine)| machine.machine(host_key)).collect()
    }

    /// Stops a machine as a crash would.
    pub(super) fn crash(&mut self, uid: &str) {
        for machine in self.machines.values_mut().filter(|machine| machine.owner.uid == uid) {
            machine.stops_at = Some(Instant::now());
            machine.fake.fail_always(Some(MachineFault::Unreachable));
            machine.fake.end_scripts();
        }
    }

    /// Reboots a machine that runs.
    pub(super) fn reboot_by_itself(&mut self, uid: &str, duration: Duration) {
        let boot = Boot { duration, lifetime: None };
        let of_server = self.machines.values_mut().filter(|machine| machine.owner.uid == uid);
        of_server.filter(|machine| machine.phase() == ProviderMachinePhase::Running).for_each(|m| m.boot(boot));
    }

    /// Destroys a machine in every account.
    pub(super) fn vanish(&mut self, uid: &str, frees_address: bool) {
        let accounts: Vec<String> =
            self.machines.keys().filter(|(_, of)| of == uid).map(|(account, _)| account.clone()).collect();
        for account in accounts {
            let address = self.machines.get(&key(&account, uid)).map(|machine| machine.address);
            self.delete(&account, uid);
            if let Some(address) = address.filter(|_| !frees_address) {
                self.free.remove(&address);
            }
        }
    }

    /// The UID of the Server whose machine runs at this address.
    pub(super) fn runs_at(&self, address: &str) -> Option<String> {
        let address = address.parse::<Ipv4Addr>().ok()?.to_bits();
        let machine = self.machines.get(self.index.at(address)?)?;
        (machine.phase() == ProviderMachinePhase::Running).then(|| machine.owner.uid.clone())
    }

    pub(super) fn owners(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.machines.keys().collect();
        keys.sort();
        keys.into_iter().map(|(_, uid)| uid.clone()).collect()
    }

    /// Whether the Server with this UID has a machine in any account.
    pub(super) fn has_machine(&self, uid: &str) -> bool {
        self.index.has(uid)
    }

    /// The UID of a Server that has more than one machine.
    pub(super) fn first_with_several(&self) -> Option<String> {
        self.index.first_with_several().map(str::to_owned)
    }

    pub(super) fn len(&self) -> usize {
        self.machines.len()
    }

    pub(super) fn give_new_addresses(&mut self) {
        self.has_new_addresses = true;
    }

    fn take_address(&mut self) -> Result<u32> {
        if !self.has_new_addresses
            && let Some(address) = self.free.pop_first()
        {
            return Ok(address);
        }
        loop {
            let address = FIRST + self.used;
            if address >= END {
                return Err(ProviderError::Quota("every address of the simulated provider is in use".into()));
            }
            self.used += 1;
            if !matches!(address & 0xff, 0 | 0xff) {
                return Ok(address);
            }
        }
    }
}

fn key(account: &str, uid: &str) -> (String, String) {
    (account.to_owned(), uid.to_owned())
}

/// Identifies a Server by name, because UIDs differ between runs.
pub(super) fn server_key(owner: &MachineOwner) -> String {
    format!("{}/{}/{}", owner.cluster, owner.namespace, owner.name)
}
