//! What judges find, and what a client of the load balancer sees.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use k8s_openapi::api::discovery::v1::EndpointSlice;
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
    /// What is stuck says whom it waits for.
    Stuck,
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
    /// The UIDs of Servers that were forgotten, and whose machines therefore have none.
    forgotten: BTreeSet<String>,
    /// Until when work goes on that the API server has forgotten.
    until: Option<Instant>,
}

impl Findings {
    pub(crate) fn report(&self, judge: Judge, text: impl Into<String>) {
        let is_excused = || self.restores.lock().until.is_some_and(|until| Instant::now() < until);
        if judge != Judge::Traffic || !is_excused() {
            self.found.lock().push(Finding::new(judge, text));
        }
    }

    /// The first finding.
    pub(crate) fn first(&self) -> Option<Finding> {
        self.found.lock().first().cloned()
    }

    /// Notes that etcd was restored, which has made the API server forget these Servers, and what controllers were just doing.
    pub(crate) fn note_restore(&self, forgotten: BTreeSet<String>) {
        let mut restores = self.restores.lock();
        restores.forgotten.extend(forgotten);
        restores.until = Some(Instant::now() + FORGOTTEN_WORK);
    }

    /// Whether a restored etcd has forgotten the Server with this UID, so that its machine is an orphan.
    pub(crate) fn is_forgotten(&self, uid: &str) -> bool {
        self.restores.lock().forgotten.contains(uid)
    }
}

/// The Servers that a client of the load balancer reaches, as namespace/name.
pub(crate) fn reached(api: &ApiServer) -> BTreeSet<String> {
    let slices: Vec<EndpointSlice> = api.objects("endpointslices");
    let endpoints = |slice: &EndpointSlice| slice.endpoints.clone().unwrap_or_default();
    let of_slice = slices.iter().flat_map(|slice| {
        let ready = endpoints(slice).into_iter().filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true));
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        ready.filter_map(move |endpoint| Some(format!("{namespace}/{}", endpoint.target_ref?.name?)))
    });
    of_slice.collect()
}
