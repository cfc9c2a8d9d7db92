//! Finds orphans among the machines that providers list. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use berth_core::api::OrphanPolicy;
use berth_iaas::{Place, ProviderMachine};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::history::History;

/// Orphans that are destroyed at once without a person: abandoned Servers and late creations come one by one. In a small cluster
/// a share would be less than one machine, and no orphan would ever go.
const FEW_ORPHANS: usize = 5;
/// In a large cluster, one in this many of the class's machines: one failure of a provider makes that many late creations.
const SHARE: usize = 10;

/// The machines that the provider of one class listed, and what the class says about orphans.
#[derive(Clone, Debug)]
pub(super) struct ClassMachines {
    /// Name of the class.
    pub(super) class: String,
    /// Where the machines are.
    pub(super) place: Place,
    /// What is done about orphans.
    pub(super) policy: OrphanPolicy,
    /// Younger machines are left alone, because their creation may still be under way.
    pub(super) grace: SignedDuration,
    /// Most orphans that are destroyed at once; none for the default.
    pub(super) limit: Option<usize>,
    /// The machines.
    pub(super) machines: Vec<ProviderMachine>,
}

impl ClassMachines {
    fn limit(&self) -> usize {
        self.limit.unwrap_or_else(|| FEW_ORPHANS.max(self.machines.len() / SHARE))
    }
}

/// A machine that has no Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Orphan {
    /// Name of the class that gets the Events about it: the first of the classes that list it.
    pub(super) class: String,
    /// The machine.
    pub(super) machine: ProviderMachine,
    /// Why it is only reported; none if it is destroyed.
    pub(super) held: Option<HoldReason>,
}

/// Why an orphan is not destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldReason {
    /// Its class says so.
    Policy,
    /// The API may have forgotten its Server.
    Forgotten,
    /// There are too many orphans.
    TooMany {
        /// Orphans of the class.
        found: usize,
        /// How many of them would be destroyed.
        limit: usize,
    },
}

impl HoldReason {
    /// Reason of an Event and label of a metric.
    #[must_use]
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Policy => "Orphan",
            Self::Forgotten => "OrphanMayServe",
            Self::TooMany { .. } => "TooManyOrphans",
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("destroy it by hand, or set orphanPolicy to Delete"),
            Self::Forgotten => f.write_str(
                "it was created at a time of which this cluster has no complete record, as after a restore of etcd, so that \
                 it may serve; destroy it by hand if it does not",
            ),
            Self::TooMany { found, limit } => write!(
                f,
                "it is one of {found} orphans of the class, of which at most {limit} are destroyed at once; if all of them \
                 may go, raise spec.orphanLimit for a while"
            ),
        }
    }
}

/// The orphans among the machines of a cluster. `servers` are the UIDs of all Servers, listed **after** the machines: then
/// the Server of every listed machine is among them, unless it is gone and its machine may go, too.
///
/// Classes that share an account of a provider list the same machines. The most careful of them counts: a machine is destroyed
/// only if the policy of all of them is to delete, after the longest grace, and within the lowest limit.
#[must_use]
pub(super) fn find_orphans(
    classes: &[ClassMachines],
    servers: &BTreeSet<String>,
    cluster: &str,
    history: &History,
    now: Timestamp,
) -> Vec<Orphan> {
    let mut found: BTreeMap<(&Place, &str, Timestamp), Candidate<'_>> = BTreeMap::new();
    for class in classes {
        for machine in class.machines.iter().filter(|machine| is_without_server(machine, servers, cluster)) {
            let same_machine = (&class.place, machine.id.as_str(), machine.created_at);
            let candidate = found.entry(same_machine).or_insert_with(|| Candidate::new(class, machine));
            candidate.is_kept |= class.policy == OrphanPolicy::Report;
            candidate.grace = candidate.grace.max(class.grace);
            candidate.limit = candidate.limit.min(class.limit());
        }
    }
    // The young ones count: many of them at once say that something is wrong.
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for candidate in found.values() {
        *counts.entry(candidate.class).or_default() += 1;
    }
    let old = found.values().filter(|candidate| now.duration_since(candidate.machine.created_at) >= candidate.grace);
    old.map(|candidate| candidate.orphan(counts.get(candidate.class).copied().unwrap_or_default(), history)).collect()
}

/// A machine without a Server, and the most careful of what the classes say that list it.
struct Candidate<'a> {
    class: &'a str,
    machine: &'a ProviderMachine,
    is_kept: bool,
    grace: SignedDuration,
    limit: usize,
}

impl<'a> Candidate<'a> {
    fn new(class: &'a ClassMachines, machine: &'a ProviderMachine) -> Self {
        Self { class: &class.class, machine, is_kept: false, grace: class.grace, limit: class.limit() }
    }

    fn orphan(&self, found: usize, history: &History) -> Orphan {
        let limit = self.limit;
        let held = if self.is_kept {
            Some(HoldReason::Policy)
        } else if !history.covers(self.machine.created_at) {
            Some(HoldReason::Forgotten)
        } else if found > limit {
            Some(HoldReason::TooMany { found, limit })
        } else {
            None
        };
        Orphan { class: self.class.to_owned(), machine: self.machine.clone(), held }
    }
}

fn is_without_server(machine: &ProviderMachine, servers: &BTreeSet<String>, cluster: &str) -> bool {
    // Providers list the machines of one cluster. A faulty one must not cost another cluster its machines.
    machine.owner.cluster == cluster && !machine.owner.uid.is_empty() && !servers.contains(&machine.owner.uid)
}

#[cfg(test)]
mod tests {
    use berth_iaas::{MachineOwner, ProviderMachinePhase};

    use super::*;

    const NOW: &str = "2026-01-01T12:00:00Z";

