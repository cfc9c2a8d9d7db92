//! The state of the model: the stored object, the world around it, and what each process knows.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use berth_core::api::{Executor, Server, State, TaskKind, TrafficPhase};

use crate::set_approval::SetApproval;

/// One content of the Server object.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) server: Server,
    /// Identifies the content.
    pub(crate) key: u64,
}

impl Version {
    /// Drops what is only for people (conditions, history, messages) or for the releases on a machine (`cameFrom`), and the finished
    /// tasks of earlier states: it follows from the rest or is never read, and would multiply the states of the model. Of the previous
    /// state only Unknown stays, because `hold_cause` reads it.
    pub(crate) fn new(mut server: Server) -> Arc<Self> {
        if let Some(status) = &mut server.status {
            status.history.clear();
            status.came_from = None;
            status.previous_state = status.previous_state.filter(|state| *state == State::Unknown);
            status.conditions.clear();
            status.waiting_for = None;
            let first = status.first_task_id.unwrap_or(1);
            status.tasks.retain(|task| task.id >= first || !task.phase.is_finished());
        }
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&server).unwrap().hash(&mut hasher);
        Arc::new(Self { server, key: hasher.finish() })
    }
}

/// A version of the object, as it was read at some time.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) version: Arc<Version>,
    /// Resource version, which orders snapshots.
    pub(crate) rv: u32,
}

/// A machine at the provider.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) id: u8,
    pub(crate) alive: bool,
    /// How often it was rebooted.
    pub(crate) boots: u8,
    /// The version of the package that is installed; 0 for none.
    pub(crate) package: u8,
    /// The revision of the code that runs; 0 for none.
    pub(crate) code: u8,
}

/// The Server's endpoint at the load balancer.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) phase: TrafficPhase,
    /// The resource version of the Server that this was decided on.
    pub(crate) decided: u32,
}

/// The result of work on a machine.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) enum WorkResult {
    /// The machine with this id, after so many reboots.
    Machine(u8, u8),
    NoMachine,
    Package(u8),
    Code(u8),
    Failure,
    /// Another attempt later may succeed.
    Retry,
}

/// Stage of a job.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Stage {
    Begin,
    /// The provider has no machine.
    Missing,
    Done(WorkResult),
}

/// A task that a process carries out under the lock.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The Server as the claim left it.
    pub(crate) base: Snapshot,
    pub(crate) task: i64,
    pub(crate) kind: TaskKind,
    pub(crate) stage: Stage,
    /// Whether the lock has not expired by the process's own clock.
    pub(crate) lock_is_valid: bool,
}

/// A write to the load balancer that has not arrived yet.
#[derive(Clone, Debug)]
pub(crate) struct BalancerWrite {
    /// The phase of the endpoint; none removes it.
    pub(crate) target: Option<TrafficPhase>,
    /// The resource version of the Server that it was decided on.
    pub(crate) decided: u32,
    /// The version of the slice that it replaces.
    pub(crate) slice: u32,
}

/// A process.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) role: Executor,
    /// Differs between processes of a role, and after each restart.
    pub(crate) instance: u8,
    pub(crate) cache: Option<Snapshot>,
    pub(crate) job: Option<Job>,
    pub(crate) balancer_write: Option<BalancerWrite>,
    /// The Approval of the set, as this process has read it, in whose status it is about to enter the Server.
    pub(crate) entering: Option<SetApproval>,
}

impl Actor {
    /// Forgets everything, and comes back under another name.
    pub(crate) fn crash(&mut self) {
        (self.cache, self.job, self.balancer_write, self.entering) = (None, None, None, None);
        self.instance += 1;
    }

    pub(crate) fn holder(&self) -> String {
        format!("{}/{}", self.role, self.instance)
    }
}

/// What a person does, each action once, at any time.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum PersonAction {
    NewCode,
    /// Takes the new code back.
    OldCode,
    NewPackage,
    Offline,
    Online,
    Delete,
    Force(State),
    ClearForce,
    Approve,
    Refuse,
    Retry,
    /// Asks for a reboot.
    Reboot,
    /// Keeps the machine for diagnosis.
    Retain,
    /// Returns a retained Server to its set.
    Return,
    /// Approves of the gate for one Server of the set, whichever comes first.
    ApproveSet,
}

