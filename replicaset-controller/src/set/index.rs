//! The Servers of each set, so that a look at one set costs nothing for the Servers of all others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth_core::api::{Server, VMReplicaSet};
use berth_runtime::Change;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};

use super::members;

/// The Servers of each set, as far as the changes that it was given go.
#[derive(Debug, Default)]
pub struct Index(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By UID of the set, and by name: lists of the API server have the same order, so that a status that names one Server
    /// of many names the same one whatever it was computed from.
    servers: HashMap<String, BTreeMap<String, Arc<Server>>>,
    /// The UID of each Server's set, by the Server's namespace and name.
    owners: HashMap<(String, String), String>,
}

impl Index {
    /// Follows a change. Returns the set that the Server belongs to.
    pub fn follow(&self, change: &Change<Server>) -> Option<ObjectRef<VMReplicaSet>> {
        let server = change.object();
        let (key, name) = ((server.namespace().unwrap_or_default(), server.name_any()), server.name_any());
        let owner = members::owner(server);
        let mut inner = self.lock();
        let is_there = matches!(change, Change::Present(_));
        let uid = owner.filter(|_| is_there).map(|owner| owner.uid.clone());
        let before = inner.owners.get(&key).cloned();
        if let Some(before) = before.filter(|before| Some(before) != uid.as_ref()) {
            inner.owners.remove(&key);
            if let Some(servers) = inner.servers.get_mut(&before) {
                servers.remove(&name);
                if servers.is_empty() {
                    inner.servers.remove(&before);
                }
            }
        }
        if let Some(uid) = uid {
            inner.servers.entry(uid.clone()).or_default().insert(name, server.clone());
            inner.owners.insert(key, uid);
        }
        owner.map(|owner| reference(owner, server))
    }

    /// The Servers of the set.
    #[must_use]
    pub fn of(&self, set: &VMReplicaSet) -> Vec<Arc<Server>> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        self.lock().servers.get(uid).map(|servers| servers.values().cloned().collect()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reference(owner: &OwnerReference, server: &Server) -> ObjectRef<VMReplicaSet> {
    ObjectRef::new(&owner.name).within(server.metadata.namespace.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(uid: &str) -> VMReplicaSet {
        let labels = json!({"app": "web"});
        serde_json::from_value(json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "metadata": {"name": "web", "uid": uid},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"machine": {"className": "local"}}},
            },
        }))
        .unwrap()
    }

    fn server(name: &str, owner: Option<&str>) -> Arc<Server> {
        let mut server = members::new_server(&set(owner.unwrap_or_default()), name);
        server.metadata.namespace = Some("n".into());
        if owner.is_none() {
            server.metadata.owner_references = None;
        }
        Arc::new(server)
    }

    fn names(index: &Index, uid: &str) -> Vec<String> {
        index.of(&set(uid)).iter().map(|s| s.name_any()).collect()
    }

    #[test]
    fn a_server_is_where_its_owner_is_until_it_is_gone() {
        let index = Index::default();
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
        assert!(index.follow(&Change::Gone(server("web-2", Some("b")))).is_some(), "its set is to be looked at");
        index.follow(&Change::SetAside(server("web-1", Some("b"))));
        assert_eq!((names(&index, "a").len(), names(&index, "b").len()), (0, 0));
        let inner = index.lock();
        assert!(inner.owners.is_empty() && inner.servers.is_empty(), "nothing is kept of what is gone");
    }
}
