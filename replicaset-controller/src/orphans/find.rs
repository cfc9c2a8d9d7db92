//! Finds orphans among the machines that providers list. Pure.

use std::collections::{BTreeMap, BTreeSet};

use berth_core::api::OrphanPolicy;
use berth_iaas::ProviderMachine;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The machines that the provider of one class listed, and what the class says about orphans.
#[derive(Clone, Debug)]
pub(super) struct ClassMachines {
    /// Name of the class.
    pub(super) class: String,
    /// Name of the provider.
    pub(super) provider: String,
    /// What is done about orphans.
    pub(super) policy: OrphanPolicy,
    /// Younger machines are left alone, because their creation may still be under way.
    pub(super) grace: SignedDuration,
    /// The machines.
    pub(super) machines: Vec<ProviderMachine>,
}

/// A machine that has no Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Orphan {
    /// Name of the class that gets the Events about it: the first of the classes that list it.
    pub(super) class: String,
    /// The machine.
    pub(super) machine: ProviderMachine,
    /// Whether it is destroyed, or only reported.
    pub(super) destroy: bool,
}

/// The orphans among the machines of a cluster. `servers` are the UIDs of all Servers, listed **after** the machines: then
/// the Server of every listed machine is among them, unless it is gone and its machine may go, too.
///
/// Classes that share an account of a provider list the same machines. The most careful of them counts: a machine is destroyed
/// only if the policy of all of them is to delete, and after the longest grace.
pub(super) fn find_orphans(
    classes: &[ClassMachines],
    servers: &BTreeSet<String>,
    cluster: &str,
    now: Timestamp,
) -> Vec<Orphan> {
    let mut found: BTreeMap<(&str, &str, Timestamp), (Orphan, SignedDuration)> = BTreeMap::new();
    for ClassMachines { class, provider, policy, grace, machines } in classes {
        let destroy = *policy == OrphanPolicy::Delete;
        for machine in machines.iter().filter(|machine| is_without_server(machine, servers, cluster)) {
            let same_machine = (provider.as_str(), machine.id.as_str(), machine.created_at);
            let orphan = || Orphan { class: class.clone(), machine: machine.clone(), destroy };
            let (orphan, longest) = found.entry(same_machine).or_insert_with(|| (orphan(), *grace));
            orphan.destroy &= destroy;
            *longest = (*longest).max(*grace);
        }
    }
    let old = found.into_values().filter(|(orphan, grace)| now.duration_since(orphan.machine.created_at) >= *grace);
    old.map(|(orphan, _)| orphan).collect()
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
        let (class, provider, machines) = (class.to_owned(), "p".to_owned(), machines.to_vec());
        ClassMachines { class, provider, policy, grace: SignedDuration::from_secs(grace), machines }
    }

    /// Class, machine, and whether it is destroyed.
    fn found(listed: &[ClassMachines], servers: &[&str]) -> Vec<(String, String, bool)> {
        let servers = servers.iter().map(|uid| (*uid).to_owned()).collect();
        let found = find_orphans(listed, &servers, "here", NOW.parse().unwrap());
        found.into_iter().map(|orphan| (orphan.class, orphan.machine.id, orphan.destroy)).collect()
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
}
