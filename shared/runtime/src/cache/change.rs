//! The vocabulary of a cache: what can be cached, and how objects change.

use std::{fmt::Debug, sync::Arc};

use berth_core::api::Executor;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry, jiff::Timestamp};
use kube::{Resource, runtime::reflector::ObjectRef};
use serde::de::DeserializeOwned;

/// What can be cached.
pub trait Cached: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static {}
impl<K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static> Cached for K {}

/// A change of an object.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// It is new or has changed; this is its newest version.
    Present(Arc<K>),
    /// It is gone; this is its last known version.
    Gone(Arc<K>),
    /// Its newest version cannot be decoded; this is the last one that could. The object is **not** gone.
    Undecodable(Arc<K>),
}

impl<K> Change<K> {
    /// The newest version that could be decoded.
    #[must_use]
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Present(object) | Self::Gone(object) | Self::Undecodable(object) => object,
        }
    }
}

/// What the cache knows of one object.
#[derive(Clone, Debug)]
pub enum CachedObject<K> {
    /// It exists.
    Present(Arc<K>),
    /// It does not exist.
    Absent,
    /// It exists, but cannot be decoded.
    Undecodable,
}

pub(crate) fn key_of<K: Cached>(namespace: Option<&str>, name: &str) -> ObjectRef<K> {
    let key = ObjectRef::new(name);
    match namespace {
        Some(namespace) => key.within(namespace),
        None => key,
    }
}

/// The object's `resourceVersion` as a number. Versions of one kind of object are numbers that rise (promised since
/// Kubernetes 1.35, and always true of etcd).
#[must_use]
pub fn resource_version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// When the object was last changed by somebody else than Berth's controllers, who only mark it: by the newest such entry of its
/// `managedFields`; only objects of a cache that keeps these times have it (`CacheOptions::keep_change_times`). Whole seconds,
/// by the API server's clock.
#[must_use]
pub fn changed_at<K: Resource>(object: &K) -> Option<Timestamp> {
    let entries: &[ManagedFieldsEntry] = object.meta().managed_fields.as_deref().unwrap_or_default();
    let is_own = |manager: &str| Executor::CONTROLLERS.iter().any(|executor| executor.name() == manager);
    let others = entries.iter().filter(|entry| !entry.manager.as_deref().is_some_and(is_own));
    others.filter_map(|entry| entry.time.as_ref()).map(|time| time.0).max()
}
