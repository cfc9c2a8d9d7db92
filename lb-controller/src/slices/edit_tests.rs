use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A store of slices with the API server's semantics: a write counts only on the version that it was made from.
#[derive(Default)]
struct Store {
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    version: u64,
}

impl Store {
    fn view(&self) -> Vec<Arc<EndpointSlice>> {
        self.slices.values().cloned().collect()
    }

    fn apply(&mut self, write: Write) -> Result<(), ()> {
        let current = |slice: &EndpointSlice| {
            let name = slice.metadata.name.as_deref().unwrap();
            self.slices.get(name).map(|s| s.metadata.resource_version.clone())
        };
        match write {
            Write::Create(slice) if current(&slice).is_none() => self.put(slice),
            Write::Replace(slice) if current(&slice) == Some(slice.metadata.resource_version.clone()) => {
                self.put(slice);
            }
            Write::Delete(slice) if current(&slice) == Some(slice.metadata.resource_version.clone()) => {
                self.slices.remove(slice.metadata.name.as_deref().unwrap());
            }
            _ => return Err(()),
        }
        Ok(())
    }

    fn put(&mut self, mut slice: EndpointSlice) {
        self.version += 1;
        slice.metadata.resource_version = Some(self.version.to_string());
        self.slices.insert(slice.metadata.name.clone().unwrap(), Arc::new(slice));
    }

    fn settle(&mut self, wants: &[Want]) -> Vec<Round> {
        let mut rounds = Vec::new();
        for _ in 0..64 {
            let next = round("ns", &self.view(), wants);
            if next.writes.is_empty() {
                return rounds;
            }
            for write in next.writes.clone() {
                self.apply(write).unwrap();
            }
            self.check();
            rounds.push(next);
        }
        panic!("still writing after 64 rounds");
    }

    /// What must hold after every single write.
    fn check(&self) {
        let mut seen = BTreeSet::new();
        for slice in self.slices.values() {
            let endpoints = slice.endpoints.as_deref().unwrap_or_default();
            assert!(endpoints.len() <= MAX_ENDPOINTS, "{} endpoints in a slice", endpoints.len());
            for endpoint in endpoints {
                let uid = endpoint::uid(endpoint).unwrap().to_owned();
                assert!(seen.insert(uid.clone()), "two endpoints of {uid}");
            }
        }
    }

    fn endpoint(&self, uid: &str) -> Option<Endpoint> {
        self.slices.values().flat_map(|s| s.endpoints.iter().flatten()).find(|e| endpoint::uid(e) == Some(uid)).cloned()
    }

    fn count(&self) -> usize {
        self.slices.values().map(|s| s.endpoints.as_ref().map_or(0, Vec::len)).sum()
    }
}

fn want(n: usize, version: u64, phase: Option<TrafficPhase>) -> Want {
    want_at(n, version, phase, 8080)
}

fn want_at(n: usize, version: u64, phase: Option<TrafficPhase>, port: i32) -> Want {
    Want {
        who: Who { namespace: "ns".into(), name: format!("web-{n}"), uid: format!("uid-{n}"), version },
        show: phase.map(|phase| Show {
            backend: ServiceBackend { name: "web".into(), port, port_name: None },
            address: format!("10.0.{}.{}", n / 250, n % 250 + 1),
            phase,
        }),
        fence: false,
    }
}

use TrafficPhase::{Draining, Held, Serving};

#[test]
fn many_changes_of_one_slice_are_one_write() {
    let mut store = Store::default();
    let held: Vec<_> = (0..50).map(|n| want(n, 1, Some(Held))).collect();
    let rounds = store.settle(&held);
    assert_eq!((rounds.len(), rounds[0].writes.len(), rounds[0].added.len()), (1, 1, 50));
    let serving: Vec<_> = (0..50).map(|n| want(n, 2, Some(Serving))).collect();
    let rounds = store.settle(&serving);
    assert_eq!((rounds.len(), rounds[0].writes.len(), rounds[0].added.len()), (1, 1, 0));
    assert!(round("ns", &store.view(), &serving).writes.is_empty());
}

#[test]
fn a_thousand_servers_fill_slices_of_a_hundred_and_leave_only_signs_behind() {
    let mut store = Store::default();
    store.settle(&(0..1000).map(|n| want(n, 1, Some(Held))).collect::<Vec<_>>());
    assert_eq!(store.count(), 1000);
    assert!((10..=20).contains(&store.slices.len()), "{} slices", store.slices.len());
    store.settle(&(0..1000).map(|n| want(n, 2, None)).collect::<Vec<_>>());
    assert_eq!(store.count(), 0);
    assert!(store.slices.values().all(|slice| layout::is_closed(slice)), "an empty open slice is left");
}

#[test]
fn one_slice_that_is_left_empty_is_deleted() {
    let mut store = Store::default();
    store.settle(&[want(1, 1, Some(Held))]);
    store.settle(&[want(1, 2, None)]);
    assert!(store.slices.is_empty());
}

