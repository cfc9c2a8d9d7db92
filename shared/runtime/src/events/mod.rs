//! Kubernetes Events: they tell people what happened to an object.
//!
//! Own code instead of kube's `Recorder`, which makes an API call for every repeat and keeps the first note: repeats are counted in
//! memory here and written at most every ten seconds with the newest note, by a task of its own, so that publishing neither
//! blocks nor fails. These are core `v1` Events, because the note of an `events.k8s.io` Event is immutable.

mod aggregator;
mod occurrence;
mod writer;

use std::sync::Arc;

use berth_core::api::Executor;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use tokio::sync::mpsc;

pub use occurrence::EventType;
use occurrence::Occurrence;
pub(crate) use writer::EventWriter;

use crate::{Clock, Metrics};

/// How many occurrences may wait for the writer: what it writes in 50 s. Further ones are dropped and counted.
const QUEUE: usize = 1024;

/// Publishes Events. Clones share one writer.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Occurrence>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Events {
    pub(crate) fn new(
        client: Client,
        executor: Executor,
        instance: &str,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> (Self, EventWriter) {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        let writer = EventWriter::new(client, executor, instance, occurrences, clock.clone(), metrics.clone());
        (Self { queue, clock, metrics }, writer)
    }

    /// Publishes what happened to an object. `reason` is one word in CamelCase, `note` a sentence.
    pub fn publish(&self, object: &ObjectReference, kind: EventType, reason: &str, note: impl Into<String>) {
        let occurrence = Occurrence {
            object: object.clone(),
            kind,
            reason: reason.to_owned(),
            note: note.into(),
            at: self.clock.now(),
        };
        if self.queue.try_send(occurrence).is_err() {
            Metrics::count_result(&self.metrics.events, "dropped");
        }
    }
}

/// The reference to an object that an Event is about.
#[must_use]
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}
