//! A watch of one kind of objects, kept in memory.
//!
//! An object that cannot be decoded is set aside: it leaves the cache, is reported as an Event and a metric, and never
//! stops the watch. `managedFields` are dropped, because nobody reads them and they are half of an object's size; of
//! kinds whose last change matters, the newest entry's time is kept. Of Servers the history (`transitions`) is dropped.

mod compact;
mod feed;
mod guarded;
mod hub;
mod pump;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use berth_core::api::Server;
use futures::{Stream, StreamExt as _, future};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, time::timeout};

use crate::Context;
pub use guarded::Guarded;
use hub::Hub;
use pump::{Keep, Pump};

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// How long a cache may take to bring an own write back.
const LATE: Duration = Duration::from_secs(5);

/// What can be cached.
pub trait Cached: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static {}
impl<K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static> Cached for K {}

/// Servers in memory.
pub type ServerCache = Cache<Server>;

/// Objects of one kind in memory, following a watch.
pub struct Cache<K: Cached> {
    store: Store<K>,
    hub: Arc<Hub<K>>,
    aside: Aside<K>,
}

/// The objects that were set aside.
type Aside<K> = Arc<Mutex<HashMap<ObjectRef<K>, ObjectMeta>>>;

/// A change of an object.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// It is new or has changed; this is how it is now.
    Present(Arc<K>),
    /// It is gone; this is how it was last.
    Gone(Arc<K>),
    /// It can no longer be decoded; this is how it was last. It is **not** gone.
    SetAside(Arc<K>),
}

impl<K> Change<K> {
    /// The object, as it is or was last.
    #[must_use]
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Present(object) | Self::Gone(object) | Self::SetAside(object) => object,
        }
    }
}

/// What the cache knows of one object.
#[derive(Clone, Debug)]
pub enum Seen<K> {
    /// It is there.
    Present(Arc<K>),
    /// It is not there.
    Absent,
    /// It is there, but cannot be decoded.
    SetAside,
}

impl<K: Cached> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), hub: self.hub.clone(), aside: self.aside.clone() }
    }
}

impl<K: Cached> Cache<K> {
    /// Begins to watch all objects of this kind, in every namespace, until shutdown. The process is ready only when
    /// the first list is there.
    #[must_use]
    pub fn start(ctx: &Context) -> Self {
        Self::start_with(ctx, Api::all(ctx.client.clone()), watcher::Config::default())
    }

    /// The same, and [`changed_at`] says of each object when it was last changed.
    #[must_use]
    pub fn start_with_times(ctx: &Context) -> Self {
        Self::begin(ctx, Api::all(ctx.client.clone()), watcher::Config::default(), Keep::LastChange)
    }

    /// The same with an API of one namespace, or with selectors.
    #[must_use]
    pub fn start_with(ctx: &Context, api: Api<Guarded<K>>, config: watcher::Config) -> Self {
        Self::begin(ctx, api, config, Keep::Nothing)
    }

    fn begin(ctx: &Context, api: Api<Guarded<K>>, config: watcher::Config, keep: Keep) -> Self {
        let (store, writer) = reflector::store::<K>();
        let cache = Self { store, hub: Arc::default(), aside: Arc::default() };
        let ready = ctx.readiness.register(K::plural(&()));
        let pump = Pump::new(ctx, cache.clone(), writer, ready, keep);
        let events = watcher(api, config.page_size(PAGE)).default_backoff();
        tokio::spawn(pump.run(events, ctx.shutdown.clone()));
        cache
    }

    /// The objects themselves.
    #[must_use]
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        self.store.get(&key_of(namespace, name))
    }

    /// The metadata of the objects that are there but cannot be decoded. Who counts objects counts these, too.
    #[must_use]
    pub fn set_aside(&self) -> Vec<ObjectMeta> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Returns when the first list is there.
    pub async fn ready(&self) {
        // An error means that the watch has ended, which it does only at shutdown.
        if self.store.wait_until_ready().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The changes from now on, after one `Present` for every object that is there already. Many changes of an object
    /// that nobody has taken yet become one, so that a slow reader costs no memory.
    pub fn changes(&self) -> impl Stream<Item = Change<K>> + Send + use<K> {
        self.hub.subscribe(&self.store)
    }

    /// What is known of one object, now and whenever it changes.
    #[must_use]
    pub fn follow(&self, object: &K) -> watch::Receiver<Seen<K>> {
        self.hub.follow(&ObjectRef::from_obj(object), |key| self.seen(key))
    }

    /// Waits until the cache shows the object as it is here, or as it is later: a look at what was true before an own
    /// write would only repeat what is done. A cache that is late is not waited for beyond a few seconds.
    pub async fn caught_up(&self, object: &K) {
        let mut seen = self.follow(object);
        let caught_up = seen.wait_for(|seen| match seen {
            Seen::Present(cached) => {
                cached.uid() != object.uid() || resource_version(&**cached) >= resource_version(object)
            }
            Seen::Absent | Seen::SetAside => true,
        });
        if timeout(LATE, caught_up).await.is_err() {
            tracing::debug!(object = object.name_any(), "the cache is late");
        }
    }

    /// The objects that are gone, as they were last, until shutdown.
    pub fn gone(&self, ctx: &Context) -> impl Stream<Item = Arc<K>> + Send + use<K> {
        let gone = self.changes().filter_map(|change| {
            future::ready(match change {
                Change::Gone(object) => Some(object),
                Change::Present(_) | Change::SetAside(_) => None,
            })
        });
        gone.take_until(ctx.shutdown.clone().cancelled_owned())
    }

    fn seen(&self, key: &ObjectRef<K>) -> Seen<K> {
        match self.store.get(key) {
            Some(object) => Seen::Present(object),
            None if self.aside.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key) => Seen::SetAside,
            None => Seen::Absent,
        }
    }
}

impl Cache<Server> {
    /// The same, of the Servers that [`begun`] finds.
    #[must_use]
    pub fn start_begun(ctx: &Context) -> Self {
        Self::start_with(ctx, Api::all(ctx.client.clone()), begun())
    }
}

/// The Servers that have a state. Those without one have just been created: nobody but replicaset-controller, which begins
/// them, has to do with them yet, and a large set that is being created is thousands of them. A Server never loses its state
/// again.
#[must_use]
pub fn begun() -> watcher::Config {
    watcher::Config::default().fields("status.state!=")
}

pub(crate) fn key_of<K: Cached>(namespace: Option<&str>, name: &str) -> ObjectRef<K> {
    let key = ObjectRef::new(name);
    match namespace {
        Some(namespace) => key.within(namespace),
        None => key,
    }
}

/// The object's `resourceVersion`. Versions of one kind of object are numbers that rise (promised since Kubernetes
/// 1.35, and true of etcd always).
#[must_use]
pub fn resource_version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// When the object was last changed (other than through a subresource's own managers), as far as the cache keeps it: see
/// [`Cache::start_with_times`]. Whole seconds, by the API server's clock.
#[must_use]
pub fn changed_at<K: Resource>(object: &K) -> Option<Timestamp> {
    let entries = object.meta().managed_fields.iter().flatten();
    entries.filter_map(|entry| entry.time.as_ref()).map(|time| time.0).max()
}

fn version<K: Resource>(object: &K) -> (Option<String>, Option<String>) {
    (object.uid(), object.resource_version())
}
