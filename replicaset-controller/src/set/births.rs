//! Which sets are creating Servers just now.
//!
//! A Server's first claim waits until the Servers that are created together with it are there: the number that was
//! declared is reached as fast as the API server can, and the first of them do not take the room of the last. It costs the
//! first of a thousand Servers a second or two, and the last ones nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth_core::api::{Server, VMReplicaSet};
use futures::{
    Stream,
    channel::mpsc::{UnboundedSender, unbounded},
};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use super::members;

/// The sets that this process creates Servers of, and the Servers that wait for that. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Births(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// By UID of the set.
    under_way: HashMap<String, Batch>,
    told: Vec<UnboundedSender<ObjectRef<Server>>>,
}

#[derive(Debug, Default)]
struct Batch {
    /// How many creations run, each of which may be of many Servers.
    count: usize,
    held: HashSet<ObjectRef<Server>>,
}

impl Births {
    /// The set creates Servers for as long as the guard lives.
    #[must_use]
    pub fn of(&self, set: &VMReplicaSet) -> UnderWay {
        let uid = set.uid().unwrap_or_default();
        self.lock().under_way.entry(uid.clone()).or_default().count += 1;
        UnderWay { births: self.clone(), uid }
    }

    /// Whether the Server is a new one, of a set that still creates others. Then [`Self::ended`] names it once that is over.
    #[must_use]
    pub fn hold(&self, server: &Server) -> bool {
        let Some(owner) = members::owner(server).filter(|_| server.status.is_none()) else { return false };
        let mut inner = self.lock();
        let batch = inner.under_way.get_mut(&owner.uid);
        let is_held = batch.is_some();
        if let Some(batch) = batch {
            batch.held.insert(ObjectRef::from_obj(server));
        }
        is_held
    }

    /// The Servers that need not wait any longer. Every caller gets all of them from then on.
    pub fn ended(&self) -> impl Stream<Item = ObjectRef<Server>> + Send + use<> {
        let (told, telling) = unbounded();
        self.lock().told.push(told);
        telling
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set creates Servers for as long as this lives.
#[derive(Debug)]
pub struct UnderWay {
    births: Births,
    uid: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut inner = self.births.lock();
        let Some(batch) = inner.under_way.get_mut(&self.uid) else { return };
        batch.count -= 1;
        if batch.count > 0 {
            return;
        }
        let held = inner.under_way.remove(&self.uid).unwrap_or_default().held;
        inner.told.retain(|told| !told.is_closed());
        for told in &inner.told {
            for key in &held {
                // Whoever listened is gone: nothing is to be told.
                let _ = told.unbounded_send(key.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(uid: &str) -> VMReplicaSet {
        serde_json::from_value(json!({"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet",
            "metadata": {"name": "s", "uid": uid}, "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"machine": {"className": "c"}}}}}))
        .unwrap()
    }

    fn server(of: &str, status: bool) -> Server {
        let mut server = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "s-0", "ownerReferences": [
            {"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "s", "uid": of, "controller": true}]},
            "spec": {"machine": {"className": "c"}}});
        if status {
            server["status"] = json!({});
        }
        serde_json::from_value(server).unwrap()
    }

    #[test]
    fn new_servers_of_the_set_wait_until_its_last_creation_has_ended() {
        let births = Births::default();
        assert!(!births.hold(&server("a", false)));
        let (one, two) = (births.of(&set("a")), births.clone().of(&set("a")));
        assert!(births.hold(&server("a", false)));
        assert!(!births.hold(&server("a", true)), "whoever has begun goes on");
        assert!(!births.hold(&server("b", false)), "another set's does not wait");
        drop(one);
        assert!(births.hold(&server("a", false)));
        drop(two);
        assert!(!births.hold(&server("a", false)));
        assert!(births.lock().under_way.is_empty());
    }

    #[tokio::test]
    async fn whoever_waited_is_named_to_everybody_who_listens() {
        let births = Births::default();
        let (one, two) = (births.ended(), births.ended());
        let under_way = births.of(&set("a"));
        assert!(births.hold(&server("a", false)) && births.hold(&server("a", false)));
        drop(under_way);
        drop(births);
        let named = |stream| async move { futures::StreamExt::collect::<Vec<_>>(stream).await };
        assert_eq!(named(one).await, [ObjectRef::from_obj(&server("a", false))], "once");
        assert_eq!(named(two).await.len(), 1);
    }
}
