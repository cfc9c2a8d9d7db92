//! The Servers of each set, so that the reconcile of one set costs nothing for the Servers of all others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use berth_core::api::{Server, VMReplicaSet};
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

use crate::Change;

/// The Servers of each set, by the changes that it was given.
#[derive(Debug, Default)]
pub struct ServerIndex(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By UID of the set, and by name: lists of the API server have the same order, so that a status that names one Server of
    /// many names the same one, whichever list it was computed from.
    servers: HashMap<String, BTreeMap<String, Arc<Server>>>,
    /// The UID of each Server's set, by the Server's namespace and name.
    owners: HashMap<(String, String), String>,
}

impl ServerIndex {
    /// Follows a change. Returns the set that the Server belongs to.
    pub fn follow(&self, change: &Change<Server>) -> Option<ObjectRef<VMReplicaSet>> {
        let server = change.object();
        let key = (server.namespace().to_owned(), server.name().to_owned());
        let owner = server.owner();
        let exists = matches!(change, Change::Present(_));
        let uid = owner.filter(|_| exists).map(|owner| owner.uid.clone());
        let mut inner = self.0.lock();
        inner.leave_other_set(&key, uid.as_ref());
        if let Some(uid) = uid {
            inner.servers.entry(uid.clone()).or_default().insert(key.1.clone(), server.clone());
            inner.owners.insert(key, uid);
        }
        owner.map(|owner| ObjectRef::new(&owner.name).within(server.namespace()))
    }

    /// The Servers of the set.
    #[must_use]
    pub fn of(&self, set: &VMReplicaSet) -> Vec<Arc<Server>> {
        let inner = self.0.lock();
        inner.servers.get(set.uid()).map(|servers| servers.values().cloned().collect()).unwrap_or_default()
    }
}

impl Inner {
    /// Removes the Server from the set that it was in, unless that is still its set.
    fn leave_other_set(&mut self, key: &(String, String), uid: Option<&String>) {
        let Some(before) = self.owners.get(key).filter(|before| Some(*before) != uid).cloned() else { return };
        self.owners.remove(key);
        if let Some(servers) = self.servers.get_mut(&before) {
            servers.remove(&key.1);
            if servers.is_empty() {
                self.servers.remove(&before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(uid: &str) -> VMReplicaSet {
        berth_testing::replica_set(json!({"metadata": {"uid": uid}}))
    }

    fn server(name: &str, owner: Option<&str>) -> Arc<Server> {
        let owner = owner.map(|uid| {
            json!([{"apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "name": "web", "uid": uid, "controller": true}])
        });
        Arc::new(berth_testing::server(json!({"metadata": {"name": name, "namespace": "n", "ownerReferences": owner}})))
    }

    fn names(index: &ServerIndex, uid: &str) -> Vec<String> {
        index.of(&set(uid)).iter().map(|s| s.name().to_owned()).collect()
    }

    #[test]
    fn a_server_is_in_the_set_of_its_owner_until_it_is_gone() {
        let index = ServerIndex::default();
        for (name, owner) in [("web-1", Some("a")), ("web-0", Some("a")), ("x", None), ("web-2", Some("b"))] {
            let key = index.follow(&Change::Present(server(name, owner)));
            assert_eq!(key.map(|key| key.name), owner.map(|_| "web".to_owned()));
        }
        assert_eq!(
            (names(&index, "a"), names(&index, "b")),
            (vec!["web-0".into(), "web-1".into()], vec!["web-2".into()])
        );
        index.follow(&Change::Present(server("web-1", Some("b"))));
        assert_eq!((names(&index, "a").len(), names(&index, "b").len()), (1, 2));
        index.follow(&Change::Present(server("web-0", None)));
        assert!(index.follow(&Change::Gone(server("web-2", Some("b")))).is_some(), "its set has to be reconciled");
        index.follow(&Change::Undecodable(server("web-1", Some("b"))));
        assert_eq!((names(&index, "a").len(), names(&index, "b").len()), (0, 0));
        let inner = index.0.lock();
        assert!(inner.owners.is_empty() && inner.servers.is_empty(), "nothing is kept of Servers that are gone");
    }
}
