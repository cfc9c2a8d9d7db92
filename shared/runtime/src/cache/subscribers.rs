//! The readers of a cache: those that follow all changes, and those that follow one object.

use std::collections::HashMap;

use futures::Stream;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    change::{Cached, CachedObject, Change},
    change_queue::ChangeQueue,
};

/// The readers of a cache.
pub(super) struct Subscribers<K: Cached>(Mutex<Inner<K>>);

struct Inner<K: Cached> {
    /// One queue for each reader of all changes.
    queues: Vec<ChangeQueue<K>>,
    /// One channel for each object that is followed.
    followers: HashMap<ObjectRef<K>, watch::Sender<CachedObject<K>>>,
}

impl<K: Cached> Default for Subscribers<K> {
    fn default() -> Self {
        Self(Mutex::new(Inner { queues: Vec::new(), followers: HashMap::new() }))
    }
}

impl<K: Cached> Subscribers<K> {
    /// A stream of all changes, which begins with every object that is there already.
    pub(super) fn subscribe(&self, store: &Store<K>) -> impl Stream<Item = Change<K>> + Send + use<K> {
        // The lock is held while the store is read: a change is either in the store already, or published afterwards.
        let mut inner = self.0.lock();
        let (queue, stream) = ChangeQueue::new(store.state().into_iter().map(Change::Present).collect());
        inner.queues.push(queue);
        stream
    }

    /// What the cache knows of one object, now (`current`) and whenever it changes.
    pub(super) fn follow(
        &self,
        key: &ObjectRef<K>,
        current: impl FnOnce(&ObjectRef<K>) -> CachedObject<K>,
    ) -> watch::Receiver<CachedObject<K>> {
        let mut inner = self.0.lock();
        inner.followers.retain(|_, sender| !sender.is_closed());
        match inner.followers.get(key) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(current(key));
                inner.followers.insert(key.clone(), sender);
                receiver
            }
        }
    }

    /// Passes a change on to every reader. The store must hold it already.
    pub(super) fn publish(&self, key: &ObjectRef<K>, change: &Change<K>) {
        let mut inner = self.0.lock();
        inner.queues.retain(|queue| queue.push(key, change));
        if let Some(sender) = inner.followers.get(key) {
            sender.send_replace(match change {
                Change::Present(object) => CachedObject::Present(object.clone()),
                Change::Gone(_) => CachedObject::Absent,
                Change::Undecodable(_) => CachedObject::Undecodable,
            });
        }
    }

    /// Ends all streams of changes: no more changes are going to come.
    pub(super) fn close(&self) {
        self.0.lock().queues.clear();
    }
}
