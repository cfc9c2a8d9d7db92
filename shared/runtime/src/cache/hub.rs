//! Who is told about changes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::Stream;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::watch;

use super::{Cached, Change, Seen, feed::Feed};

/// The readers of a cache: those of all changes, and those of one object.
pub(super) struct Hub<K: Cached>(Mutex<Readers<K>>);

struct Readers<K: Cached> {
    feeds: Vec<Feed<K>>,
    followers: HashMap<ObjectRef<K>, watch::Sender<Seen<K>>>,
}

impl<K: Cached> Default for Hub<K> {
    fn default() -> Self {
        Self(Mutex::new(Readers { feeds: Vec::new(), followers: HashMap::new() }))
    }
}

impl<K: Cached> Hub<K> {
    fn readers(&self) -> MutexGuard<'_, Readers<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self, store: &Store<K>) -> impl Stream<Item = Change<K>> + Send + use<K> {
        // Under the readers' lock: a change that comes in now is either in the store already or is told afterwards.
        let mut readers = self.readers();
        let (feed, stream) = Feed::new(store.state().into_iter().map(Change::Present).collect());
        readers.feeds.push(feed);
        stream
    }

    pub(super) fn follow(
        &self,
        key: &ObjectRef<K>,
        seen: impl FnOnce(&ObjectRef<K>) -> Seen<K>,
    ) -> watch::Receiver<Seen<K>> {
        let mut readers = self.readers();
        readers.followers.retain(|_, sender| !sender.is_closed());
        match readers.followers.get(key) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(seen(key));
                readers.followers.insert(key.clone(), sender);
                receiver
            }
        }
    }

    /// Tells everybody. The store has the change already.
    pub(super) fn tell(&self, key: &ObjectRef<K>, change: &Change<K>) {
        let mut readers = self.readers();
        readers.feeds.retain(|feed| feed.push(key, change));
        if let Some(sender) = readers.followers.get(key) {
            sender.send_replace(match change {
                Change::Present(object) => Seen::Present(object.clone()),
                Change::Gone(_) => Seen::Absent,
                Change::SetAside(_) => Seen::SetAside,
            });
        }
    }

    /// No more changes are going to come.
    pub(super) fn close(&self) {
        self.readers().feeds.clear();
    }
}