/// How many faults of each kind happen.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Processes that crash.
    pub(crate) crashes: u8,
    /// Writes whose answer is lost: the process does not know that they were made and makes them again.
    pub(crate) lost: u8,
    /// Locks that expire although their holder still works.
    pub(crate) slow: u8,
    /// Times that the machine is unreachable for a while.
    pub(crate) outages: u8,
    /// Times that the application is unhealthy for a while.
    pub(crate) unhealthy: u8,
    /// Attempts that fail with the outcome `Failed`.
    pub(crate) failures: u8,
    /// Processes that crash while their script on the machine goes on.
    pub(crate) lingering: u8,
    /// Times that the panic floor begins to keep a sick Server in traffic.
    pub(crate) floors: u8,
    /// Processes that crash while their call is on the way to the provider.
    pub(crate) calls: u8,
    /// Attempts that fail with the outcome `Retry`.
    pub(crate) retries: u8,
}

/// A guarantee that was violated.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Number of the guarantee in `docs/design.md`.
    pub(crate) guarantee: u8,
    pub(crate) how: &'static str,
}

/// The whole state.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the world")]
pub(crate) struct World {
    pub(crate) object: Option<Snapshot>,
    pub(crate) rv: u32,
    pub(crate) machines: Vec<Machine>,
    pub(crate) created: u8,
    pub(crate) endpoint: Option<Endpoint>,
    /// Version of the slice that holds the endpoint.
    pub(crate) slice: u32,
    pub(crate) unhealthy: bool,
    /// Whether too few other Servers serve, so that the panic floor keeps this one in traffic.
    pub(crate) floor: bool,
    /// The effect of a script on the machine whose process has crashed, and that has not ended yet.
    pub(crate) lingering: Option<WorkResult>,
    /// Whether a call that creates the machine, by a process that has crashed, is on the way to the provider.
    pub(crate) call: bool,
    /// A person's Approval for the set of the Server.
    pub(crate) set_approval: Option<SetApproval>,
    /// Gate tasks that a person has decided.
    pub(crate) approvals: Vec<(i64, bool)>,
    /// The gate that a person refused last, until a person acts again.
    pub(crate) refused: Option<i64>,
    /// Whether the declared force may have ended.
    pub(crate) force_over: bool,
    pub(crate) actors: Vec<Actor>,
    pub(crate) person_actions: Vec<PersonAction>,
    pub(crate) faults: Faults,
    pub(crate) violation: Option<Violation>,
}

impl World {
    /// The object as it is stored.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.object.as_ref().map(|object| &object.version.server)
    }

    pub(crate) fn violate(&mut self, guarantee: u8, how: &'static str) {
        self.violation.get_or_insert(Violation { guarantee, how });
    }
}

/// Only the order of resource versions is hashed, so that states that differ in nothing else are one state.
impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut versions: Vec<u32> = self.object.iter().map(|snapshot| snapshot.rv).collect();
        versions.extend(self.endpoint.iter().map(|endpoint| endpoint.decided));
        for actor in &self.actors {
            versions.extend(actor.cache.iter().map(|snapshot| snapshot.rv));
            versions.extend(actor.job.iter().map(|job| job.base.rv));
            versions.extend(actor.balancer_write.iter().map(|balancer_write| balancer_write.decided));
        }
        versions.sort_unstable();
        versions.dedup();
        let rank = |rv: u32| versions.binary_search(&rv).unwrap_or(usize::MAX);
        let snapshot = |snapshot: &Snapshot| (snapshot.version.key, rank(snapshot.rv));
        self.object.as_ref().map(snapshot).hash(state);
        self.machines.hash(state);
        self.created.hash(state);
        self.endpoint.as_ref().map(|endpoint| (endpoint.phase, rank(endpoint.decided))).hash(state);
        self.unhealthy.hash(state);
        self.floor.hash(state);
        self.lingering.hash(state);
        (self.call, &self.set_approval).hash(state);
        self.approvals.hash(state);
        self.refused.hash(state);
        self.force_over.hash(state);
        for actor in &self.actors {
            (actor.role, actor.instance, actor.cache.as_ref().map(snapshot), &actor.entering).hash(state);
            actor
                .job
                .as_ref()
                .map(|job| (snapshot(&job.base), job.task, job.kind, &job.stage, job.lock_is_valid))
                .hash(state);
            // The version of the slice matters only for whether the slice has changed since it was read.
            actor.balancer_write.as_ref().map(|s| (s.target, rank(s.decided), s.slice == self.slice)).hash(state);
        }
        self.person_actions.hash(state);
        self.faults.hash(state);
        self.violation.hash(state);
    }
}

/// States are equal if their hashes are.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        crate::fingerprint(self) == crate::fingerprint(other)
    }
}
