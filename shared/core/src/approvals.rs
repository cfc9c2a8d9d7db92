//! Approvals: what people have decided about a Server's gate tasks. These rules are here, and not in replicaset-controller, which
//! follows them, so that the model checker runs the same rules as the program.
//!
//! An Approval is about one gate task of one Server, or about one kind of gate of a set's Servers in one generation. The newest
//! decision counts. A Server's own Approval has precedence over its set's. A refused gate stays refused, also in another pass
//! through its state, until a later approval revises it.

use k8s_openapi::jiff::Timestamp;

use crate::api::{
    Approval, ApprovalDecision, ApprovedServer, Executor, GatePoint, Outcome, Server, TargetKind, Task, TaskKind,
    TaskPhase, VMReplicaSet,
};

/// A person's decision that settles a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSettlement {
    /// The gate task.
    pub task_id: i64,
    /// The outcome to report.
    pub outcome: Outcome,
    /// Who decided, and why.
    pub message: String,
    /// Name of the Approval if it is limited to some Servers and does not name this one yet: before the gate is reported on, the
    /// Server has to be entered in the Approval's status.
    pub enter_in: Option<String>,
}

impl GateSettlement {
    /// From an Approval of this task; `scope` says what it was given for, if not for the Server alone.
    fn new(task_id: i64, approval: &Approval, scope: &str) -> Self {
        let (outcome, verb) = match approval.spec.decision {
            ApprovalDecision::Approve => (Outcome::Succeeded, "approved"),
            ApprovalDecision::Refuse => (Outcome::Failed, "refused"),
        };
        let by = approval.spec.approver.as_ref().map_or("nobody", |approver| approver.username.as_str());
        let mut message = format!("{verb} by {by}{scope}");
        if !approval.spec.reason.is_empty() {
            message = format!("{message}: {}", approval.spec.reason);
        }
        Self { task_id, outcome, message, enter_in: None }
    }
}

/// The gates that a person may decide on now: those that are open, and those that were refused and still stop the Server.
fn decidable_gates(server: &Server) -> Vec<&Task> {
    let open = server.open_tasks(Executor::Person).filter(|task| task.kind == TaskKind::Gate);
    let mut gates: Vec<&Task> = open.chain(server.refused_gates()).collect();
    gates.sort_by_key(|gate| gate.id);
    gates
}

/// What the Server's own Approvals decide about its first gate that has something to decide.
#[must_use]
pub fn settlement<'a>(
    server: &Server,
    approvals: &(impl Iterator<Item = &'a Approval> + Clone),
    now: Timestamp,
) -> Option<GateSettlement> {
    decidable_gates(server).into_iter().find_map(|gate| {
        let is_refused = gate.phase == TaskPhase::Failed;
        // An approval is for the task that it names; a refused gate may have been refused in an earlier pass.
        let own = own_decisions(server, gate, approvals.clone());
        let own = own.filter(|own| (is_refused || own.spec.task_id == Some(gate.id)) && !is_expired(own, now));
        let approval = newest(own.clone())?;
        changes(gate, approval, own).then(|| GateSettlement::new(gate.id, approval, ""))
    })
}

/// Whether Approvals of its set may settle a gate of the Server, depending on what the set is now.
#[must_use]
pub fn may_be_settled_by_set<'a>(
    server: &Server,
    approvals: &(impl Iterator<Item = &'a Approval> + Clone),
    now: Timestamp,
) -> bool {
    let Some(owner) = server.owner() else { return false };
    let created_for = server.set_generation();
    decidable_gates(server).into_iter().any(|gate| {
        let of_set = approvals.clone().filter(|approval| {
            let target = &approval.spec.target;
            let fits = gate.gate != Some(GatePoint::CreateMachine)
                || target.generation.is_some() && target.generation == created_for;
            target.kind == TargetKind::VMReplicaSet
                && target.name == owner.name
                && target.uid.as_ref().is_none_or(|uid| *uid == owner.uid)
                && approval.metadata.namespace == server.metadata.namespace
                && approval.spec.gate.is_some()
                && approval.spec.gate == gate.gate
                && fits
                && covers(approval, server, now)
        });
        newest(of_set.clone()).is_some_and(|approval| changes(gate, approval, of_set))
    })
}

