//! The EndpointSlices that this program manages, in memory: what the watch brings, and what this process has written since.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use berth_runtime::resource_version;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::watcher::Event;
use parking_lot::Mutex;

use super::{
    endpoint,
    keys::{ServiceKey, SliceKey},
};
use crate::member::ServerRef;

/// The newest known version of every slice, by Service and by Server. Own writes count before the watch brings them; an event of
/// the watch counts only if it is newer.
///
/// Its own code, because kube's reflector takes no writes, and has no index by Server.
#[derive(Debug, Default)]
pub(crate) struct SliceCache(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The slices of each Service, by name.
    slices: HashMap<ServiceKey, BTreeMap<String, Arc<EndpointSlice>>>,
    /// The Service of each cached slice, by the label that the cached version has: others may change the label.
    services: HashMap<SliceKey, ServiceKey>,
    /// By the UID of a Server: the number of its endpoints in each slice of each Service.
    endpoint_counts: HashMap<String, BTreeMap<ServiceKey, BTreeMap<String, usize>>>,
    /// The versions at which this process deleted slices: events of these and older versions are ignored.
    deleted: HashMap<SliceKey, u64>,
    /// The Servers whose endpoints somebody else has changed since the last event.
    changed_by_others: BTreeSet<ServerRef>,
    /// The relist under way.
    relist: Option<Relist>,
}

/// What a relist under way has brought so far.
#[derive(Debug, Default)]
struct Relist {
    listed: BTreeSet<SliceKey>,
    /// Those that are older than what is known: of an own write that came too late for the relist, or because etcd was restored.
    older: Vec<EndpointSlice>,
    /// The slices that this process has written or deleted since the relist began.
    written: BTreeSet<SliceKey>,
}

impl SliceCache {
    /// The slices of a Service.
    pub(crate) fn slices_of(&self, service: &ServiceKey) -> Vec<Arc<EndpointSlice>> {
        self.0.lock().slices.get(service).map(|slices| slices.values().cloned().collect()).unwrap_or_default()
    }

    /// The slices of a Service in which the Server with this UID has endpoints.
    pub(crate) fn slices_with(&self, service: &ServiceKey, uid: &str) -> Vec<Arc<EndpointSlice>> {
        let inner = self.0.lock();
        let names = inner.endpoint_counts.get(uid).and_then(|services| services.get(service));
        let slices = inner.slices.get(service);
        let find = |name: &String| slices.and_then(|slices| slices.get(name)).cloned();
        names.into_iter().flat_map(BTreeMap::keys).filter_map(find).collect()
    }

    /// The Services in which the Server with this UID has endpoints.
    pub(crate) fn services_with(&self, uid: &str) -> Vec<ServiceKey> {
        let inner = self.0.lock();
        inner.endpoint_counts.get(uid).map(|services| services.keys().cloned().collect()).unwrap_or_default()
    }

    /// Takes in an event of the watch. Returns the Servers whose endpoints somebody else has changed.
    pub(crate) fn observe(&self, event: &Event<EndpointSlice>) -> Vec<ServerRef> {
        let mut inner = self.0.lock();
        match event {
            Event::Init => inner.relist = Some(Relist::default()),
            Event::InitApply(slice) => inner.take_in_listed(slice),
            Event::InitDone => inner.finish_relist(),
            Event::Apply(slice) => inner.insert_if_newer(slice.clone()),
            Event::Delete(slice) => {
                inner.remove_up_to(slice);
                inner.deleted.remove(&SliceKey::of(slice));
            }
        }
        std::mem::take(&mut inner.changed_by_others).into_iter().collect()
    }

    /// Takes in the API server's answer to an own write.
    pub(crate) fn record_write(&self, slice: EndpointSlice) {
        self.0.lock().change_unreported(|inner| {
            inner.note_written(&slice);
            inner.insert_if_newer(slice);
        });
    }

    /// Takes in that an own write has deleted this version of the slice.
    pub(crate) fn record_deletion(&self, slice: &EndpointSlice) {
        self.0.lock().change_unreported(|inner| {
            inner.note_written(slice);
            inner.remove_up_to(slice);
            inner.deleted.insert(SliceKey::of(slice), resource_version(slice));
        });
    }

    /// Replaces all slices of a Service by those that the API server has just listed.
    pub(crate) fn replace_service(&self, service: &ServiceKey, slices: Vec<EndpointSlice>) {
        let mut inner = self.0.lock();
        let cached: Vec<_> = inner.slices.get(service).map(|s| s.values().cloned().collect()).unwrap_or_default();
        for slice in cached {
            inner.take(&slice);
        }
        for slice in slices {
            inner.deleted.remove(&SliceKey::of(&slice));
            inner.insert_if_newer(slice);
        }
    }
}

impl Inner {
    /// An own write is no change by others: the Servers that it is about are being reconciled already.
    fn change_unreported(&mut self, change: impl FnOnce(&mut Self)) {
        let changed_by_others = self.changed_by_others.clone();
        change(self);
        self.changed_by_others = changed_by_others;
    }

    fn note_written(&mut self, slice: &EndpointSlice) {
        if let Some(relist) = &mut self.relist {
            relist.written.insert(SliceKey::of(slice));
        }
    }

    fn take_in_listed(&mut self, slice: &EndpointSlice) {
        let (key, version) = (SliceKey::of(slice), resource_version(slice));
        let is_older = self.deleted.get(&key).is_some_and(|deleted| version <= *deleted)
            || self.cached(&key).is_some_and(|cached| version < resource_version(&*cached));
        if let Some(relist) = &mut self.relist {
            relist.listed.insert(key);
            relist.older.extend(is_older.then(|| slice.clone()));
        }
        self.insert_if_newer(slice.clone());
    }

