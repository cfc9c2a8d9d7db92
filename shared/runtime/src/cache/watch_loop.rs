//! The loop that applies the events of a watch to the cache and publishes the changes.

use std::{collections::HashMap, pin::pin, sync::Arc};

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

use super::{
    change::{Cached, Change, changed_at, key_of},
    guarded::Guarded,
    shared::Shared,
};
use crate::{Context, EventType, Events, Metrics, ReadinessFlag, metrics::KindLabels};

/// Applies the events of one watch to the cache.
pub(super) struct WatchLoop<K: Cached> {
    shared: Shared<K>,
    writer: Writer<K>,
    /// Undecodable objects of the list that is being received.
    listed_undecodable: HashMap<ObjectRef<K>, ObjectMeta>,
    ready: ReadinessFlag,
    events: Events,
    metrics: Arc<Metrics>,
    kind: String,
    trim: Trim<K>,
}

/// Which parts of its objects a cache does not keep in memory.
pub(super) struct Trim<K> {
    /// Whether the time of the last change is kept; the rest of `managedFields` is dropped.
    pub(super) keeps_change_times: bool,
    /// Drops fields that nobody reads.
    pub(super) drop_unused: fn(&mut K),
}

impl<K: Cached> Trim<K> {
    fn apply(&self, mut object: K) -> K {
        let last = changed_at(&object).filter(|_| self.keeps_change_times);
        let entry = |at| vec![ManagedFieldsEntry { time: Some(Time(at)), ..ManagedFieldsEntry::default() }];
        object.meta_mut().managed_fields = last.map(entry);
        (self.drop_unused)(&mut object);
        object
    }
}

impl<K: Cached> WatchLoop<K> {
    pub(super) fn new(
        ctx: &Context,
        shared: Shared<K>,
        writer: Writer<K>,
        ready: ReadinessFlag,
        trim: Trim<K>,
    ) -> Self {
        Self {
            shared,
            writer,
            listed_undecodable: HashMap::new(),
            ready,
            events: ctx.events.clone(),
            metrics: ctx.metrics.clone(),
            kind: K::kind(&()).into_owned(),
            trim,
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
                biased;
                () = shutdown.cancelled() => None,
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => self.handle(event),
                Some(Err(error)) => {
                    let labels = KindLabels { kind: self.kind.clone() };
                    self.metrics.watch_errors.get_or_create(&labels).inc();
                    tracing::warn!(kind = self.kind, %error, "a watch failed and is started again");
                }
                None => break,
            }
        }
        self.shared.subscribers.close();
    }

    fn handle(&mut self, event: Event<Guarded<K>>) {
        match event {
            Event::Init => {
                self.listed_undecodable.clear();
                self.writer.apply_watcher_event(&Event::Init);
            }
            Event::InitApply(Guarded(Ok(object))) => {
                self.writer.apply_watcher_event(&Event::InitApply(self.trim.apply(object)));
            }
            Event::InitApply(Guarded(Err(invalid))) => {
                let key = self.report(&invalid);
                self.listed_undecodable.insert(key, invalid.metadata);
            }
            Event::InitDone => self.listed(),
            Event::Apply(Guarded(Ok(object))) => self.applied(self.trim.apply(object)),
            Event::Apply(Guarded(Err(invalid))) => self.became_undecodable(invalid),
            Event::Delete(object) => self.deleted(&object),
        }
        Metrics::set_by_kind(&self.metrics.cached_objects, &self.kind, self.shared.store.len());
        Metrics::set_by_kind(&self.metrics.undecodable_objects, &self.kind, self.undecodable(|known| known.len()));
    }

    fn undecodable<T>(&self, f: impl FnOnce(&mut HashMap<ObjectRef<K>, ObjectMeta>) -> T) -> T {
        f(&mut self.shared.undecodable.lock())
    }

    /// A list is complete. Only objects that changed are published, so that a new list does not cause reconciles.
    fn listed(&mut self) {
        let mut before: HashMap<ObjectRef<K>, Arc<K>> =
            self.shared.store.state().into_iter().map(|object| (ObjectRef::from_obj(&*object), object)).collect();
        self.writer.apply_watcher_event(&Event::InitDone);
        let listed = std::mem::take(&mut self.listed_undecodable);
        self.undecodable(|known| *known = listed);
        for object in self.shared.store.state() {
            let key = ObjectRef::from_obj(&*object);
            if before.remove(&key).is_none_or(|old| version(&*old) != version(&*object)) {
                self.shared.subscribers.publish(&key, &Change::Present(object));
            }
        }
        for (key, old) in before {
            let is_undecodable = self.undecodable(|known| known.contains_key(&key));
            self.shared
                .subscribers
                .publish(&key, &if is_undecodable { Change::Undecodable(old) } else { Change::Gone(old) });
        }
        self.shared.is_listed.send_replace(true);
        self.ready.set(true);
    }

    fn applied(&mut self, object: K) {
        let key = ObjectRef::from_obj(&object);
        self.undecodable(|known| known.remove(&key));
        self.writer.apply_watcher_event(&Event::Apply(object));
        if let Some(object) = self.shared.store.get(&key) {
            self.shared.subscribers.publish(&key, &Change::Present(object));
        }
    }

    fn became_undecodable(&mut self, invalid: InvalidObject) {
        let key = self.report(&invalid);
        self.undecodable(|known| known.insert(key.clone(), invalid.metadata));
        if let Some(old) = self.remove(&key) {
            self.shared.subscribers.publish(&key, &Change::Undecodable(old));
        }
    }

    fn deleted(&mut self, object: &Guarded<K>) {
        let key = key_of(object.namespace().as_deref(), &object.name_any());
        self.undecodable(|known| known.remove(&key));
        // The version in the event is published, if there is one: it may be newer than the cached one.
        let known = self.remove(&key);
        if let Some(last) = object.0.as_ref().ok().map(|o| Arc::new(self.trim.apply(o.clone()))).or(known) {
            self.shared.subscribers.publish(&key, &Change::Gone(last));
        }
    }

    fn remove(&mut self, key: &ObjectRef<K>) -> Option<Arc<K>> {
        let old = self.shared.store.get(key)?;
        self.writer.apply_watcher_event(&Event::Delete((*old).clone()));
        Some(old)
    }

    /// Reports an undecodable object to people.
    fn report(&self, invalid: &InvalidObject) -> ObjectRef<K> {
        let ObjectMeta { name, namespace, uid, .. } = &invalid.metadata;
        let key = key_of(namespace.as_deref(), name.as_deref().unwrap_or_default());
        tracing::warn!(kind = self.kind, object = %key, error = invalid.error, "an object cannot be decoded and is ignored");
        let object = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(self.kind.clone()),
            name: name.clone(),
            namespace: namespace.clone(),
            uid: uid.clone(),
            ..ObjectReference::default()
        };
        let note = format!("the object cannot be decoded and is ignored until it is corrected: {}", invalid.error);
        self.events.publish(&object, EventType::Warning, "Undecodable", note);
        key
    }
}

/// Identifies a version of an object.
fn version<K: Cached>(object: &K) -> (Option<&String>, Option<&String>) {
    let metadata = object.meta();
    (metadata.uid.as_ref(), metadata.resource_version.as_ref())
}
