//! The machines of the simulated provider.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use berth_machine::fake::{FakeMachine, Fault};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::iaas::{Error, MachineInfo, MachineRequest, Owner, Phase, Result};

/// The first address that is given out, 127.128.0.1: provider `local` has others.
const FIRST: u32 = 0x7f80_0001;
/// Beyond the last one.
const END: u32 = 0x7fff_ff00;

/// All machines of all accounts.
#[derive(Debug, Default)]
pub(super) struct Cloud {
    machines: HashMap<(String, String), Machine>,
    /// Addresses that were given back.
    free: BTreeSet<u32>,
    given: u32,
    /// How often something was drawn about a Server, by call.
    drawn: HashMap<String, HashMap<&'static str, u64>>,
}

#[derive(Debug)]
struct Machine {
    owner: Owner,
    address: u32,
    ssh_port: u16,
    boot: u32,
    runs_from: Instant,
    dies_at: Option<Instant>,
    created_at: Timestamp,
    fake: FakeMachine,
}

/// How long a boot takes, and the machine runs after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    pub(super) takes: Duration,
    pub(super) lives: Option<Duration>,
}

impl Machine {
    fn boots(&mut self, boot: Boot) {
        self.boot += 1;
        self.runs_from = Instant::now() + boot.takes;
        self.dies_at = boot.lives.map(|lives| self.runs_from + lives);
        self.fake.fail_always(None);
        self.fake.reboot();
    }

    fn phase(&self) -> Phase {
        let now = Instant::now();
        if self.dies_at.is_some_and(|at| at <= now) {
            self.fake.fail_always(Some(Fault::Unreachable));
            return Phase::Stopped;
        }
        if self.runs_from <= now { Phase::Running } else { Phase::Starting }
    }

    fn info(&self, host_key: &str) -> MachineInfo {
        let phase = self.phase();
        MachineInfo {
            owner: self.owner.clone(),
            id: self.owner.uid.clone(),
            phase,
            address: Some(Ipv4Addr::from_bits(self.address).to_string()),
            ssh_port: self.ssh_port,
            host_key: Some(host_key.to_owned()),
            boot_id: (phase == Phase::Running).then(|| format!("{}-{}", self.owner.uid, self.boot)),
            created_at: self.created_at,
        }
    }
}

impl Cloud {
    /// Number of this draw about a Server.
    pub(super) fn count(&mut self, about: &str, what: &'static str) -> u64 {
        let counts = self.drawn.entry(about.to_owned()).or_default();
        let count = counts.entry(what).or_default();
        *count += 1;
        *count
    }

    /// The Server that a machine is of, for draws that do not depend on UIDs.
    pub(super) fn server(&self, account: &str, uid: &str) -> Option<String> {
        self.machines.get(&key(account, uid)).map(|machine| server(&machine.owner))
    }

    pub(super) fn create(
        &mut self,
        account: &str,
        request: &MachineRequest,
        capacity: Option<usize>,
        boot: Boot,
        fake: FakeMachine,
        host_key: &str,
    ) -> Result<MachineInfo> {
        let key = key(account, &request.owner.uid);
        if let Some(machine) = self.machines.get_mut(&key) {
            if machine.phase() == Phase::Stopped {
                machine.boots(boot);
            }
            return Ok(machine.info(host_key));
        }
        let there = || self.machines.keys().filter(|(of, _)| of == account).count();
        if let Some(capacity) = capacity.filter(|capacity| there() >= *capacity) {
            return Err(Error::Quota(format!("all {capacity} machines of the account are in use")));
        }
        let mut machine = Machine {
            owner: request.owner.clone(),
            address: self.take_address()?,
            ssh_port: request.ssh_port,
            boot: 0,
            runs_from: Instant::now(),
            dies_at: None,
            created_at: Timestamp::now(),
            fake,
        };
        machine.boots(boot);
        let info = machine.info(host_key);
        self.machines.insert(key, machine);
        Ok(info)
    }

    pub(super) fn get(&self, account: &str, uid: &str, host_key: &str) -> Option<MachineInfo> {
        self.machines.get(&key(account, uid)).map(|machine| machine.info(host_key))
    }

    pub(super) fn reboot(&mut self, account: &str, uid: &str, boot: Boot, host_key: &str) -> Result<MachineInfo> {
        let machine = self.machines.get_mut(&key(account, uid));
        let machine = machine.ok_or_else(|| Error::Retryable(format!("the Server {uid} has no machine")))?;
        machine.boots(boot);
        Ok(machine.info(host_key))
    }

    pub(super) fn delete(&mut self, account: &str, uid: &str) {
        let Some(machine) = self.machines.remove(&key(account, uid)) else { return };
        machine.fake.fail_always(Some(Fault::Unreachable));
        self.free.insert(machine.address);
        self.drawn.remove(&server(&machine.owner));
    }

    pub(super) fn list(&self, account: &str, cluster: &str, host_key: &str) -> Vec<MachineInfo> {
        let own = self.machines.iter().filter(|((of, _), machine)| of == account && machine.owner.cluster == cluster);
        own.map(|(_, machine)| machine.info(host_key)).collect()
    }

    /// The account that the Server's machine is in.
    pub(super) fn account_of(&self, uid: &str) -> Option<String> {
        self.machines.keys().find(|(_, of)| of == uid).map(|(account, _)| account.clone())
    }

    /// Stops a machine, as a crash would.
    pub(super) fn crash(&mut self, uid: &str) {
        for machine in self.machines.values_mut().filter(|machine| machine.owner.uid == uid) {
            machine.dies_at = Some(Instant::now());
            machine.fake.fail_always(Some(Fault::Unreachable));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.machines.len()
    }

    fn take_address(&mut self) -> Result<u32> {
        if let Some(address) = self.free.pop_first() {
            return Ok(address);
        }
        loop {
            let address = FIRST + self.given;
            if address >= END {
                return Err(Error::Quota("every address of the simulated provider is in use".into()));
            }
            self.given += 1;
            if !matches!(address & 0xff, 0 | 0xff) {
                return Ok(address);
            }
        }
    }
}

fn key(account: &str, uid: &str) -> (String, String) {
    (account.to_owned(), uid.to_owned())
}

/// A Server by name: the same in every run, as UIDs are not.
pub(super) fn server(owner: &Owner) -> String {
    format!("{}/{}/{}", owner.cluster, owner.namespace, owner.name)
}
