//! The garbage collector of kube-controller-manager: an object whose owners are all gone is deleted.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    ApiServer,
    metadata::{self, has_finalizers, is_being_deleted, text},
    store::Key,
};

impl ApiServer {
    /// What the garbage collector of kube-controller-manager does: deletes objects whose owners are all gone. Runs until it is
    /// dropped.
    pub async fn collect_garbage(&self) {
        let mut changed = self.0.store.lock().changed();
        loop {
            for key in orphans(self) {
                delete(self, &key);
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The objects that have owners none of which exists.
fn orphans(api: &ApiServer) -> Vec<Key> {
    let store = api.0.store.lock();
    let living: BTreeSet<&str> = store.iter().filter_map(|(_, object)| text(object, "uid")).collect();
    let is_orphan = |object: &Value| {
        let owners = object["metadata"]["ownerReferences"].as_array().filter(|owners| !owners.is_empty());
        let lives = |owner: &Value| owner["uid"].as_str().is_some_and(|uid| living.contains(uid));
        owners.is_some_and(|owners| !owners.iter().any(lives)) && !is_being_deleted(object)
    };
    store.iter().filter(|(_, object)| is_orphan(object)).map(|(key, _)| key.clone()).collect()
}

fn delete(api: &ApiServer, key: &Key) {
    let (now, mut store) = (api.now(), api.0.store.lock());
    store.set_author("");
    let Some(object) = store.get(key) else { return };
    if has_finalizers(&object) {
        let mut object = (*object).clone();
        metadata::request_deletion(&api.0.resources[key.resource], &mut object, now);
        store.put(key, object);
    } else {
        store.remove(key);
    }
}
