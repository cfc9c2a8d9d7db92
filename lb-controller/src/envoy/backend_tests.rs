use std::time::Duration;

use berth_envoy_eds::{EdsService, ProxyRules};

use super::*;

fn entry(address: &str, phase: TrafficPhase) -> Entry {
    Entry { address: address.into(), port: 80, weight: 100, phase }
}

fn entries(list: &[(&str, TrafficPhase)]) -> Entries {
    let entry = |(number, (name, phase)): (usize, &(&str, TrafficPhase))| {
        ((*name).to_owned(), entry(&format!("10.0.0.{number}"), *phase))
    };
    list.iter().enumerate().map(entry).collect()
}

/// The version that proxies know the entries by.
fn version(entries: &Entries) -> AssignmentVersion {
    EdsService::new(ProxyRules::default()).set("edge/web", &endpoints(entries)).unwrap()
}

/// A backend that was set to each of these, one second after the other.
fn backend(sets: &[Entries]) -> ServedBackend {
    let begun = Instant::now();
    let mut backend = ServedBackend::new(sets[0].clone(), version(&sets[0]), begun);
    for (number, set) in (1..).zip(&sets[1..]) {
        backend.set(set.clone(), version(set), begun + Duration::from_secs(number));
    }
    backend
}

#[test]
fn an_entry_that_proxies_do_not_agree_on_is_equal_to_nothing_wanted() {
    use TrafficPhase::{Draining, Held, Serving};
    let before = entries(&[("a", Serving), ("b", Serving)]);
    let after = entries(&[("a", Serving), ("b", Draining), ("c", Serving)]);
    let backend = backend(&[before.clone(), after.clone()]);
    assert_eq!(backend.shown(Some(1)), after);
    let between = backend.shown(Some(0));
    assert_eq!(between["a"], before["a"]);
    assert_eq!((between["b"].address.as_str(), between["b"].phase), ("", Serving), "it may still get requests");
    assert_eq!((between["c"].address.as_str(), between["c"].phase), ("", Held), "it may get none yet");
    let unknown = backend.shown(None);
    assert_eq!(unknown.len(), 3);
    assert!(unknown.values().all(|entry| entry.address.is_empty()), "{unknown:?}");
}

#[test]
fn an_entry_that_has_to_go_is_shown_until_all_have_dropped_it() {
    let backend = backend(&[entries(&[("a", TrafficPhase::Serving)]), Entries::new()]);
    assert_eq!(backend.shown(Some(0)).len(), 1);
    assert_eq!(backend.shown(Some(1)), Entries::new());
}

#[test]
fn what_is_the_same_to_proxies_needs_no_request_of_theirs() {
    let one = entries(&[("a", TrafficPhase::Serving)]);
    let held = entries(&[("a", TrafficPhase::Serving), ("b", TrafficPhase::Held)]);
    let served = entries(&[("a", TrafficPhase::Serving), ("b", TrafficPhase::Serving)]);
    let backend = backend(&[one, held, served]);
    let since: Vec<Instant> = backend.sets().iter().map(|set| set.since).collect();
    assert!(since[0] == since[1] && since[1] < since[2], "{since:?}");
}

#[test]
fn lists_that_all_have_are_forgotten_and_others_only_when_there_are_very_many() {
    let sets: Vec<Entries> =
        (0..50).map(|n| entries(&[("a", TrafficPhase::Serving), ("b", TrafficPhase::Held)][..=(n % 2)])).collect();
    let mut backend = backend(&sets);
    assert_eq!(backend.sets().len(), REMEMBERED);
    assert_eq!(backend.wanted().unwrap().entries, sets[49]);
    backend.all_have(REMEMBERED - 1);
    assert_eq!(backend.sets().len(), 1);
    backend.all_have(7);
    assert_eq!(backend.wanted().unwrap().entries, sets[49], "the last one stays");
}

#[test]
fn a_change_that_envoy_would_not_take_is_refused_alone() {
    let before = entries(&[("a", TrafficPhase::Serving)]);
    let (same, name) = (entry("10.0.0.0", TrafficPhase::Serving), entry("machine-1", TrafficPhase::Held));
    let (held, good) = (entry("10.0.0.0", TrafficPhase::Held), entry("10.0.0.9", TrafficPhase::Serving));
    let changes = [("b", Some(&same)), ("c", Some(&name)), ("d", Some(&held)), ("e", Some(&good)), ("a", None)];
    let (after, results) = changed(&before, changes.into_iter());
    let words = |index: usize| results[index].as_ref().unwrap_err().to_string();
    assert!(words(0).contains("10.0.0.0:80 is the address of a already"), "{}", words(0));
    assert!(words(1).contains("\"machine-1\" is no IP address"), "{}", words(1));
    assert!(results[2..].iter().all(Result::is_ok), "{results:?}");
    assert_eq!(after.keys().collect::<Vec<_>>(), ["d", "e"]);
    let told: Vec<String> = endpoints(&after).into_iter().map(|endpoint| endpoint.name).collect();
    assert_eq!(told, ["e"], "held ones are not told");
}