/// What Approvals of this set decide about the Server's gates. The gate of a new machine is settled for the generation of
/// the set that the Server was created for, every other gate for the set's current generation.
#[must_use]
pub fn settlement_by_set<'a>(
    set: &VMReplicaSet,
    server: &Server,
    approvals: &(impl Iterator<Item = &'a Approval> + Clone),
    now: Timestamp,
) -> Option<GateSettlement> {
    if !set.owns(server) {
        return None;
    }
    decidable_gates(server).into_iter().find_map(|gate| {
        let point = gate.gate?;
        let generation = set.generation_of_gate(server, point)?;
        let of_set = approvals.clone().filter(|approval| {
            let spec = &approval.spec;
            let is_about_gate = spec.gate == Some(point) && spec.target.generation == Some(generation);
            is_about_gate && is_about_set(approval, set) && covers(approval, server, now)
        });
        let approval = newest(of_set.clone())?;
        if !changes(gate, approval, of_set) || is_outranked(server, gate, approval, approvals.clone()) {
            return None;
        }
        let scope = format!(" for VMReplicaSet {}, generation {generation}", set.name());
        let settlement = GateSettlement::new(gate.id, approval, &scope);
        let is_limited = approval.spec.decision == ApprovalDecision::Approve
            && (!approval.spec.servers.is_empty() || approval.spec.max_servers.is_some());
        let enter_in = (is_limited && !is_entered(approval, server)).then(|| approval.name().to_owned());
        Some(GateSettlement { enter_in, ..settlement })
    })
}

/// The status of an Approval with this Server entered; none if the Approval does not cover it (any more).
#[must_use]
pub fn entered(approval: &Approval, server: &Server, now: Timestamp) -> Option<Vec<ApprovedServer>> {
    let mut servers = approved(approval).to_vec();
    servers.push(ApprovedServer { name: server.name().to_owned(), uid: server.uid().to_owned() });
    covers(approval, server, now).then_some(servers)
}

/// The Server's own Approvals about this gate with this content, in whichever pass through its state they were given.
fn own_decisions<'a>(
    server: &Server,
    gate: &Task,
    approvals: impl Iterator<Item = &'a Approval> + Clone,
) -> impl Iterator<Item = &'a Approval> + Clone {
    let is_same = |task: &&Task| task.kind == TaskKind::Gate && task.gate == gate.gate && task.digest == gate.digest;
    let tasks: Vec<i64> = server.tasks().iter().filter(is_same).map(|task| task.id).collect();
    approvals
        .filter(move |approval| is_about_server(approval, server))
        .filter(move |approval| approval.spec.task_id.is_some_and(|id| tasks.contains(&id)))
}

/// The newest decision. Times are whole seconds: of two in the same second the refusal counts.
fn newest<'a>(approvals: impl Iterator<Item = &'a Approval>) -> Option<&'a Approval> {
    let decided = approvals.filter_map(|approval| Some((approval.spec.approver.as_ref()?.at.0, approval)));
    let newest = decided.max_by_key(|(at, approval)| (*at, is_refusal(approval), approval.name()));
    newest.map(|(_, approval)| approval)
}

/// Whether the newest of these decisions changes the gate: an open gate always, a refused one only if it was approved after the
/// refusal.
fn changes<'a>(gate: &Task, newest: &Approval, mut decisions: impl Iterator<Item = &'a Approval>) -> bool {
    gate.phase != TaskPhase::Failed
        || !is_refusal(newest) && (decisions.any(is_refusal) || decided_at(newest) > refused_at(gate))
}