    fn machine(uid: &str, cluster: &str, created: &str) -> ProviderMachine {
        ProviderMachine {
            owner: MachineOwner { cluster: cluster.into(), namespace: "n".into(), name: uid.into(), uid: uid.into() },
            id: uid.into(),
            phase: ProviderMachinePhase::Running,
            address: None,
            ssh_port: 22,
            host_key: None,
            boot_id: None,
            created_at: created.parse().unwrap(),
        }
    }

    fn listed(class: &str, policy: OrphanPolicy, grace: i64, machines: &[ProviderMachine]) -> ClassMachines {
        let (class, machines) = (class.to_owned(), machines.to_vec());
        let place = Place { provider: "p".into(), place: "here".into() };
        ClassMachines { class, place, policy, grace: SignedDuration::from_secs(grace), limit: None, machines }
    }

    /// A history that covers everything after 2025.
    fn history() -> History {
        History::begin("2025-12-31T23:59:59Z".parse().unwrap())
    }

    /// Class, machine, and whether it is destroyed.
    fn found(listed: &[ClassMachines], servers: &[&str]) -> Vec<(String, String, bool)> {
        let servers = servers.iter().map(|uid| (*uid).to_owned()).collect();
        let found = find_orphans(listed, &servers, "here", &history(), NOW.parse().unwrap());
        found.into_iter().map(|orphan| (orphan.class, orphan.machine.id, orphan.held.is_none())).collect()
    }

    fn is(class: &str, id: &str, destroy: bool) -> (String, String, bool) {
        (class.to_owned(), id.to_owned(), destroy)
    }

    #[test]
    fn only_old_machines_of_this_cluster_without_a_server_are_orphans() {
        let machines = [
            machine("has-server", "here", "2026-01-01T00:00:00Z"),
            machine("foreign", "there", "2026-01-01T00:00:00Z"),
            machine("old", "here", "2026-01-01T11:50:00Z"),
            machine("young", "here", "2026-01-01T11:50:01Z"),
            machine("from-the-future", "here", "2026-01-01T12:30:00Z"),
            machine("", "here", "2026-01-01T00:00:00Z"),
        ];
        let all = listed("c", OrphanPolicy::Delete, 600, &machines);
        assert_eq!(found(&[all], &["has-server", "other"]), [is("c", "old", true)]);
        let reported = listed("c", OrphanPolicy::Report, 600, &machines);
        assert_eq!(found(&[reported], &["has-server"]), [is("c", "old", false)]);
        let at_once = listed("c", OrphanPolicy::Delete, 0, &machines[3..4]);
        assert_eq!(found(&[at_once], &[]), [is("c", "young", true)]);
    }

    #[test]
    fn the_most_careful_of_the_classes_that_list_a_machine_counts() {
        let one = [machine("m", "here", "2026-01-01T11:00:00Z")];
        let of = |policy, grace| [listed("a", OrphanPolicy::Delete, 60, &one), listed("b", policy, grace, &one)];
        assert_eq!(found(&of(OrphanPolicy::Delete, 600), &[]), [is("a", "m", true)]);
        assert_eq!(found(&of(OrphanPolicy::Report, 600), &[]), [is("a", "m", false)]);
        assert_eq!(found(&of(OrphanPolicy::Delete, 7200), &[]), []);
    }

    #[test]
    fn one_server_may_have_left_a_machine_at_each_of_two_classes() {
        let first = listed("a", OrphanPolicy::Delete, 60, &[machine("m", "here", "2026-01-01T10:00:00Z")]);
        let second = listed("b", OrphanPolicy::Report, 60, &[machine("m", "here", "2026-01-01T11:00:00Z")]);
        assert_eq!(found(&[first, second], &[]), [is("a", "m", true), is("b", "m", false)]);
    }

    fn many(count: usize) -> Vec<ProviderMachine> {
        (0..count).map(|n| machine(&format!("m{n:03}"), "here", "2026-01-01T00:00:00Z")).collect()
    }

    #[test]
    fn too_many_orphans_are_all_left_to_a_person() {
        for (machines, orphans, limit, destroyed) in [
            (5, 5, None, true),
            (50, 5, None, true),
            (50, 6, None, false),
            (100, 10, None, true),
            (100, 11, None, false),
            (100, 100, None, false),
            (100, 100, Some(100), true),
            (100, 1, Some(0), false),
        ] {
            let all = many(machines);
            let servers: Vec<&str> = all.iter().skip(orphans).map(|machine| machine.id.as_str()).collect();
            let class = ClassMachines { limit, ..listed("c", OrphanPolicy::Delete, 60, &all) };
            let found = found(&[class], &servers);
            assert_eq!(found.len(), orphans);
            assert!(found.iter().all(|orphan| orphan.2 == destroyed), "{orphans} of {machines}, limit {limit:?}");
        }
    }

    #[test]
    fn machines_that_the_api_may_have_forgotten_are_only_reported() {
        let machines = [
            machine("known", "here", "2026-01-01T08:00:00Z"),
            machine("newer-than-the-backup", "here", "2026-01-01T10:00:00Z"),
        ];
        let class = listed("c", OrphanPolicy::Delete, 60, &machines);
        let backup = History { followed_until: "2026-01-01T09:00:00Z".parse().unwrap(), ..history() };
        let restored = backup.advance(None, SignedDuration::from_mins(30), NOW.parse().unwrap());
        let found = find_orphans(&[class], &BTreeSet::new(), "here", &restored, NOW.parse().unwrap());
        let held: Vec<_> = found.iter().map(|orphan| (orphan.machine.id.as_str(), orphan.held)).collect();
        assert_eq!(held, [("known", None), ("newer-than-the-backup", Some(HoldReason::Forgotten))]);
    }
}
