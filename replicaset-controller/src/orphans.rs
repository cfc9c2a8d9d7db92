//! Orphans: machines of this cluster that have no Server.
//!
//! There are hardly any: a Server's object stays until its machine is gone. But a Server can be given up by a person, and
//! a request that a provider carried out long after everybody had stopped waiting for it makes a machine that nobody
//! knows of. So each MachineClass's machines are compared with the Servers from time to time. Two controllers may do so
//! at once: what the one has destroyed is not there for the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use berth_core::api::{MachineClass, OrphanPolicy, Server};
use berth_runtime::{Backoff, Context, EventType, reference};
use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt as _, api::ListParams};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::iaas::{Classes, Connection, MachineInfo};

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// What one class's provider listed, and what its class says about orphans.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Name of the class.
    pub class: String,
    /// Name of the provider.
    pub provider: String,
    /// What is done about orphans.
    pub policy: OrphanPolicy,
    /// Younger machines are left alone: whoever makes them may not be done.
    pub grace: SignedDuration,
    /// The machines.
    pub machines: Vec<MachineInfo>,
}

/// A machine that has no Server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Name of the class that it is told of at: the first of those that see it.
    pub class: String,
    /// The machine.
    pub machine: MachineInfo,
    /// Whether it is destroyed, or only reported.
    pub destroy: bool,
}

/// The orphans among the machines of a cluster. `servers` are the UIDs of all Servers, listed **after** the machines: a
/// Server that is created in between is seen, and one that went away in between leaves a machine that may go, too.
///
/// Classes that share a provider's account see the same machines. Then the most careful of them counts: a machine is
/// destroyed when all of them say so, after the longest grace.
#[must_use]
pub fn orphans(listed: &[Listed], servers: &BTreeSet<String>, cluster: &str, now: Timestamp) -> Vec<Orphan> {
    let mut seen: BTreeMap<(&str, &str, Timestamp), (Orphan, SignedDuration)> = BTreeMap::new();
    for Listed { class, provider, policy, grace, machines } in listed {
        let destroy = *policy == OrphanPolicy::Delete;
        for machine in machines.iter().filter(|machine| is_without_server(machine, servers, cluster)) {
            let same = (provider.as_str(), machine.id.as_str(), machine.created_at);
            let orphan = || Orphan { class: class.clone(), machine: machine.clone(), destroy };
            let (orphan, longest) = seen.entry(same).or_insert_with(|| (orphan(), *grace));
            orphan.destroy &= destroy;
            *longest = (*longest).max(*grace);
        }
    }
    let old = seen.into_values().filter(|(orphan, grace)| now.duration_since(orphan.machine.created_at) >= *grace);
    old.map(|(orphan, _)| orphan).collect()
}

fn is_without_server(machine: &MachineInfo, servers: &BTreeSet<String>, cluster: &str) -> bool {
    // A provider lists one cluster's machines; whatever it says, no other cluster's is touched.
    machine.owner.cluster == cluster && !machine.owner.uid.is_empty() && !servers.contains(&machine.owner.uid)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: String,
}

/// Looks for orphans.
pub struct Sweeper {
    ctx: Context,
    classes: Classes,
    cluster: String,
    found: Family<Class, Gauge>,
    destroyed: Family<Class, Counter>,
}

impl Sweeper {
    /// Of the machines of this cluster, in all these classes.
    #[must_use]
    pub fn new(ctx: &Context, classes: &Classes, cluster: &str) -> Self {
        let (found, destroyed) = (Family::<Class, Gauge>::default(), Family::<Class, Counter>::default());
        ctx.metrics.register(|r| {
            let help = "Machines without a Server that were there at the last comparison, by MachineClass";
            r.register("orphans", help, found.clone());
            r.register("orphans_destroyed", "Machines without a Server that were destroyed", destroyed.clone());
        });
        Self { ctx: ctx.clone(), classes: classes.clone(), cluster: cluster.to_owned(), found, destroyed }
    }

    /// Compares every now and then, until shutdown. With a period of nothing, never.
    pub async fn run(&self, period: Duration) {
        while !period.is_zero() {
            // Copies that were started together do not compare at once.
            let pause = Backoff::new(period, period).delay(1);
            tokio::select! {
                () = tokio::time::sleep(pause) => self.sweep().await,
                () = self.ctx.shutdown.cancelled() => return,
            }
        }
    }

    /// Compares the machines of every class with the Servers, once. A class whose machines cannot be listed is passed over.
    pub async fn sweep(&self) {
        let classes = self.classes.all();
        let listed = join_all(classes.iter().map(|class| self.list(class))).await;
        let listed: Vec<(Listed, Connection)> = listed.into_iter().flatten().collect();
        if listed.is_empty() {
            return;
        }
        let servers = match self.servers().await {
            Ok(servers) => servers,
            Err(error) => return tracing::warn!(%error, "cannot list the Servers; orphans were not looked for"),
        };
        let (listed, connections): (Vec<Listed>, Vec<Connection>) = listed.into_iter().unzip();
        let found = orphans(&listed, &servers, &self.cluster, self.ctx.clock.now());
        self.measure(&listed, &found);
        for orphan in &found {
            let at = listed.iter().position(|listed| listed.class == orphan.class);
            let class = classes.iter().find(|class| class.name_any() == orphan.class);
            if let (Some(connection), Some(class)) = (at.and_then(|at| connections.get(at)), class) {
                self.handle(class, connection, orphan).await;
            }
        }
    }