#[test]
fn another_port_means_out_of_the_old_slice_first_and_into_the_new_one_then() {
    let mut store = Store::default();
    store.settle(&[want(1, 1, Some(Held)), want(2, 1, Some(Held))]);
    let rounds = store.settle(&[want_at(1, 2, Some(Held), 9090)]);
    assert_eq!(rounds.len(), 2);
    assert_eq!((store.count(), store.slices.len()), (2, 2));
}

#[test]
fn what_was_decided_on_an_older_version_does_not_come_through() {
    let mut store = Store::default();
    store.settle(&[want(1, 5, Some(Held))]);
    let late = round("ns", &store.view(), &[want(1, 4, Some(Serving))]);
    assert!(late.writes.is_empty());
    assert!(late.superseded.contains("uid-1"));
    assert!(round("ns", &store.view(), &[want(1, 4, Some(Held))]).superseded.is_empty(), "it says the same");
}

#[test]
fn a_fence_leaves_its_version_where_nothing_else_changes() {
    let mut store = Store::default();
    store.settle(&[want(1, 3, Some(Held))]);
    let under_way = round("ns", &store.view(), &[want(1, 4, Some(Serving))]);
    assert!(store.settle(&[want(1, 5, Some(Held))]).is_empty(), "without a fence there is nothing to write");
    store.settle(&[Want { fence: true, ..want(1, 5, Some(Held)) }]);
    for write in under_way.writes {
        assert!(store.apply(write).is_err(), "a release that was under way came after the hold");
    }
    assert!(round("ns", &store.view(), &[want(1, 4, Some(Serving))]).superseded.contains("uid-1"));
}

#[test]
fn what_others_did_to_our_slice_is_undone() {
    let mut store = Store::default();
    store.settle(&[want(1, 1, Some(Serving))]);
    let mut slice = EndpointSlice::clone(store.slices.values().next().unwrap());
    slice.ports.as_mut().unwrap()[0].port = Some(22);
    slice.endpoints.as_mut().unwrap()[0].addresses = vec!["10.9.9.9".into()];
    let twin = slice.endpoints.as_ref().unwrap()[0].clone();
    slice
        .endpoints
        .as_mut()
        .unwrap()
        .extend([twin, Endpoint { addresses: vec!["10.8.8.8".into()], ..Endpoint::default() }]);
    store.put(slice);
    for _ in 0..3 {
        for write in round("ns", &store.view(), &[want(1, 1, Some(Serving))]).writes {
            store.apply(write).unwrap();
        }
    }
    store.check();
    let slice = store.slices.values().next().unwrap();
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
    assert_eq!((store.count(), &store.endpoint("uid-1").unwrap().addresses[0]), (1, &"10.0.0.2".to_owned()));
}

#[derive(Clone, Debug)]
enum Move {
    Look(usize),
    Plan(usize, usize, Option<u8>),
    Write(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        (0..2usize).prop_map(Move::Look),
        (0..2usize, 0..130usize, proptest::option::of(0..3u8)).prop_map(|(who, n, phase)| Move::Plan(who, n, phase)),
        (0..2usize).prop_map(Move::Write),
    ];
    proptest::collection::vec(one, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Two controllers with views as old as can be, their writes in any order: no Server ever has two endpoints, no
    /// slice too many; and once they look again, the last wish of each Server comes true.
    #[test]
    fn two_controllers_never_give_a_server_two_endpoints(prefill in 90..105usize, moves in moves()) {
        let mut store = Store::default();
        let mut last: BTreeMap<usize, Want> = BTreeMap::new();
        let prefilled: Vec<_> = (200..200 + prefill).map(|n| want(n, 1, Some(Held))).collect();
        store.settle(&prefilled);
        let mut views = [store.view(), store.view()];
        let mut pending: [Vec<Write>; 2] = [Vec::new(), Vec::new()];
        let mut version = 1;
        for step in moves {
            match step {
                Move::Look(who) => views[who] = store.view(),
                Move::Plan(who, n, phase) => {
                    version += 1;
                    let phase = phase.map(|p| [Held, Draining, Serving][usize::from(p)]);
                    let wish = want(n, version, phase);
                    last.insert(n, wish.clone());
                    pending[who] = round("ns", &views[who], &[wish]).writes;
                }
                Move::Write(who) => {
                    for write in pending[who].drain(..) {
                        if store.apply(write).is_err() { break; }
                        store.check();
                    }
                }
            }
        }
        let wishes: Vec<Want> = last.into_values().collect();
        store.settle(&wishes);
        for wish in &wishes {
            let found = store.endpoint(&wish.who.uid);
            let wanted = wish.show.as_ref().map(|s| endpoint::build(&wish.who, &s.address, s.phase));
            prop_assert_eq!(found.is_some(), wanted.is_some());
            if let (Some(found), Some(wanted)) = (found, wanted) {
                prop_assert!(endpoint::same(&found, &wanted));
            }
        }
        let expected = prefill + wishes.iter().filter(|wish| wish.show.is_some()).count();
        prop_assert_eq!(store.count(), expected);
    }
}
