//! A watch of one kind of objects, kept in memory.
//!
//! Own code instead of kube's `reflector` alone: an object that cannot be decoded must not stop the watch (it is ignored,
//! reported as an Event and a metric, and its metadata is kept, because such an object is not gone), and several readers need
//! changes without holding each other up, which kube 5's shared streams do not give.

mod change;
mod change_queue;
mod guarded;
mod shared;
mod subscribers;
#[cfg(test)]
mod tests;
mod watch_loop;

use std::{sync::Arc, time::Duration};

use berth_core::api::{Server, ServerStatus};
use futures::{Stream, StreamExt as _, future};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use tokio::{sync::watch, time::timeout};

use crate::Context;
pub(crate) use change::key_of;
pub use change::{Cached, CachedObject, Change, changed_at, resource_version};
pub use guarded::Guarded;
use shared::Shared;
use watch_loop::{Trim, WatchLoop};

/// Objects of a page of a list: few enough that a page in flight is small beside the cache itself.
const PAGE: u32 = 500;

/// How long to wait for the cache to show an own write. A watch that is later than this has a fault of its own.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(5);

/// Servers in memory.
pub type ServerCache = Cache<Server>;

/// Objects of one kind in memory, following a watch. Clones share the objects.
pub struct Cache<K: Cached>(Shared<K>);

impl<K: Cached> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Which objects a cache holds, and what it keeps of them.
pub struct CacheOptions<K> {
    watch: watcher::Config,
    trim: Trim<K>,
}

impl<K> Default for CacheOptions<K> {
    /// All objects of the kind, without their `managedFields`: nobody reads them, and they are half of an object's size.
    fn default() -> Self {
        Self { watch: watcher::Config::default(), trim: Trim { keeps_change_times: false, drop_unused: |_| {} } }
    }
}

impl<K> CacheOptions<K> {
    /// Only the objects that this watch selects.
    #[must_use]
    pub fn select(self, watch: watcher::Config) -> Self {
        Self { watch, ..self }
    }

    /// Keeps when each object was last changed: see [`changed_at`].
    #[must_use]
    pub fn keep_change_times(mut self) -> Self {
        self.trim.keeps_change_times = true;
        self
    }

    /// Drops from memory what nobody reads.
    #[must_use]
    pub fn drop_unused(mut self, drop_unused: fn(&mut K)) -> Self {
        self.trim.drop_unused = drop_unused;
        self
    }
}

impl CacheOptions<Server> {
    /// All Servers without their history: only people read it, and there are thousands of Servers.
    #[must_use]
    pub fn servers() -> Self {
        Self::default().drop_unused(|server| {
            if let Some(ServerStatus { history, .. }) = &mut server.status {
                *history = Vec::new();
            }
        })
    }

    /// The Servers that [`with_state`] selects.
    #[must_use]
    pub fn servers_with_state() -> Self {
        Self::servers().select(with_state())
    }
}

/// Selects the Servers that have a state. A Server without one has just been created: only replicaset-controller, which begins
/// its life, has anything to do with it, and a large set that is being created has thousands. A Server never loses its state.
#[must_use]
pub fn with_state() -> watcher::Config {
    watcher::Config::default().fields("status.state!=")
}

impl<K: Cached> Cache<K> {
    /// Begins to watch all objects of this kind, in every namespace, until shutdown. The process is ready only when the first
    /// list is there.
    #[must_use]
    pub fn start(ctx: &Context) -> Self {
        Self::start_with(ctx, CacheOptions::default())
    }

    /// The same, with options.
    #[must_use]
    pub fn start_with(ctx: &Context, options: CacheOptions<K>) -> Self {
        let CacheOptions { watch, trim } = options;
        let (store, writer) = reflector::store::<K>();
        let shared = Shared::new(store);
        let ready = ctx.readiness.register(K::plural(&()));
        let watch_loop = WatchLoop::new(ctx, shared.clone(), writer, ready, trim);
        let api = Api::<Guarded<K>>::all(ctx.client.clone());
        let events = watcher(api, watch.page_size(PAGE)).default_backoff();
        tokio::spawn(watch_loop.run(events, ctx.shutdown.clone()));
        Self(shared)
    }

    /// The objects themselves.
    #[must_use]
    pub fn store(&self) -> Store<K> {
        self.0.store.clone()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        self.0.store.get(&key_of(namespace, name))
    }

    /// The metadata of the objects that exist but cannot be decoded. A count of objects must include these.
    #[must_use]
    pub fn undecodable(&self) -> Vec<ObjectMeta> {
        self.0.undecodable.lock().values().cloned().collect()
    }

    /// Returns when the first list is there. Any number of tasks may wait for that.
    pub async fn ready(&self) {
        // There is no error: this cache holds the sender.
        let _ = self.0.is_listed.subscribe().wait_for(|is_listed| *is_listed).await;
    }

    /// The changes from now on, after one `Present` for every object that is there already. Changes of one object that the
    /// reader has not taken yet become one, so that a slow reader costs no memory.
    pub fn changes(&self) -> impl Stream<Item = Change<K>> + Send + use<K> {
        self.0.subscribers.subscribe(&self.0.store)
    }

    /// What the cache knows of one object, now and whenever it changes.
    #[must_use]
    pub fn follow(&self, object: &K) -> watch::Receiver<CachedObject<K>> {
        self.0.subscribers.follow(&ObjectRef::from_obj(object), |key| self.known(key))
    }

    /// Waits until the cache shows this version of the object or a later one: reconciling an older version would only repeat
    /// what an own write has done. A cache that is late is not waited for beyond a few seconds.
    pub async fn catch_up_with(&self, object: &K) {
        let mut known = self.follow(object);
        let caught_up = known.wait_for(|known| match known {
            CachedObject::Present(cached) => {
                cached.uid() != object.uid() || resource_version(&**cached) >= resource_version(object)
            }
            CachedObject::Absent | CachedObject::Undecodable => true,
        });
        if timeout(CATCH_UP_LIMIT, caught_up).await.is_err() {
            tracing::debug!(object = object.name_any(), "the cache does not show an own write yet");
        }
    }

    /// The objects that are deleted from now on, in their last known version, until shutdown.
    pub fn deleted(&self, ctx: &Context) -> impl Stream<Item = Arc<K>> + Send + use<K> {
        let deleted = self.changes().filter_map(|change| {
            future::ready(match change {
                Change::Gone(object) => Some(object),
                Change::Present(_) | Change::Undecodable(_) => None,
            })
        });
        deleted.take_until(ctx.shutdown.clone().cancelled_owned())
    }

    fn known(&self, key: &ObjectRef<K>) -> CachedObject<K> {
        match self.0.store.get(key) {
            Some(object) => CachedObject::Present(object),
            None if self.0.undecodable.lock().contains_key(key) => CachedObject::Undecodable,
            None => CachedObject::Absent,
        }
    }
}
