//! Random stories of a cluster: Servers come and go, machines are left behind or come late, backups are restored, and comparisons
//! run in between. No machine that serves is ever destroyed, never too many are, and the orphans go in the end.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::api::OrphanPolicy;
use berth_iaas::{MachineOwner, Place, ProviderMachine, ProviderMachinePhase};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{
    find::{ClassMachines, find_orphans},
    history::History,
};

const CLUSTER: &str = "here";
/// How old a mark may be before the history counts as restored.
const LONGEST: SignedDuration = SignedDuration::from_mins(30);

#[derive(Clone, Debug)]
enum Event {
    Later(i64),
    NewServer,
    /// The machine of a Server comes, of one that is gone as well: its creation was on the way.
    Machine(usize),
    /// A Server goes, with its machine.
    Retire(usize),
    /// A Server goes without its machine.
    Abandon(usize),
    Backup,
    /// The last backup is restored.
    Restore,
    Restart,
    /// The next step of a comparison: the mark, the machines, the Servers, and the mark again.
    Compare,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1..25i64).prop_map(Event::Later),
        5 => Just(Event::NewServer),
        5 => (0..20usize).prop_map(Event::Machine),
        2 => (0..20usize).prop_map(Event::Retire),
        3 => (0..20usize).prop_map(Event::Abandon),
        1 => Just(Event::Backup),
        1 => Just(Event::Restore),
        1 => Just(Event::Restart),
        9 => Just(Event::Compare),
    ];
    prop::collection::vec(event, 0..200)
}

/// What the API stores.
#[derive(Clone, Debug)]
struct Stored {
    servers: BTreeSet<String>,
    mark: History,
}

/// Where a comparison is.
#[derive(Clone, Debug, Default)]
enum Comparison {
    #[default]
    Idle,
    Marked(History),
    Listed(History, Vec<ProviderMachine>),
    Compared(History, Vec<ProviderMachine>, BTreeSet<String>),
}

#[derive(Debug)]
struct World {
    minute: i64,
    api: Stored,
    backup: Option<Stored>,
    /// All Servers that ever were.
    ever: Vec<String>,
    /// The machines by UID of their Server.
    machines: BTreeMap<String, ProviderMachine>,
    /// Machines whose Servers were there when they were created and were never deleted, even if the API has forgotten them.
    serving: BTreeSet<String>,
    wrote: Option<Timestamp>,
    comparison: Comparison,
    policy: OrphanPolicy,
    grace: SignedDuration,
    limit: usize,
    destroyed: usize,
}

impl World {
    fn new(policy: OrphanPolicy, grace: i64, limit: usize) -> Self {
        let mut world = Self {
            minute: 0,
            api: Stored { servers: BTreeSet::new(), mark: History::begin(at(0)) },
            backup: None,
            ever: Vec::new(),
            machines: BTreeMap::new(),
            serving: BTreeSet::new(),
            wrote: Some(at(0)),
            comparison: Comparison::Idle,
            policy,
            grace: SignedDuration::from_mins(grace),
            limit,
            destroyed: 0,
        };
        // Later than everything of which nothing is known.
        world.minute = 5;
        world
    }

    fn now(&self) -> Timestamp {
        at(self.minute)
    }

    fn server(&self, n: usize) -> Option<String> {
        let alive: Vec<&String> = self.api.servers.iter().collect();
        (!alive.is_empty()).then(|| alive[n % alive.len()].clone())
    }

