//! Kubernetes Events: telling people what happened to an object.
//!
//! Events are sent by a task of their own: publishing neither blocks nor fails. Repeats are counted in memory and
//! written at most every ten seconds per object and reason. Core `v1` Events are used, because the note of an
//! `events.k8s.io` one cannot be changed, so that a repeat would keep the first note.

mod send;
mod series;

use std::sync::Arc;

use berth_core::api::Executor;
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{Client, Resource};
use tokio::sync::mpsc;

pub(crate) use send::Sender;

use crate::{Clock, Metrics};

/// Notices that wait to be sent; more are dropped, and counted.
const QUEUE: usize = 1024;

/// Whether an Event is a good or a bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Somebody may want to look at it.
    Warning,
}

impl EventType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) object: ObjectReference,
    pub(crate) kind: EventType,
    pub(crate) reason: String,
    pub(crate) note: String,
    pub(crate) at: Timestamp,
}

/// Where Events go.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Notice>,
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
    ) -> (Self, Sender) {
        let (queue, notices) = mpsc::channel(QUEUE);
        let sender = Sender::new(client, executor, instance, notices, clock.clone(), metrics.clone());
        (Self { queue, clock, metrics }, sender)
    }

    /// Tells what happened to an object. `reason` is one word in CamelCase, `note` a sentence.
    pub fn publish(&self, object: &ObjectReference, kind: EventType, reason: &str, note: impl Into<String>) {
        let notice =
            Notice { object: object.clone(), kind, reason: reason.to_owned(), note: note.into(), at: self.clock.now() };
        if self.queue.try_send(notice).is_err() {
            Metrics::count(&self.metrics.events, "dropped");
        }
    }
}

/// The reference to an object that an Event is about.
#[must_use]
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}
