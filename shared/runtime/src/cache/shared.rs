//! What the handles of a cache and its watch loop share.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;

use super::{change::Cached, subscribers::Subscribers};

/// The objects, those that cannot be decoded, and the readers.
pub(super) struct Shared<K: Cached> {
    pub(super) store: Store<K>,
    /// Metadata of the objects that exist but cannot be decoded.
    pub(super) undecodable: Arc<Mutex<HashMap<ObjectRef<K>, ObjectMeta>>>,
    pub(super) subscribers: Arc<Subscribers<K>>,
}

impl<K: Cached> Shared<K> {
    pub(super) fn new(store: Store<K>) -> Self {
        Self { store, undecodable: Arc::default(), subscribers: Arc::default() }
    }
}

impl<K: Cached> Clone for Shared<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), undecodable: self.undecodable.clone(), subscribers: self.subscribers.clone() }
    }
}
