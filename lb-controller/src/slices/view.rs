//! What is known of our slices: the watch's cache, and what this process has written since.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Event;

use super::{ServerId, endpoint, layout};

/// Namespace and Service.
pub(crate) type ServiceKey = (String, String);

/// The newest known version of every slice of ours, by Service and by Server. Own writes count before the watch has
/// brought them back; a watch event counts only if it is newer.
#[derive(Debug, Default)]
pub(crate) struct View {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    slices: HashMap<ServiceKey, BTreeMap<String, Arc<EndpointSlice>>>,
    /// The Service under which a slice is filed: its label may be changed by others.
    filed: HashMap<(String, String), ServiceKey>,
    /// How many endpoints a Server has in each slice of each Service.
    members: HashMap<String, BTreeMap<ServiceKey, BTreeMap<String, usize>>>,
    /// Slices that this process deleted, at which version: older news of them is no news.
    deleted: HashMap<(String, String), u64>,
    /// The Servers whose endpoints have changed since this was last asked.
    touched: BTreeSet<ServerId>,
    /// What the relist under way has brought so far.
    relist: Option<BTreeSet<(String, String)>>,
}

impl View {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it is held cannot leave it half-changed in a way that a relist does not mend.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slices of a Service.
    pub(crate) fn of(&self, key: &ServiceKey) -> Vec<Arc<EndpointSlice>> {
        self.lock().slices.get(key).map(|slices| slices.values().cloned().collect()).unwrap_or_default()
    }

    /// The slices of a Service in which the Server has endpoints.
    pub(crate) fn around(&self, key: &ServiceKey, uid: &str) -> Vec<Arc<EndpointSlice>> {
        let inner = self.lock();
        let names = inner.members.get(uid).and_then(|services| services.get(key));
        let slices = inner.slices.get(key);
        let find = |name: &String| slices.and_then(|slices| slices.get(name)).cloned();
        names.into_iter().flat_map(BTreeMap::keys).filter_map(find).collect()
    }

    /// The Services in which the Server has an endpoint.
    pub(crate) fn services_of(&self, uid: &str) -> Vec<ServiceKey> {
        self.lock().members.get(uid).map(|services| services.keys().cloned().collect()).unwrap_or_default()
    }

    /// Takes in what the watch brings. Returns the Servers whose endpoints are not as they were known.
    pub(crate) fn observe(&self, event: &Event<EndpointSlice>) -> Vec<ServerId> {
        let mut inner = self.lock();
        match event {
            Event::Init => inner.relist = Some(BTreeSet::new()),
            Event::InitApply(slice) => {
                if let Some(relist) = &mut inner.relist {
                    relist.insert(id(slice));
                }
                inner.put(slice.clone());
            }
            Event::InitDone => inner.finish_relist(),
            Event::Apply(slice) => inner.put(slice.clone()),
            Event::Delete(slice) => inner.remove(slice, false),
        }
        std::mem::take(&mut inner.touched).into_iter().collect()
    }

    /// Takes in what the API server has answered to an own write.
    pub(crate) fn wrote(&self, slice: EndpointSlice) {
        self.lock().unnoticed(|inner| inner.put(slice));
    }

    /// Takes in that this version was deleted by an own write.
    pub(crate) fn deleted(&self, slice: &EndpointSlice) {
        self.lock().unnoticed(|inner| inner.remove(slice, true));
    }

    /// Replaces what is known of a Service by what the API server has just listed.
    pub(crate) fn replace(&self, key: &ServiceKey, slices: Vec<EndpointSlice>) {
        let mut inner = self.lock();
        let known: Vec<_> = inner.slices.get(key).map(|s| s.values().cloned().collect()).unwrap_or_default();
        for slice in known {
            inner.take(&slice);
        }
        for slice in slices {
            inner.deleted.remove(&id(&slice));
            inner.put(slice);
        }
    }
}

impl Inner {
    /// Who writes knows what it means: that touches nobody.
    fn unnoticed(&mut self, change: impl FnOnce(&mut Self)) {
        let touched = self.touched.clone();
        change(self);
        self.touched = touched;
    }