    fn carry_out(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Later(minutes) => {
                self.minute += minutes;
                // Every call of a comparison has a time limit.
                self.comparison = Comparison::Idle;
            }
            Event::NewServer => {
                let uid = format!("u{}", self.ever.len());
                self.ever.push(uid.clone());
                self.api.servers.insert(uid);
            }
            Event::Machine(n) if !self.ever.is_empty() => self.create(self.ever[n % self.ever.len()].clone()),
            Event::Retire(n) | Event::Abandon(n) => {
                let Some(uid) = self.server(*n) else { return Ok(()) };
                self.api.servers.remove(&uid);
                self.serving.remove(&uid);
                if matches!(event, Event::Retire(_)) {
                    self.machines.remove(&uid);
                }
            }
            Event::Backup => self.backup = Some(self.api.clone()),
            Event::Restore => self.restore(),
            Event::Restart if self.api.mark.followed_until == self.wrote.unwrap_or_else(|| at(0)) => self.wrote = None,
            Event::Machine(_) | Event::Restart => {}
            Event::Compare => self.compare()?,
        }
        Ok(())
    }

    fn create(&mut self, uid: String) {
        if self.api.servers.contains(&uid) {
            self.serving.insert(uid.clone());
        }
        let owner =
            MachineOwner { cluster: CLUSTER.into(), namespace: "n".into(), name: uid.clone(), uid: uid.clone() };
        let created_at = self.now();
        self.machines.entry(uid.clone()).or_insert_with(|| ProviderMachine {
            owner,
            id: uid,
            phase: ProviderMachinePhase::Running,
            address: None,
            ssh_port: 22,
            host_key: None,
            boot_id: None,
            created_at,
        });
    }

    /// Only backups whose mark shows that they are old: that of a moment ago is not noticed, see `docs/providers.md`.
    fn restore(&mut self) {
        let Some(backup) = self.backup.clone() else { return };
        let mark = backup.mark.followed_until;
        if self.wrote.is_some_and(|wrote| mark < wrote) || self.now().duration_since(mark) > LONGEST {
            self.api = backup;
        }
    }

    /// The same calls as `OrphanCollector::collect`, with anything in between.
    fn compare(&mut self) -> Result<(), TestCaseError> {
        self.comparison = match std::mem::take(&mut self.comparison) {
            Comparison::Idle => {
                self.api.mark = self.api.mark.advance(self.wrote, LONGEST, self.now());
                self.wrote = Some(self.api.mark.followed_until);
                Comparison::Marked(self.api.mark.clone())
            }
            Comparison::Marked(history) => Comparison::Listed(history, self.machines.values().cloned().collect()),
            Comparison::Listed(history, machines) => Comparison::Compared(history, machines, self.api.servers.clone()),
            Comparison::Compared(history, machines, servers) => {
                if self.api.mark == history {
                    self.destroy(&history, machines, &servers)?;
                }
                Comparison::Idle
            }
        };
        Ok(())
    }

    fn destroy(
        &mut self,
        history: &History,
        machines: Vec<ProviderMachine>,
        servers: &BTreeSet<String>,
    ) -> Result<(), TestCaseError> {
        let class = ClassMachines {
            class: "c".into(),
            place: Place { provider: "p".into(), place: "here".into() },
            policy: self.policy,
            grace: self.grace,
            limit: Some(self.limit),
            machines,
        };
        let orphans = find_orphans(&[class], servers, CLUSTER, history, self.now());
        let destroyed: Vec<String> =
            orphans.into_iter().filter(|orphan| orphan.held.is_none()).map(|orphan| orphan.machine.id).collect();
        prop_assert!(destroyed.len() <= self.limit, "{destroyed:?} at once");
        for uid in destroyed {
            prop_assert!(!self.serving.contains(&uid), "{uid} serves\n{self:#?}");
            prop_assert!(!self.api.servers.contains(&uid), "{uid} has a Server\n{self:#?}");
            self.machines.remove(&uid);
            self.destroyed += 1;
        }
        Ok(())
    }

    /// Orphans that a person does not have to decide on.
    fn orphans(&self) -> usize {
        let known = |machine: &&ProviderMachine| self.api.mark.covers(machine.created_at);
        self.machines.values().filter(known).filter(|m| !self.api.servers.contains(&m.owner.uid)).count()
    }
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
}

proptest! {
    #[test]
    fn no_machine_that_serves_is_destroyed_and_orphans_go_in_the_end(
        events in events(), reports in prop::bool::weighted(0.2), grace in 0..60i64, limit in 0..8usize,
    ) {
        let policy = if reports { OrphanPolicy::Report } else { OrphanPolicy::Delete };
        let mut world = World::new(policy, grace, limit);
        for event in &events {
            world.carry_out(event)?;
        }
        // A person lets all of them go, and time goes on.
        world.limit = usize::MAX;
        for _ in 0..12 {
            world.carry_out(&Event::Later(10))?;
            for _ in 0..4 {
                world.carry_out(&Event::Compare)?;
            }
        }
        if policy == OrphanPolicy::Delete {
            prop_assert_eq!(world.orphans(), 0, "{:#?}", world);
        } else {
            prop_assert_eq!(world.destroyed, 0);
        }
    }
}
