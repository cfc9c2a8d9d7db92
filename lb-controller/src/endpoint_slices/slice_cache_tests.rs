use berth_core::api::TrafficPhase;

use super::*;
use crate::{
    endpoint_slices::slice_group::SliceGroup,
    member::{ServiceBackend, ServicePort},
};

fn slice(version: u64, uids: &[&str]) -> EndpointSlice {
    let backend =
        ServiceBackend { name: "web".into(), ports: vec![ServicePort { name: String::new(), port: 80 }], subset: None };
    let mut slice = SliceGroup::new(&backend, "10.0.0.1").empty_slice("ns", "web-1");
    slice.metadata.resource_version = Some(version.to_string());
    let server = |uid: &str| ServerRef { namespace: "ns".into(), name: uid.into(), uid: uid.into() };
    slice.endpoints =
        Some(uids.iter().map(|uid| endpoint::build(&server(uid), 1, "10.0.0.1", TrafficPhase::Held)).collect());
    slice
}

fn web() -> ServiceKey {
    ServiceKey::new("ns", "web")
}

fn endpoints(cache: &SliceCache) -> usize {
    cache.slices_of(&web()).iter().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum()
}

#[test]
fn an_own_write_counts_before_the_watch_brings_it_and_older_events_do_not() {
    let cache = SliceCache::default();
    cache.observe(&Event::Apply(slice(5, &["a"])));
    cache.record_write(slice(7, &["a", "b"]));
    cache.observe(&Event::Apply(slice(6, &["a"])));
    assert_eq!(endpoints(&cache), 2);
    cache.observe(&Event::Apply(slice(8, &["b"])));
    assert_eq!(endpoints(&cache), 1);
    assert!(cache.services_with("a").is_empty());
    assert_eq!(cache.services_with("b"), [web()]);
}

#[test]
fn slices_are_found_by_service_and_server() {
    let cache = SliceCache::default();
    let mut other = slice(3, &["b", "c"]);
    other.metadata.name = Some("web-2".into());
    cache.record_write(slice(2, &["a", "b"]));
    cache.record_write(other);
    let with = |uid: &str| -> Vec<String> {
        cache.slices_with(&web(), uid).iter().map(|s| s.metadata.name.clone().unwrap()).collect()
    };
    assert_eq!((with("a"), with("b")), (vec!["web-1".into()], vec!["web-1".to_owned(), "web-2".into()]));
    assert!(with("d").is_empty() && cache.slices_with(&ServiceKey::new("ns", "other"), "a").is_empty());
    cache.observe(&Event::Apply(slice(4, &["a"])));
    assert_eq!(with("b"), ["web-2"]);
}

#[test]
fn changes_by_others_are_reported_and_own_writes_are_not() {
    let cache = SliceCache::default();
    let changed = |event: &Event<EndpointSlice>| -> Vec<String> {
        cache.observe(event).into_iter().map(|server| server.uid).collect()
    };
    cache.record_write(slice(5, &["a"]));
    assert!(changed(&Event::Apply(slice(5, &["a"]))).is_empty(), "the own write");
    assert_eq!(changed(&Event::Apply(slice(6, &["b"]))), ["a", "b"]);
    cache.replace_service(&web(), vec![slice(7, &["c"])]);
    cache.record_write(slice(8, &["c"]));
    assert_eq!(changed(&Event::Apply(slice(7, &["c"]))), ["b", "c"], "listed before the watch brought it");
    assert_eq!(changed(&Event::Delete(slice(9, &["c"]))), ["c"]);
}

