//! An Approval of a set: it covers one Server, and settles the gate of this one or of another.

use std::sync::LazyLock;

use berth_core::{
    api::{Approval, ApprovalStatus, ApprovedServer, Outcome, Server, VMReplicaSet},
    approvals::{GateSettlement, entered, may_be_settled_by_set, settlement_by_set},
};
use berth_testing::start;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{OwnerReference, Time},
    jiff::{SignedDuration, Timestamp},
};
use kube::Resource as _;
use serde_json::json;

use crate::{
    Action, Berth, Mutation,
    apiserver::{Answer, Write},
    machine_actors::written_by,
    world::World,
};

/// How many Servers the Approval covers.
const MAX_SERVERS: usize = 1;
/// Name and UID of another Server of the set.
const ANOTHER: &str = "another";

/// What changes about the Approval.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct SetApproval {
    /// UIDs of the Servers that are entered in its status; each write of the status adds one.
    pub(crate) entered: Vec<String>,
    pub(crate) expired: bool,
    /// UIDs of the Servers whose gates it has settled.
    pub(crate) settled: Vec<String>,
}

static SET: LazyLock<VMReplicaSet> = LazyLock::new(|| berth_testing::replica_set(json!({})));

/// The Approval when it was just created.
static APPROVAL: LazyLock<Approval> = LazyLock::new(|| {
    berth_testing::approval(json!({"spec": {
        "target": {"kind": "VMReplicaSet", "name": SET.name(), "generation": SET.metadata.generation},
        "gate": "ReleaseTraffic", "maxServers": MAX_SERVERS, "approver": {"username": "ann", "at": start()},
    }}))
});

/// The set as the owner of its Servers.
pub(crate) fn owner() -> Option<Vec<OwnerReference>> {
    SET.controller_owner_ref(&()).map(|owner| vec![owner])
}

impl SetApproval {
    /// What others and time do to the Approval.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let another = !self.settled.iter().any(|uid| uid == ANOTHER);
        let expire = (!self.expired).then_some(Action::ExpireApproval);
        expire.into_iter().chain(another.then_some(Action::SettleAnother)).collect()
    }

    fn object(&self) -> Approval {
        let mut approval = APPROVAL.clone();
        let until = if self.expired { Timestamp::UNIX_EPOCH } else { start() + SignedDuration::from_hours(1) };
        approval.spec.expires_at = Some(Time(until));
        let servers = self.entered.iter().map(|uid| ApprovedServer { name: uid.clone(), uid: uid.clone() }).collect();
        approval.status = Some(ApprovalStatus { servers });
        approval
    }

    /// What the Approval decides about the Server.
    fn settlement(&self, server: &Server) -> Option<GateSettlement> {
        let approval = self.object();
        let approvals = [&approval].into_iter();
        may_be_settled_by_set(server, &approvals, start())
            .then(|| settlement_by_set(&SET, server, &approvals, start()))
            .flatten()
    }

    /// Enters the Server, if the Approval still covers it.
    fn enter(&mut self, server: &Server) -> Option<()> {
        let servers = entered(&self.object(), server, start())?;
        self.entered = servers.into_iter().map(|entry| entry.uid).collect();
        Some(())
    }
}

impl Berth {
    /// Settles the Server's gate by the Approval of its set: enters the Server first, then reports on the gate. Says whether there
    /// was anything to do.
    pub(crate) fn settle_by_set(&self, world: &mut World, index: usize, server: &Server) -> bool {
        if let Some(read) = world.actors[index].entering.take() {
            enter(world, read, server, self.mutation);
            return true;
        }
        let Some(now) = world.set_approval.clone() else { return false };
        let Some(settlement) = now.settlement(server) else { return false };
        if settlement.enter_in.is_some() {
            world.actors[index].entering = Some(now);
            return true;
        }
        let write = Write { report: Some((settlement.task_id, settlement.outcome)), ..written_by(world, index) };
        let Some(cache) = world.actors[index].cache.clone() else { return false };
        let written = matches!(self.write(world, index, &cache, &write), Answer::Written(_));
        if written && settlement.outcome == Outcome::Succeeded {
            count(world, server.uid());
        }
        true
    }
}

/// The write of the Approval's status, which tests that nobody has written it since it was read.
fn enter(world: &mut World, read: SetApproval, server: &Server, mutation: Mutation) {
    let Some(stored) = &mut world.set_approval else { return };
    if stored.entered != read.entered && mutation != Mutation::UnguardedEntry {
        return;
    }
    let mut written = SetApproval { expired: stored.expired, ..read };
    if written.enter(server).is_some() {
        stored.entered = written.entered;
    }
}

/// Another replica of replicaset-controller does the same for another Server of the set, in one step.
pub(crate) fn settle_another(world: &mut World) -> Option<()> {
    let mut other = world.server()?.clone();
    (other.metadata.name, other.metadata.uid) = (Some(ANOTHER.into()), Some(ANOTHER.into()));
    world.set_approval.as_mut()?.enter(&other)?;
    count(world, ANOTHER);
    Some(())
}

/// Guarantee 2: a gate is passed only by as many Servers as a person has approved.
fn count(world: &mut World, uid: &str) {
    let Some(approval) = &mut world.set_approval else { return };
    if !approval.settled.iter().any(|known| known == uid) {
        approval.settled.push(uid.to_owned());
    }
    if approval.settled.len() > MAX_SERVERS {
        world.violate(2, "more Servers passed a gate than a person has approved");
    }
}
