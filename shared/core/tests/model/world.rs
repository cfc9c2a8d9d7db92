//! The state of the model: the stored object, the world around it, and what each process knows.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use berth_core::api::{Executor, Server, State, TaskKind, TrafficPhase};

/// One content of the Server object.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) server: Server,
    /// Identifies the content.
    pub(crate) key: u64,
}

impl Version {
    /// Without what is for people only (conditions, transitions, messages) and the tail of states that were left: all
    /// that follows from the rest, or is never read.
    pub(crate) fn new(mut server: Server) -> Arc<Self> {
        if let Some(status) = &mut server.status {
            status.transitions.clear();
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

/// A version, as it was at some time.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) version: Arc<Version>,
    /// Resource version: orders what was seen.
    pub(crate) rv: u32,
}

/// A machine at the IaaS.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) id: u8,
    pub(crate) alive: bool,
    /// The version of the package that is installed; 0 for none.
    pub(crate) package: u8,
    /// The revision of the code that runs; 0 for none.
    pub(crate) code: u8,
}

/// What the load balancer shows of the Server.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) phase: TrafficPhase,
    /// The resource version of the Server that this was decided upon.
    pub(crate) decided: u32,
}

/// What is known when work is done.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Found {
    Machine(u8),
    NoMachine,
    Package(u8),
    Code(u8),
    Failure,
}

/// How far a job is.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Stage {
    Begin,
    /// The IaaS knew no machine.
    Missing,
    Done(Found),
}

/// A task that a process carries out under the lock.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The Server as the claim left it.
    pub(crate) base: Seen,
    pub(crate) task: i64,
    pub(crate) kind: TaskKind,
    pub(crate) stage: Stage,
    /// The lock has not expired, by the process's own clock.
    pub(crate) live: bool,
}

/// A write to the load balancer that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    /// What it is to show.
    pub(crate) target: Option<TrafficPhase>,
    /// The resource version of the Server that it was decided upon.
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
    pub(crate) cache: Option<Seen>,
    pub(crate) job: Option<Job>,
    pub(crate) shot: Option<Shot>,
}

impl Actor {
    pub(crate) fn holder(&self) -> String {
        format!("{}/{}", self.role, self.instance)
    }
}

/// What a person does, each once, at any time.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Deed {
    NewCode,
    NewPackage,
    Offline,
    Online,
    Delete,
    Force(State),
    ClearForce,
    Approve,
    Refuse,
    Retry,
}

/// How often what may go wrong goes wrong.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Processes that crash.
    pub(crate) crashes: u8,
    /// Writes whose answer is lost; the process does not know that they were made, and makes them again.
    pub(crate) lost: u8,
    /// Locks that expire although their holder is at work.
    pub(crate) slow: u8,
    /// Machines that cannot be reached for a while.
    pub(crate) outages: u8,
    /// Applications that are not well for a while.
    pub(crate) sick: u8,
    /// Attempts that fail for good.
    pub(crate) failures: u8,
}

/// A broken guarantee.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Its number in the design.
    pub(crate) guarantee: u8,
    pub(crate) how: &'static str,
}

/// Everything.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) object: Option<Seen>,
    pub(crate) rv: u32,
    pub(crate) machines: Vec<Machine>,
    pub(crate) created: u8,
    pub(crate) endpoint: Option<Endpoint>,
    /// Version of the slice that holds the endpoint.
    pub(crate) slice: u32,
    pub(crate) sick: bool,
    /// Gate tasks that a person has decided.
    pub(crate) approvals: Vec<(i64, bool)>,
    /// A gate was refused, and no person has done anything since.
    pub(crate) refused: Option<i64>,
    /// Whether the force that is declared may have ended.
    pub(crate) force_over: bool,
    pub(crate) actors: Vec<Actor>,
    pub(crate) deeds: Vec<Deed>,
    pub(crate) faults: Faults,
    pub(crate) broken: Option<Broken>,
}

impl World {
    /// The object as it is stored.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.object.as_ref().map(|object| &object.version.server)
    }

    pub(crate) fn break_guarantee(&mut self, guarantee: u8, how: &'static str) {
        self.broken.get_or_insert(Broken { guarantee, how });
    }
}

/// Of resource versions only their order counts, so that states which differ in nothing else are one state.
impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut versions: Vec<u32> = self.object.iter().map(|seen| seen.rv).collect();
        versions.extend(self.endpoint.iter().map(|endpoint| endpoint.decided));
        for actor in &self.actors {
            versions.extend(actor.cache.iter().map(|seen| seen.rv));
            versions.extend(actor.job.iter().map(|job| job.base.rv));
            versions.extend(actor.shot.iter().map(|shot| shot.decided));
        }
        versions.sort_unstable();
        versions.dedup();
        let rank = |rv: u32| versions.binary_search(&rv).unwrap_or(usize::MAX);
        let seen = |seen: &Seen| (seen.version.key, rank(seen.rv));
        self.object.as_ref().map(seen).hash(state);
        self.machines.hash(state);
        self.created.hash(state);
        self.endpoint.as_ref().map(|endpoint| (endpoint.phase, rank(endpoint.decided))).hash(state);
        self.sick.hash(state);
        self.approvals.hash(state);
        self.refused.hash(state);
        self.force_over.hash(state);
        for actor in &self.actors {
            (actor.role, actor.instance, actor.cache.as_ref().map(seen)).hash(state);
            actor.job.as_ref().map(|job| (seen(&job.base), job.task, job.kind, &job.stage, job.live)).hash(state);
            // Whether the slice has changed since it was looked at is all that its version tells.
            actor.shot.as_ref().map(|s| (s.target, rank(s.decided), s.slice == self.slice)).hash(state);
        }
        self.deeds.hash(state);
        self.faults.hash(state);
        self.broken.hash(state);
    }
}

/// States are compared by what their hash covers.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        crate::fingerprint(self) == crate::fingerprint(other)
    }
}
