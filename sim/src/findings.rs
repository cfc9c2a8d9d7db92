//! What judges find, and what a client of the load balancer sees.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::ApiServer;

/// How long a controller may go on with work that a restored etcd has forgotten: it renews its lock within 15 s, notices that it is
/// lost, and has 10 s to stop; requests may be late.
const FORGOTTEN_WORK: Duration = Duration::from_mins(1);

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What found it. A shrinker looks for a shorter run in which the same judge finds something.
    pub judge: Judge,
    /// What is wrong, in words.
    pub text: String,
}

/// What a run is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judge {
    /// A program does not start, or a person's request is refused that must be possible.
    Story,
    /// One Server never has two machines, and no machine outlives its Server (guarantee 1).
    Machines,
    /// No machine is changed while clients are sent to it (guarantee 2).
    Traffic,
    /// Nothing that Berth starts makes more Servers unavailable than the budget allows (guarantee 3).
    Budget,
    /// A machine is changed only by who holds the Server's lock (guarantee 4).
    Lock,
    /// A task is begun only by its executor, and its result counted once (guarantee 4).
    Tasks,
    /// A Server's object goes only after traffic and machine are gone (guarantee 5).
    End,
    /// Automation never undoes a person's decision (guarantee 6).
    Decisions,
    /// Nothing behind a gate happens before a person has approved it (guarantee 6).
    Gates,
    /// Failover harms no machine that runs and answers (guarantee 10).
    Failover,
    /// No more Servers get new code than the present step lets have it, and a step ends when what it waits for has happened.
    Steps,
    /// One zone gets new code at a time, where that is declared.
    Zones,
    /// What is stuck says whom it waits for.
    Stuck,
    /// Scripts change a machine one after the other, and only as long as their clients may change it.
    Scripts,
    /// The fleet becomes as declared, or names the person whom it waits for (guarantee 8).
    Liveness,
    /// Bad input is refused, with words that name the field (guarantee 9).
    Input,
    /// A fleet at rest writes nothing.
    Rest,
    /// No object is written or read again and again, as fast as possible.
    HotLoop,
    /// What a newer release has written is left alone.
    Upgrade,
}

impl Finding {
    pub(crate) fn new(judge: Judge, text: impl Into<String>) -> Self {
        Self { judge, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.judge, self.text)
    }
}

/// What was found to be wrong, in the order in which it happened.
#[derive(Clone, Default)]
pub(crate) struct Findings {
    found: Arc<Mutex<Vec<Finding>>>,
    restores: Arc<Mutex<Restores>>,
}

/// What restores of etcd have made the API server forget.
#[derive(Default)]
struct Restores {
    /// The UIDs of Servers that were forgotten, or whose machines were: these machines may become orphans.
    forgotten: BTreeSet<String>,
    /// When etcd was restored last.
    at: Option<Instant>,
}

impl Findings {
    pub(crate) fn report(&self, judge: Judge, text: impl Into<String>) {
        let is_excused = || self.restores.lock().at.is_some_and(|at| at.elapsed() < FORGOTTEN_WORK);
        if !matches!(judge, Judge::Traffic | Judge::Lock) || !is_excused() {
            self.found.lock().push(Finding::new(judge, text));
        }
    }

    /// The first finding.
    pub(crate) fn first(&self) -> Option<Finding> {
        self.found.lock().first().cloned()
    }

    /// Notes that etcd was restored, which has made the API server forget these Servers, or their machines, and what controllers were
    /// just doing.
    pub(crate) fn note_restore(&self, forgotten: BTreeSet<String>) {
        let mut restores = self.restores.lock();
        restores.forgotten.extend(forgotten);
        restores.at = Some(Instant::now());
    }

    /// Whether etcd was restored at this moment or later, so that the API server may have forgotten what was begun then.
    pub(crate) fn was_restored_since(&self, begun: Instant) -> bool {
        self.restores.lock().at.is_some_and(|at| at >= begun)
    }

    /// Whether a restored etcd has forgotten the Server with this UID or its machine, so that the machine is an orphan once there is no
    /// such Server.
    pub(crate) fn is_forgotten(&self, uid: &str) -> bool {
        self.restores.lock().forgotten.contains(uid)
    }
}

/// Whether a client of the load balancer reaches this Server, named as namespace/name.
pub(crate) fn is_reached(api: &ApiServer, server: &str) -> bool {
    let slices: Vec<Arc<EndpointSlice>> = api.decoded("endpointslices");
    let Some((namespace, name)) = server.split_once('/') else { return false };
    let of_namespace = slices.iter().filter(|slice| slice.metadata.namespace.as_deref() == Some(namespace));
    let mut endpoints = of_namespace.flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.any(|endpoint| is_ready(endpoint) && self::name(endpoint) == Some(name))
}

/// The Servers that a client of the load balancer reaches, as namespace/name.
pub(crate) fn reached(api: &ApiServer) -> BTreeSet<String> {
    let slices: Vec<Arc<EndpointSlice>> = api.decoded("endpointslices");
    let of_slice = slices.iter().flat_map(|slice| {
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let ready = slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint));
        ready.filter_map(move |endpoint| Some(format!("{namespace}/{}", name(endpoint)?)))
    });
    of_slice.collect()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true)
}

fn name(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.name.as_deref()
}