    fn put(&mut self, mut slice: EndpointSlice) {
        slice.metadata.managed_fields = None;
        if self.deleted.get(&id(&slice)).is_some_and(|deleted| version(&slice) <= *deleted) {
            return;
        }
        self.deleted.remove(&id(&slice));
        if let Some(known) = self.known(&slice) {
            if version(&known) >= version(&slice) {
                return;
            }
            self.take(&known);
        }
        self.count(&slice, true);
        self.filed.insert(id(&slice), key(&slice));
        self.slices.entry(key(&slice)).or_default().insert(name(&slice), Arc::new(slice));
    }

    fn remove(&mut self, slice: &EndpointSlice, own: bool) {
        if let Some(known) = self.known(slice).filter(|known| version(known) <= version(slice)) {
            self.take(&known);
        }
        if own {
            self.deleted.insert(id(slice), version(slice));
        } else {
            self.deleted.remove(&id(slice));
        }
    }

    fn known(&self, slice: &EndpointSlice) -> Option<Arc<EndpointSlice>> {
        self.slices.get(self.filed.get(&id(slice))?)?.get(&name(slice)).cloned()
    }

    /// Forgets a slice that is known.
    fn take(&mut self, known: &EndpointSlice) {
        let key = key(known);
        self.filed.remove(&id(known));
        if let Some(slices) = self.slices.get_mut(&key) {
            slices.remove(&name(known));
            if slices.is_empty() {
                self.slices.remove(&key);
            }
        }
        self.count(known, false);
    }

    fn count(&mut self, slice: &EndpointSlice, add: bool) {
        let (key, name) = (key(slice), name(slice));
        self.touched.extend(servers_in(slice));
        for uid in slice.endpoints.iter().flatten().filter_map(endpoint::uid) {
            let services = self.members.entry(uid.to_owned()).or_default();
            let slices = services.entry(key.clone()).or_default();
            let count = slices.entry(name.clone()).or_default();
            *count = if add { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                slices.remove(&name);
            }
            if slices.is_empty() {
                services.remove(&key);
            }
            if services.is_empty() {
                self.members.remove(uid);
            }
        }
    }

    /// What a relist did not bring is gone. Own writes that it was too early for come back with the watch.
    fn finish_relist(&mut self) {
        let Some(listed) = self.relist.take() else { return };
        let gone: Vec<_> =
            self.slices.values().flat_map(BTreeMap::values).filter(|s| !listed.contains(&id(s))).cloned().collect();
        for slice in gone {
            self.take(&slice);
        }
        self.deleted.clear();
    }
}

/// The Servers that a slice has endpoints of.
fn servers_in(slice: &EndpointSlice) -> impl Iterator<Item = ServerId> + '_ {
    slice.endpoints.iter().flatten().filter_map(|endpoint| {
        let uid = endpoint::uid(endpoint)?.to_owned();
        let name = endpoint.target_ref.as_ref()?.name.clone()?;
        Some(ServerId { namespace: slice.metadata.namespace.clone()?, name, uid })
    })
}

/// The Service that a slice belongs to.
pub(crate) fn key(slice: &EndpointSlice) -> ServiceKey {
    let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(layout::SERVICE_NAME));
    (slice.metadata.namespace.clone().unwrap_or_default(), service.cloned().unwrap_or_default())
}

