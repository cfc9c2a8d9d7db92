use std::collections::BTreeSet;

use berth_core::api::UnreachablePolicy;
use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::{classes::driver::ShownEntry, member::ClassBackend};

fn server(name: &str) -> ServerRef {
    ServerRef { namespace: "ns".into(), name: name.into(), uid: format!("uid-{name}") }
}

fn registered(phase: TrafficPhase, weight: u16) -> Registration {
    let backend = |class: &str, name: &str| ClassBackend {
        class: class.into(),
        name: name.into(),
        port: 80,
        weight,
        subset: None,
    };
    let classes = vec![backend("edge", "web"), backend("other", "web")];
    Registration { phase, services: Vec::new(), classes, left: Vec::new(), address: "10.0.0.1".into() }
}

fn entries(name: &str, phase: TrafficPhase) -> BTreeMap<EntryKey, Entry> {
    entries_of("edge", &server(name), Some(&registered(phase, 100)))
}

/// A process that shows these entries, with this many requests at each.
fn shown(entries: impl IntoIterator<Item = (EntryKey, Entry)>, requests: u64) -> Shown {
    Shown {
        absent: BTreeSet::new(),
        backends: BTreeSet::from(["web".to_owned()]),
        entries: entries
            .into_iter()
            .map(|(key, entry)| (key, ShownEntry { entry, requests: Some(requests) }))
            .collect(),
    }
}

fn view(processes: &[(&str, Shown)]) -> View {
    let mut view = View::default();
    for (name, shown) in processes {
        view.record(name, Ok(shown.clone()), Timestamp::UNIX_EPOCH);
    }
    view
}

use TrafficPhase::{Draining, Held, Serving};

#[test]
fn each_process_is_changed_to_what_is_wanted_and_nothing_else() {
    let wanted = entries("a", Serving);
    assert_eq!(wanted.len(), 1, "the backend of the other class is none of this one");
    let [(key, entry)] = wanted.clone().into_iter().collect::<Vec<_>>().try_into().unwrap();
    let empty = shown([], 0);
    assert_eq!(changes(&empty, &server("a"), &wanted), [(key.clone(), Some(entry.clone()))]);
    let right = shown(wanted.clone(), 0);
    assert_eq!(changes(&right, &server("a"), &wanted), []);
    let heavier = entries_of("edge", &server("a"), Some(&registered(Serving, 7)));
    assert_eq!(changes(&right, &server("a"), &heavier).len(), 1, "a weight is changed in place");
    assert_eq!(changes(&right, &server("a"), &BTreeMap::new()), [(key.clone(), None)]);
    assert_eq!(changes(&right, &server("b"), &BTreeMap::new()), [], "another Server's entry is left alone");
    let mut moved = registered(Serving, 100);
    moved.address = "10.0.0.9".into();
    let moved = entries_of("edge", &server("a"), Some(&moved));
    let replaced = changes(&right, &server("a"), &moved);
    assert_eq!(replaced[0], (key, None), "the old address goes first");
    assert_eq!(replaced.len(), 2);
}

#[test]
fn a_server_is_shown_when_all_processes_show_it() {
    let wanted = entries("a", Serving);
    let right = shown(wanted.clone(), 0);
    assert!(!View::default().shows(&server("a"), &BTreeMap::new()), "nothing was read yet");
    assert!(view(&[("p", right.clone()), ("q", right.clone())]).shows(&server("a"), &wanted));
    let behind = view(&[("p", right.clone()), ("q", shown([], 0))]);
    assert!(!behind.shows(&server("a"), &wanted) && behind.knows(&server("a")));
    assert!(behind.shows(&server("b"), &BTreeMap::new()) && !behind.knows(&server("b")));
    assert_eq!(behind.servers(), BTreeSet::from([server("a")]));
}

#[test]
fn draining_is_over_when_no_process_has_a_request() {
    let wanted = entries("a", Draining);
    let idle = |first, second| view(&[("p", shown(wanted.clone(), first)), ("q", shown(wanted.clone(), second))]);
    assert!(idle(0, 0).is_idle(&wanted));
    assert!(!idle(0, 1).is_idle(&wanted));
    let mut silent = idle(0, 0);
    silent.record("q", Err("connection refused".into()), Timestamp::UNIX_EPOCH);
    assert!(!silent.is_idle(&wanted), "nobody knows what it still serves");
}

#[test]
fn a_process_that_does_not_answer_blocks_until_its_administrator_says_otherwise() {
    let wanted = entries("a", Held);
    let mut view = view(&[("p", shown(wanted.clone(), 0)), ("q", shown([], 0))]);
    let at = |seconds| Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
    view.record("q", Err("connection refused".into()), at(5));
    view.record("q", Err("connection refused".into()), at(20));
    let policy = |then| UnreachablePolicy { after_seconds: 10, then };
    view.ignore(policy(WhenUnreachable::Block), at(100));
    let blocked = view.blocked("edge", &wanted).unwrap().to_string();
    assert!(blocked.contains("q does not answer since 1970-01-01T00:00:05Z: connection refused"), "{blocked}");
    view.ignore(policy(WhenUnreachable::Proceed), at(14));
    assert!(view.blocked("edge", &wanted).is_some() && !view.shows(&server("a"), &wanted), "not for long enough");
    view.ignore(policy(WhenUnreachable::Proceed), at(15));
    assert!(view.blocked("edge", &wanted).is_none() && view.shows(&server("a"), &wanted));
    view.record("q", Ok(shown([], 0)), at(16));
    view.ignore(policy(WhenUnreachable::Proceed), at(16));
    assert!(!view.shows(&server("a"), &wanted), "it is back, and has to be caught up");
}

#[test]
fn a_backend_that_does_not_exist_blocks() {
    let wanted = entries("a", Held);
    let mut view = View::default();
    view.record("unix:/s", Ok(Shown::default()), Timestamp::UNIX_EPOCH);
    let blocked = view.blocked("edge", &wanted).unwrap().to_string();
    assert!(blocked.contains("unix:/s has no backend \"web\": add it to its configuration"), "{blocked}");
}