#[test]
fn only_servers_whose_endpoints_another_program_has_changed_are_reported() {
    let cache = SliceCache::default();
    let changed = |event: &Event<EndpointSlice>| -> Vec<String> {
        cache.observe(event).into_iter().map(|server| server.uid).collect()
    };
    cache.record_write(slice(5, &["a", "b", "c"]));
    let mut other = slice(6, &["c", "b", "a"]);
    let server = ServerRef { namespace: "ns".into(), name: "b".into(), uid: "b".into() };
    other.endpoints.as_mut().unwrap()[1] = endpoint::build(&server, 2, "10.0.0.1", TrafficPhase::Serving);
    assert_eq!(changed(&Event::Apply(other.clone())), ["b"]);
    let mut twice = other.clone();
    twice.metadata.resource_version = Some("7".into());
    let first = twice.endpoints.as_ref().unwrap()[0].clone();
    twice.endpoints.as_mut().unwrap().push(first);
    assert_eq!(changed(&Event::Apply(twice)), ["c"], "it has two endpoints now");
    let mut labelled = slice(8, &["a", "b"]);
    labelled.metadata.labels.get_or_insert_default().insert("other".into(), "label".into());
    assert_eq!(changed(&Event::Apply(labelled)), ["a", "b", "c"], "the slice itself has to be mended");
}

#[test]
fn late_events_do_not_bring_a_deleted_slice_back() {
    let cache = SliceCache::default();
    cache.record_write(slice(5, &["a"]));
    cache.record_deletion(&slice(5, &["a"]));
    cache.observe(&Event::Apply(slice(4, &["a"])));
    cache.observe(&Event::Apply(slice(5, &["a"])));
    assert_eq!(endpoints(&cache), 0);
    cache.observe(&Event::Delete(slice(6, &["a"])));
    cache.observe(&Event::Apply(slice(9, &["a"])));
    assert_eq!(endpoints(&cache), 1, "created again");
    cache.observe(&Event::Delete(slice(8, &["a"])));
    assert_eq!(endpoints(&cache), 1, "the deletion of an older one");
}

#[test]
fn slices_that_a_relist_does_not_bring_are_removed() {
    let cache = SliceCache::default();
    cache.observe(&Event::Apply(slice(5, &["a"])));
    cache.observe(&Event::Init);
    assert_eq!(endpoints(&cache), 1, "until the relist is complete");
    cache.observe(&Event::InitDone);
    assert_eq!(endpoints(&cache), 0);
    assert!(cache.services_with("a").is_empty());
}

#[test]
fn a_list_from_the_api_server_replaces_the_slices_of_a_service() {
    let cache = SliceCache::default();
    cache.record_write(slice(5, &["a"]));
    cache.record_deletion(&slice(5, &["a"]));
    cache.replace_service(&web(), vec![slice(5, &["a", "b"])]);
    assert_eq!(endpoints(&cache), 2);
    cache.replace_service(&web(), Vec::new());
    assert_eq!(endpoints(&cache), 0);
}

#[test]
fn a_relist_goes_back_to_what_a_restored_etcd_holds_and_not_behind_an_own_write() {
    let relist = |cache: &SliceCache, listed: EndpointSlice, meanwhile: &dyn Fn()| -> Vec<String> {
        cache.observe(&Event::Init);
        meanwhile();
        cache.observe(&Event::InitApply(listed));
        cache.observe(&Event::InitDone).into_iter().map(|server| server.uid).collect()
    };
    let cache = SliceCache::default();
    cache.observe(&Event::Apply(slice(9, &["a", "b"])));
    assert_eq!(relist(&cache, slice(5, &["b"]), &|| {}), ["a", "b"], "their Servers are looked at");
    assert_eq!(endpoints(&cache), 1, "etcd was restored");
    let written = || cache.record_write(slice(7, &["a", "b"]));
    relist(&cache, slice(6, &["b"]), &written);
    assert_eq!(endpoints(&cache), 2, "listed before it was written");
    cache.record_deletion(&slice(7, &["a", "b"]));
    relist(&cache, slice(4, &["a"]), &|| {});
    assert_eq!(endpoints(&cache), 1, "etcd was restored from before the deletion");
    let deleted = || cache.record_deletion(&slice(4, &["a"]));
    relist(&cache, slice(4, &["a"]), &deleted);
    assert_eq!(endpoints(&cache), 0, "listed before it was deleted");
}