    /// The machines of a class. A provider that hangs is given up by the limit on its calls.
    async fn list(&self, class: &MachineClass) -> Option<(Listed, Connection)> {
        let name = class.name_any();
        let result = async {
            let (class, connection) = self.classes.connection(&name).await?;
            let machines = connection.provider.list(&self.cluster).await?;
            let listed = Listed {
                class: name.clone(),
                provider: class.spec.provider.clone(),
                policy: class.spec.orphan_policy,
                grace: SignedDuration::from_secs(i64::from(class.spec.orphan_grace_seconds)),
                machines,
            };
            anyhow::Ok((listed, connection))
        };
        let result = result.await;
        result.inspect_err(|error| tracing::warn!(class = name, %error, "its machines are not listed")).ok()
    }

    fn measure(&self, listed: &[Listed], found: &[Orphan]) {
        self.found.clear();
        for Listed { class, .. } in listed {
            let count = found.iter().filter(|orphan| orphan.class == *class).count();
            let of = Class { class: class.clone() };
            self.found.get_or_create(&of).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    async fn handle(&self, class: &MachineClass, connection: &Connection, orphan: &Orphan) {
        let owner = &orphan.machine.owner;
        let what = format!(
            "machine {} of the Server {}/{} (UID {}), which does not exist",
            orphan.machine.id, owner.namespace, owner.name, owner.uid
        );
        let (kind, reason, note) = if orphan.destroy {
            match connection.provider.delete(&owner.uid).await {
                Ok(()) => {
                    self.destroyed.get_or_create(&Class { class: class.name_any() }).inc();
                    (EventType::Normal, "OrphanDestroyed", format!("destroyed the {what}"))
                }
                Err(error) => (EventType::Warning, "OrphanNotDestroyed", format!("cannot destroy the {what}: {error}")),
            }
        } else {
            let advice = "destroy it by hand, or set orphanPolicy to Delete";
            (EventType::Warning, "Orphan", format!("there is the {what}: {advice}"))
        };
        tracing::warn!(class = class.name_any(), note, "{reason}");
        self.ctx.events.publish(&reference(class), kind, reason, note);
    }

    /// The UIDs of all Servers, also of those that cannot be decoded, as the API server has them now.
    async fn servers(&self) -> Result<BTreeSet<String>, kube::Error> {
        let api: Api<Server> = Api::all(self.ctx.client.clone());
        let mut uids = BTreeSet::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = api.list_metadata(&page).await?;
            uids.extend(list.items.iter().filter_map(|server| server.metadata.uid.clone()));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(uids),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iaas::{Owner, Phase};

    const NOW: &str = "2026-01-01T12:00:00Z";

    fn machine(uid: &str, cluster: &str, created: &str) -> MachineInfo {
        MachineInfo {
            owner: Owner { cluster: cluster.into(), namespace: "n".into(), name: uid.into(), uid: uid.into() },
            id: uid.into(),
            phase: Phase::Running,
            address: None,
            ssh_port: 22,
            host_key: None,
            boot_id: None,
            created_at: created.parse().unwrap(),
        }
    }

    fn listed(class: &str, policy: OrphanPolicy, grace: i64, machines: &[MachineInfo]) -> Listed {
        let (class, provider, machines) = (class.to_owned(), "p".to_owned(), machines.to_vec());
        Listed { class, provider, policy, grace: SignedDuration::from_secs(grace), machines }
    }

    /// Class, machine and whether it goes.
    fn found(listed: &[Listed], servers: &[&str]) -> Vec<(String, String, bool)> {
        let servers = servers.iter().map(|uid| (*uid).to_owned()).collect();
        let found = orphans(listed, &servers, "here", NOW.parse().unwrap());
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
    fn of_classes_that_see_one_machine_the_most_careful_counts() {
        let one = [machine("m", "here", "2026-01-01T11:00:00Z")];
        let of = |policy, grace| [listed("a", OrphanPolicy::Delete, 60, &one), listed("b", policy, grace, &one)];
        assert_eq!(found(&of(OrphanPolicy::Delete, 600), &[]), [is("a", "m", true)]);
        assert_eq!(found(&of(OrphanPolicy::Report, 600), &[]), [is("a", "m", false)]);
        assert_eq!(found(&of(OrphanPolicy::Delete, 7200), &[]), []);
    }

    #[test]
    fn one_server_may_have_left_a_machine_at_two_places() {
        let first = listed("a", OrphanPolicy::Delete, 60, &[machine("m", "here", "2026-01-01T10:00:00Z")]);
        let second = listed("b", OrphanPolicy::Report, 60, &[machine("m", "here", "2026-01-01T11:00:00Z")]);
        assert_eq!(found(&[first, second], &[]), [is("a", "m", true), is("b", "m", false)]);
    }
}