    fn insert_if_newer(&mut self, mut slice: EndpointSlice) {
        slice.metadata.managed_fields = None;
        let key = SliceKey::of(&slice);
        if self.deleted.get(&key).is_some_and(|deleted| resource_version(&slice) <= *deleted) {
            return;
        }
        self.deleted.remove(&key);
        let Some(cached) = self.cached(&key) else { return self.put(key, slice) };
        if resource_version(&*cached) >= resource_version(&slice) {
            return;
        }
        let changed = servers_changed(&cached, &slice);
        self.change_unreported(|inner| {
            inner.take(&cached);
            inner.put(key, slice);
        });
        self.changed_by_others.extend(changed);
    }

    /// Adds a slice that is not cached.
    fn put(&mut self, key: SliceKey, slice: EndpointSlice) {
        self.count_endpoints(&slice, true);
        let service = ServiceKey::of_slice(&slice);
        self.slices.entry(service.clone()).or_default().insert(key.name.clone(), Arc::new(slice));
        self.services.insert(key, service);
    }

    /// Removes the slice, if this version of it or an older one is cached.
    fn remove_up_to(&mut self, slice: &EndpointSlice) {
        if let Some(cached) =
            self.cached(&SliceKey::of(slice)).filter(|cached| resource_version(&**cached) <= resource_version(slice))
        {
            self.take(&cached);
        }
    }

    fn cached(&self, key: &SliceKey) -> Option<Arc<EndpointSlice>> {
        self.slices.get(self.services.get(key)?)?.get(&key.name).cloned()
    }

    /// Removes a slice that is cached.
    fn take(&mut self, cached: &EndpointSlice) {
        let (key, service) = (SliceKey::of(cached), ServiceKey::of_slice(cached));
        self.services.remove(&key);
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.remove(&key.name);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.count_endpoints(cached, false);
    }

    /// Counts the endpoints of a slice that is added (or else removed), and notes their Servers as changed.
    fn count_endpoints(&mut self, slice: &EndpointSlice, added: bool) {
        let (service, SliceKey { name, .. }) = (ServiceKey::of_slice(slice), SliceKey::of(slice));
        self.changed_by_others.extend(servers_in(slice));
        for uid in slice.endpoints.iter().flatten().filter_map(endpoint::uid) {
            let services = self.endpoint_counts.entry(uid.to_owned()).or_default();
            let slices = services.entry(service.clone()).or_default();
            let count = slices.entry(name.clone()).or_default();
            *count = if added { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                slices.remove(&name);
            }
            if slices.is_empty() {
                services.remove(&service);
            }
            if services.is_empty() {
                self.endpoint_counts.remove(uid);
            }
        }
    }

    /// Removes the slices that the relist did not bring, and goes back to those that it brought in an older version: etcd was
    /// restored. An own write that came too late for the relist comes with the watch.
    fn finish_relist(&mut self) {
        let Some(Relist { listed, older, written }) = self.relist.take() else { return };
        let cached = self.slices.values().flat_map(BTreeMap::values);
        let gone: Vec<_> = cached.filter(|slice| !listed.contains(&SliceKey::of(slice))).cloned().collect();
        for slice in gone {
            self.take(&slice);
        }
        self.deleted.clear();
        for slice in older {
            let key = SliceKey::of(&slice);
            if !written.contains(&key) {
                if let Some(cached) = self.cached(&key) {
                    self.take(&cached);
                }
                self.insert_if_newer(slice);
            }
        }
    }
}

/// The Servers that have endpoints in a slice.
fn servers_in(slice: &EndpointSlice) -> impl Iterator<Item = ServerRef> + '_ {
    slice.endpoints.iter().flatten().filter_map(|endpoint| {
        let uid = endpoint::uid(endpoint)?.to_owned();
        let name = endpoint.target_ref.as_ref()?.name.clone()?;
        Some(ServerRef { namespace: slice.metadata.namespace.clone()?, name, uid })
    })
}

/// The Servers for which the two versions of a slice differ. A slice holds up to 100 Servers, and most writes change few of them: to
/// reconcile all would make a second copy cost as much as the first.
fn servers_changed(old: &EndpointSlice, new: &EndpointSlice) -> BTreeSet<ServerRef> {
    if !is_same_but_for_endpoints(old, new) {
        return servers_in(old).chain(servers_in(new)).collect();
    }
    let (before, after) = (endpoints_by_uid(old), endpoints_by_uid(new));
    let is_changed = |server: &ServerRef| before.get(server.uid.as_str()) != after.get(server.uid.as_str());
    servers_in(old).chain(servers_in(new)).filter(is_changed).collect()
}

/// Whether what concerns all Servers of a slice is the same: its Service, ports, type of addresses, and whether it is closed.
fn is_same_but_for_endpoints(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    let same_metadata = old.metadata.uid == new.metadata.uid
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations;
    same_metadata && old.ports == new.ports && old.address_type == new.address_type
}

fn endpoints_by_uid(slice: &EndpointSlice) -> BTreeMap<&str, Vec<&Endpoint>> {
    let mut endpoints: BTreeMap<&str, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in slice.endpoints.iter().flatten() {
        endpoints.entry(endpoint::uid(endpoint).unwrap_or_default()).or_default().push(endpoint);
    }
    endpoints
}

#[cfg(test)]
#[path = "slice_cache_tests.rs"]
mod tests;
