//! What the handles of a cache and its watch loop share.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{change::Cached, subscribers::Subscribers};

/// The objects, those that cannot be decoded, and the readers.
pub(super) struct Shared<K: Cached> {
    pub(super) store: Store<K>,
    /// Metadata of the objects that exist but cannot be decoded.
    pub(super) undecodable: Arc<Mutex<HashMap<ObjectRef<K>, ObjectMeta>>>,
    pub(super) subscribers: Arc<Subscribers<K>>,
    /// Whether the first list is there. Not the store's own flag: of several tasks that wait for that, it wakes the one that asked last.
    pub(super) is_listed: Arc<watch::Sender<bool>>,
}

impl<K: Cached> Shared<K> {
    pub(super) fn new(store: Store<K>) -> Self {
        let is_listed = Arc::new(watch::Sender::new(false));
        Self { store, undecodable: Arc::default(), subscribers: Arc::default(), is_listed }
    }
}

impl<K: Cached> Clone for Shared<K> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            undecodable: self.undecodable.clone(),
            subscribers: self.subscribers.clone(),
            is_listed: self.is_listed.clone(),
        }
    }
}
