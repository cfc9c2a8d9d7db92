//! Creation batches: which sets are creating Servers at the moment.
//!
//! The first claim of a new Server waits until all Servers of its batch are created: then the declared number is reached as fast
//! as the API server allows, and the calls of the first Servers do not compete with the creation of the last. It delays the
//! first of a thousand Servers by a second or two, and the last ones not at all.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use berth_core::api::{Server, VMReplicaSet};
use futures::{
    Stream,
    channel::mpsc::{UnboundedSender, unbounded},
};
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

/// The sets that this process is creating Servers for, and the Servers that wait for that. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct CreationBatches(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// By UID of the set.
    batches: HashMap<String, Batch>,
    subscribers: Vec<UnboundedSender<ObjectRef<Server>>>,
}

#[derive(Debug, Default)]
struct Batch {
    /// Reconciles of the set that are creating Servers.
    running: usize,
    waiting: HashSet<ObjectRef<Server>>,
}

impl CreationBatches {
    /// Begins a batch of this set; it is finished when the guard is dropped.
    #[must_use]
    pub fn begin(&self, set: &VMReplicaSet) -> BatchGuard {
        let uid = set.uid().to_owned();
        self.0.lock().batches.entry(uid.clone()).or_default().running += 1;
        BatchGuard { batches: self.clone(), uid }
    }

    /// Whether the Server is a new one of a set that is still creating others. Then [`Self::finished`] names it afterwards.
    #[must_use]
    pub fn must_wait(&self, server: &Server) -> bool {
        let Some(owner) = server.owner().filter(|_| server.status.is_none()) else { return false };
        let mut inner = self.0.lock();
        let Some(batch) = inner.batches.get_mut(&owner.uid) else { return false };
        batch.waiting.insert(ObjectRef::from_obj(server));
        true
    }

    /// The Servers whose batch is finished, from now on. Every subscriber gets all of them.
    pub fn finished(&self) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
        let (sender, receiver) = unbounded();
        self.0.lock().subscribers.push(sender);
        receiver
    }
}

/// A set creates Servers for as long as this lives.
#[derive(Debug)]
pub struct BatchGuard {
    batches: CreationBatches,
    uid: String,
}

impl Drop for BatchGuard {
    fn drop(&mut self) {
        let mut inner = self.batches.0.lock();
        let Some(batch) = inner.batches.get_mut(&self.uid) else { return };
        batch.running -= 1;
        if batch.running > 0 {
            return;
        }
        let waiting = inner.batches.remove(&self.uid).unwrap_or_default().waiting;
        inner.subscribers.retain(|subscriber| !subscriber.is_closed());
        for subscriber in &inner.subscribers {
            for server in &waiting {
                // A subscriber that is gone needs no notification.
                let _ = subscriber.unbounded_send(server.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::Resource;
    use serde_json::json;

    use super::*;

    fn set(uid: &str) -> VMReplicaSet {
        berth_testing::replica_set(json!({"metadata": {"uid": uid}}))
    }

    fn server(of: &str, status: bool) -> Server {
        let owner = set(of).controller_owner_ref(&());
        let status = status.then(|| json!({}));
        berth_testing::server(json!({"metadata": {"ownerReferences": [owner]}, "status": status}))
    }

    #[test]
    fn new_servers_wait_until_the_last_batch_of_their_set_is_finished() {
        let batches = CreationBatches::default();
        assert!(!batches.must_wait(&server("a", false)));
        let (one, two) = (batches.begin(&set("a")), batches.clone().begin(&set("a")));
        assert!(batches.must_wait(&server("a", false)));
        assert!(!batches.must_wait(&server("a", true)), "a Server with a status has begun");
        assert!(!batches.must_wait(&server("b", false)), "a Server of another set does not wait");
        drop(one);
        assert!(batches.must_wait(&server("a", false)));
        drop(two);
        assert!(!batches.must_wait(&server("a", false)));
        assert!(batches.0.lock().batches.is_empty());
    }

    #[tokio::test]
    async fn every_subscriber_gets_each_waiting_server_once() {
        let batches = CreationBatches::default();
        let (one, two) = (batches.finished(), batches.finished());
        let guard = batches.begin(&set("a"));
        assert!(batches.must_wait(&server("a", false)) && batches.must_wait(&server("a", false)));
        drop(guard);
        drop(batches);
        let named = |stream| async move { futures::StreamExt::collect::<Vec<_>>(stream).await };
        assert_eq!(named(one).await, [ObjectRef::from_obj(&server("a", false))], "once");
        assert_eq!(named(two).await.len(), 1);
    }
}
