//! What judges find, and what a client of the load balancer sees.

use std::{collections::BTreeSet, fmt, sync::Arc};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;

use crate::ApiServer;

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
pub(crate) struct Findings(Arc<Mutex<Vec<Finding>>>);

impl Findings {
    pub(crate) fn report(&self, judge: Judge, text: impl Into<String>) {
        self.0.lock().push(Finding::new(judge, text));
    }

    /// The first finding.
    pub(crate) fn first(&self) -> Option<Finding> {
        self.0.lock().first().cloned()
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