fn id(slice: &EndpointSlice) -> (String, String) {
    (slice.metadata.namespace.clone().unwrap_or_default(), name(slice))
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

/// Versions of one kind of object are numbers that rise (promised since Kubernetes 1.35, and true of etcd always).
fn version(slice: &EndpointSlice) -> u64 {
    slice.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use berth_core::api::{ServiceBackend, TrafficPhase};

    use super::*;
    use crate::slices::{endpoint::Who, layout::Group};

    fn slice(version: u64, uids: &[&str]) -> EndpointSlice {
        let backend = ServiceBackend { name: "web".into(), port: 80, port_name: None };
        let mut slice = Group::new(&backend, "10.0.0.1").empty_slice("ns", "web-1");
        slice.metadata.resource_version = Some(version.to_string());
        let who = |uid: &str| Who { namespace: "ns".into(), name: uid.into(), uid: uid.into(), version: 1 };
        slice.endpoints =
            Some(uids.iter().map(|uid| endpoint::build(&who(uid), "10.0.0.1", TrafficPhase::Held)).collect());
        slice
    }

    fn web() -> ServiceKey {
        ("ns".into(), "web".into())
    }

    fn uids(view: &View) -> usize {
        view.of(&web()).iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum()
    }

    #[test]
    fn an_own_write_counts_before_the_watch_has_it_and_old_news_does_not() {
        let view = View::default();
        view.observe(&Event::Apply(slice(5, &["a"])));
        view.wrote(slice(7, &["a", "b"]));
        view.observe(&Event::Apply(slice(6, &["a"])));
        assert_eq!(uids(&view), 2);
        view.observe(&Event::Apply(slice(8, &["b"])));
        assert_eq!(uids(&view), 1);
        assert!(view.services_of("a").is_empty());
        assert_eq!(view.services_of("b"), [web()]);
    }

    #[test]
    fn around_a_server_are_the_slices_that_have_it() {
        let view = View::default();
        let mut other = slice(3, &["b", "c"]);
        other.metadata.name = Some("web-2".into());
        view.wrote(slice(2, &["a", "b"]));
        view.wrote(other);
        let around = |uid: &str| -> Vec<String> { view.around(&web(), uid).iter().map(|s| name(s)).collect() };
        assert_eq!((around("a"), around("b")), (vec!["web-1".into()], vec!["web-1".to_owned(), "web-2".into()]));
        assert!(around("d").is_empty() && view.around(&("ns".into(), "other".into()), "a").is_empty());
        view.observe(&Event::Apply(slice(4, &["a"])));
        assert_eq!(around("b"), ["web-2"]);
    }

    #[test]
    fn what_others_change_touches_servers_and_own_writes_do_not() {
        let view = View::default();
        let touched = |event: &Event<EndpointSlice>| -> Vec<String> {
            view.observe(event).into_iter().map(|server| server.uid).collect()
        };
        view.wrote(slice(5, &["a"]));
        assert!(touched(&Event::Apply(slice(5, &["a"]))).is_empty(), "the own write");
        assert_eq!(touched(&Event::Apply(slice(6, &["b"]))), ["a", "b"]);
        view.replace(&web(), vec![slice(7, &["c"])]);
        view.wrote(slice(8, &["c"]));
        assert_eq!(touched(&Event::Apply(slice(7, &["c"]))), ["b", "c"], "seen by asking, before the watch brought it");
        assert_eq!(touched(&Event::Delete(slice(9, &["c"]))), ["c"]);
    }

    #[test]
    fn a_deleted_slice_does_not_come_back_with_late_news() {
        let view = View::default();
        view.wrote(slice(5, &["a"]));
        view.deleted(&slice(5, &["a"]));
        view.observe(&Event::Apply(slice(4, &["a"])));
        view.observe(&Event::Apply(slice(5, &["a"])));
        assert_eq!(uids(&view), 0);
        view.observe(&Event::Delete(slice(6, &["a"])));
        view.observe(&Event::Apply(slice(9, &["a"])));
        assert_eq!(uids(&view), 1, "created anew");
        view.observe(&Event::Delete(slice(8, &["a"])));
        assert_eq!(uids(&view), 1, "the end of an older one");
    }

    #[test]
    fn what_a_relist_does_not_bring_is_gone() {
        let view = View::default();
        view.observe(&Event::Apply(slice(5, &["a"])));
        view.observe(&Event::Init);
        assert_eq!(uids(&view), 1, "until the relist is complete");
        view.observe(&Event::InitDone);
        assert_eq!(uids(&view), 0);
        assert!(view.services_of("a").is_empty());
    }

    #[test]
    fn a_live_list_replaces_what_is_known_of_that_service() {
        let view = View::default();
        view.wrote(slice(5, &["a"]));
        view.deleted(&slice(5, &["a"]));
        view.replace(&web(), vec![slice(5, &["a", "b"])]);
        assert_eq!(uids(&view), 2);
        view.replace(&web(), Vec::new());
        assert_eq!(uids(&view), 0);
    }
}
