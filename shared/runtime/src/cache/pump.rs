//! Takes the events of a watch into the cache, and tells the readers.

use std::{collections::HashMap, pin::pin, sync::Arc, sync::PoisonError};

use futures::{Stream, StreamExt};
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, Time},
};
use kube::{
    ResourceExt,
    core::error_boundary::InvalidObject,
    runtime::{
        reflector::{ObjectRef, store::Writer},
        watcher::{self, Event},
    },
};
use tokio_util::sync::CancellationToken;

use super::{Cache, Cached, Change, Guarded, changed_at, compact::compact, key_of, version};
use crate::{Context, EventType, Events, Metrics, Ready};

pub(super) struct Pump<K: Cached> {
    cache: Cache<K>,
    writer: Writer<K>,
    /// Undecodable objects of the list that is being received.
    listed_aside: HashMap<ObjectRef<K>, ObjectMeta>,
    ready: Ready,
    events: Events,
    metrics: Arc<Metrics>,
    kind: String,
    keep: Keep,
}

/// What is kept of `managedFields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Nothing,
    /// When the newest entry was written.
    LastChange,
}

impl Keep {
    fn stripped<K: Cached>(self, mut object: K) -> K {
        let last = changed_at(&object).filter(|_| self == Self::LastChange);
        let entry = |at| vec![ManagedFieldsEntry { time: Some(Time(at)), ..ManagedFieldsEntry::default() }];
        object.meta_mut().managed_fields = last.map(entry);
        compact(&mut object);
        object
    }
}

impl<K: Cached> Pump<K> {
    pub(super) fn new(ctx: &Context, cache: Cache<K>, writer: Writer<K>, ready: Ready, keep: Keep) -> Self {
        Self {
            cache,
            writer,
            listed_aside: HashMap::new(),
            ready,
            events: ctx.events.clone(),
            metrics: ctx.metrics.clone(),
            kind: K::kind(&()).into_owned(),
            keep,
        }
    }

    pub(super) async fn run(
        mut self,
        events: impl Stream<Item = watcher::Result<Event<Guarded<K>>>> + Send,
        shutdown: CancellationToken,
    ) {
        let mut events = pin!(events);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = shutdown.cancelled() => None,
            };
            match event {
                Some(Ok(event)) => self.take(event),
                Some(Err(error)) => {
                    Metrics::count(&self.metrics.watch_errors, &self.kind);
                    tracing::warn!(kind = self.kind, %error, "a watch failed; it is going to be started again");
                }
                None => break,
            }
        }
        self.cache.hub.close();
    }

    fn take(&mut self, event: Event<Guarded<K>>) {
        match event {
            Event::Init => {
                self.listed_aside.clear();
                self.writer.apply_watcher_event(&Event::Init);
            }
            Event::InitApply(Guarded(Ok(object))) => {
                self.writer.apply_watcher_event(&Event::InitApply(self.keep.stripped(object)));
            }
            Event::InitApply(Guarded(Err(invalid))) => {
                let key = self.report(&invalid);
                self.listed_aside.insert(key, invalid.metadata);
            }
            Event::InitDone => self.listed(),
            Event::Apply(Guarded(Ok(object))) => self.applied(self.keep.stripped(object)),
            Event::Apply(Guarded(Err(invalid))) => self.set_aside(invalid),
            Event::Delete(object) => self.deleted(&object),
        }
        Metrics::set(&self.metrics.objects, &self.kind, self.cache.store.len());
        Metrics::set(&self.metrics.undecodable, &self.kind, self.aside(|aside| aside.len()));
    }

    fn aside<T>(&self, f: impl FnOnce(&mut HashMap<ObjectRef<K>, ObjectMeta>) -> T) -> T {
        f(&mut self.cache.aside.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A list is complete. Only what differs from before is told: listing again costs no reconciles.
    fn listed(&mut self) {
        let mut before: HashMap<ObjectRef<K>, Arc<K>> =
            self.cache.store.state().into_iter().map(|object| (ObjectRef::from_obj(&*object), object)).collect();
        self.writer.apply_watcher_event(&Event::InitDone);
        let listed = std::mem::take(&mut self.listed_aside);
        self.aside(|aside| *aside = listed);
        for object in self.cache.store.state() {
            let key = ObjectRef::from_obj(&*object);
            if before.remove(&key).is_none_or(|old| version(&*old) != version(&*object)) {
                self.cache.hub.tell(&key, &Change::Present(object));
            }
        }
        for (key, old) in before {
            let is_aside = self.aside(|aside| aside.contains_key(&key));
            self.cache.hub.tell(&key, &if is_aside { Change::SetAside(old) } else { Change::Gone(old) });
        }
        self.ready.set(true);
    }

    fn applied(&mut self, object: K) {
        let key = ObjectRef::from_obj(&object);
        self.aside(|aside| aside.remove(&key));
        self.writer.apply_watcher_event(&Event::Apply(object));
        if let Some(object) = self.cache.store.get(&key) {
            self.cache.hub.tell(&key, &Change::Present(object));
        }
    }

    fn set_aside(&mut self, invalid: InvalidObject) {
        let key = self.report(&invalid);
        self.aside(|aside| aside.insert(key.clone(), invalid.metadata));
        if let Some(old) = self.remove(&key) {
            self.cache.hub.tell(&key, &Change::SetAside(old));
        }
    }

    fn deleted(&mut self, object: &Guarded<K>) {
        let key = key_of(object.namespace().as_deref(), &object.name_any());
        self.aside(|aside| aside.remove(&key));
        // The last state is told, if the event has it: it may be newer than what the cache has.
        let known = self.remove(&key);
        if let Some(last) = object.0.as_ref().ok().map(|o| Arc::new(self.keep.stripped(o.clone()))).or(known) {
            self.cache.hub.tell(&key, &Change::Gone(last));
        }
    }

    fn remove(&mut self, key: &ObjectRef<K>) -> Option<Arc<K>> {
        let old = self.cache.store.get(key)?;
        self.writer.apply_watcher_event(&Event::Delete((*old).clone()));
        Some(old)
    }

    /// Tells people that an object cannot be decoded.
    fn report(&self, invalid: &InvalidObject) -> ObjectRef<K> {
        let ObjectMeta { name, namespace, uid, .. } = &invalid.metadata;
        let key = key_of(namespace.as_deref(), name.as_deref().unwrap_or_default());
        tracing::warn!(kind = self.kind, object = %key, error = invalid.error, "an object cannot be decoded and is set aside");
        let object = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(self.kind.clone()),
            name: name.clone(),
            namespace: namespace.clone(),
            uid: uid.clone(),
            ..ObjectReference::default()
        };
        let note = format!("cannot be decoded, and is set aside until it is corrected: {}", invalid.error);
        self.events.publish(&object, EventType::Warning, "Undecodable", note);
        key
    }
}