/// Whether the Server's own Approvals say otherwise than this one of its set: a refusal that still stands, or, after a person has
/// asked for a retry, one that is younger than the approval.
fn is_outranked<'a>(
    server: &Server,
    gate: &Task,
    of_set: &Approval,
    approvals: impl Iterator<Item = &'a Approval> + Clone,
) -> bool {
    let own = newest(own_decisions(server, gate, approvals)).filter(|own| is_refusal(own));
    let own_stands = own.is_some_and(|own| gate.phase == TaskPhase::Failed || decided_at(own) >= decided_at(of_set));
    let is_same = |task: &&Task| {
        task.phase == TaskPhase::Failed && task.gate == gate.gate && task.digest == gate.digest && task.id != gate.id
    };
    let earlier = server.tasks().iter().filter(is_same).filter_map(refused_at).max();
    let is_older = earlier.is_some() && decided_at(of_set) <= earlier;
    !is_refusal(of_set) && (own_stands || gate.phase != TaskPhase::Failed && is_older)
}

fn is_refusal(approval: &Approval) -> bool {
    approval.spec.decision == ApprovalDecision::Refuse
}

fn decided_at(approval: &Approval) -> Option<Timestamp> {
    approval.spec.approver.as_ref().map(|approver| approver.at.0)
}

fn refused_at(gate: &Task) -> Option<Timestamp> {
    gate.finished_at.as_ref().map(|time| time.0)
}

fn is_expired(approval: &Approval, now: Timestamp) -> bool {
    approval.spec.expires_at.as_ref().is_some_and(|at| at.0 <= now)
}

fn approved(approval: &Approval) -> &[ApprovedServer] {
    approval.status.as_ref().map_or(&[], |status| status.servers.as_slice())
}

fn is_entered(approval: &Approval, server: &Server) -> bool {
    approved(approval).iter().any(|entry| entry.uid == server.uid())
}

/// Whether a set's Approval covers this Server now: one of those that it lists, or as many as it allows, until it expires. A name
/// counts for one Server, which must not be younger than the Approval.
fn covers(approval: &Approval, server: &Server, now: Timestamp) -> bool {
    if is_expired(approval, now) {
        return false;
    }
    let spec = &approval.spec;
    let is_listed = || {
        spec.servers.iter().any(|name| name == server.name())
            && (is_refusal(approval) || server.metadata.creation_timestamp <= approval.metadata.creation_timestamp)
            && !approved(approval).iter().any(|entry| entry.name == server.name())
    };
    let has_room = || {
        let max = spec.max_servers.map(|max| usize::try_from(max).unwrap_or(0));
        is_refusal(approval) || max.is_none_or(|max| approved(approval).len() < max)
    };
    is_entered(approval, server) || (spec.servers.is_empty() || is_listed()) && has_room()
}

/// Whether the Approval is about this very set and not about another one of the same name. An Approval without a UID must
/// be younger than the set.
fn is_about_set(approval: &Approval, set: &VMReplicaSet) -> bool {
    let target = &approval.spec.target;
    let same_name = target.kind == TargetKind::VMReplicaSet
        && set.name() == target.name
        && approval.metadata.namespace == set.metadata.namespace;
    same_name
        && match &target.uid {
            Some(uid) => set.uid() == uid,
            None => approval.metadata.creation_timestamp >= set.metadata.creation_timestamp,
        }
}

/// Whether the Approval is about this very Server: see [`is_about_set`].
fn is_about_server(approval: &Approval, server: &Server) -> bool {
    let target = &approval.spec.target;
    let same_name = target.kind == TargetKind::Server
        && server.name() == target.name
        && approval.metadata.namespace == server.metadata.namespace;
    same_name
        && match &target.uid {
            Some(uid) => server.uid() == uid,
            None => approval.metadata.creation_timestamp >= server.metadata.creation_timestamp,
        }
}
