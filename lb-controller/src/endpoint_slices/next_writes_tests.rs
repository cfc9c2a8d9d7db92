use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::member::ServicePort;

/// Slices with the API server's semantics: a write succeeds only on the version that it was made from.
#[derive(Default)]
struct FakeApi {
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    version: u64,
}

impl FakeApi {
    fn list(&self) -> Vec<Arc<EndpointSlice>> {
        self.slices.values().cloned().collect()
    }

    fn apply(&mut self, write: SliceWrite) -> Result<(), ()> {
        let current = |slice: &EndpointSlice| {
            let name = slice.metadata.name.as_deref().unwrap();
            self.slices.get(name).map(|s| s.metadata.resource_version.clone())
        };
        match write {
            SliceWrite::Create(slice) if current(&slice).is_none() => self.put(slice),
            SliceWrite::Replace(slice) if current(&slice) == Some(slice.metadata.resource_version.clone()) => {
                self.put(slice);
            }
            SliceWrite::Delete(slice) if current(&slice) == Some(slice.metadata.resource_version.clone()) => {
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

    fn settle(&mut self, desired: &[DesiredEndpoint]) -> Vec<NextWrites> {
        let mut rounds = Vec::new();
        for _ in 0..64 {
            let next = next_writes("ns", &self.list(), desired);
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

fn desired(n: usize, version: u64, phase: Option<TrafficPhase>) -> DesiredEndpoint {
    desired_at(n, version, phase, 8080)
}

fn desired_at(n: usize, version: u64, phase: Option<TrafficPhase>, port: i32) -> DesiredEndpoint {
    DesiredEndpoint {
        server: ServerRef { namespace: "ns".into(), name: format!("web-{n}"), uid: format!("uid-{n}") },
        version,
        endpoint: phase.map(|phase| EndpointSpec {
            backend: ServiceBackend {
                name: "web".into(),
                ports: vec![ServicePort { name: String::new(), port }],
                subset: None,
            },
            address: format!("10.0.{}.{}", n / 250, n % 250 + 1),
            phase,
        }),
        must_record_version: false,
        held_for: None,
    }
}

use TrafficPhase::{Draining, Held, Serving};

#[test]
fn many_changes_of_one_slice_are_one_write() {
    let mut api = FakeApi::default();
    let held: Vec<_> = (0..50).map(|n| desired(n, 1, Some(Held))).collect();
    let rounds = api.settle(&held);
    assert_eq!((rounds.len(), rounds[0].writes.len(), rounds[0].added.len()), (1, 1, 50));
    let serving: Vec<_> = (0..50).map(|n| desired(n, 2, Some(Serving))).collect();
    let rounds = api.settle(&serving);
    assert_eq!((rounds.len(), rounds[0].writes.len(), rounds[0].added.len()), (1, 1, 0));
    assert!(next_writes("ns", &api.list(), &serving).writes.is_empty());
}

#[test]
fn a_thousand_servers_fill_slices_of_a_hundred_and_leave_only_closed_slices() {
    let mut api = FakeApi::default();
    api.settle(&(0..1000).map(|n| desired(n, 1, Some(Held))).collect::<Vec<_>>());
    assert_eq!(api.count(), 1000);
    assert!((10..=20).contains(&api.slices.len()), "{} slices", api.slices.len());
    api.settle(&(0..1000).map(|n| desired(n, 2, None)).collect::<Vec<_>>());
    assert_eq!(api.count(), 0);
    assert!(api.slices.values().all(|slice| slice_group::is_closed(slice)), "an empty open slice is left");
}

#[test]
fn an_empty_slice_is_deleted() {
    let mut api = FakeApi::default();
    api.settle(&[desired(1, 1, Some(Held))]);
    api.settle(&[desired(1, 2, None)]);
    assert!(api.slices.is_empty());
}

#[test]
fn a_server_leaves_the_old_slice_before_it_joins_the_one_of_its_new_port() {
    let mut api = FakeApi::default();
    api.settle(&[desired(1, 1, Some(Held)), desired(2, 1, Some(Held))]);
    let rounds = api.settle(&[desired_at(1, 2, Some(Held), 9090)]);
    assert_eq!(rounds.len(), 2);
    assert_eq!((api.count(), api.slices.len()), (2, 2));
}

#[test]
fn a_decision_on_an_older_version_is_superseded() {
    let mut api = FakeApi::default();
    api.settle(&[desired(1, 5, Some(Held))]);
    let late = next_writes("ns", &api.list(), &[desired(1, 4, Some(Serving))]);
    assert!(late.writes.is_empty());
    assert!(late.superseded.contains("uid-1"));
    assert!(next_writes("ns", &api.list(), &[desired(1, 4, Some(Held))]).superseded.is_empty(), "it shows the same");
}

#[test]
fn a_version_that_must_be_recorded_supersedes_older_decisions_even_when_nothing_else_changes() {
    let mut api = FakeApi::default();
    api.settle(&[desired(1, 3, Some(Held))]);
    let under_way = next_writes("ns", &api.list(), &[desired(1, 4, Some(Serving))]);
    assert!(
        api.settle(&[desired(1, 5, Some(Held))]).is_empty(),
        "nothing to write unless the version must be recorded"
    );
    api.settle(&[DesiredEndpoint { must_record_version: true, ..desired(1, 5, Some(Held)) }]);
    for write in under_way.writes {
        assert!(api.apply(write).is_err(), "a release that was under way succeeded after the hold");
    }
    assert!(next_writes("ns", &api.list(), &[desired(1, 4, Some(Serving))]).superseded.contains("uid-1"));
}

#[test]
fn changes_by_others_are_undone() {
    let mut api = FakeApi::default();
    api.settle(&[desired(1, 1, Some(Serving))]);
    let mut slice = EndpointSlice::clone(api.slices.values().next().unwrap());
    slice.ports.as_mut().unwrap()[0].port = Some(22);
    slice.endpoints.as_mut().unwrap()[0].addresses = vec!["10.9.9.9".into()];
    let twin = slice.endpoints.as_ref().unwrap()[0].clone();
    slice
        .endpoints
        .as_mut()
        .unwrap()
        .extend([twin, Endpoint { addresses: vec!["10.8.8.8".into()], ..Endpoint::default() }]);
    api.put(slice);
    for _ in 0..3 {
        for write in next_writes("ns", &api.list(), &[desired(1, 1, Some(Serving))]).writes {
            api.apply(write).unwrap();
        }
    }
    api.check();
    let slice = api.slices.values().next().unwrap();
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
    assert_eq!((api.count(), &api.endpoint("uid-1").unwrap().addresses[0]), (1, &"10.0.0.2".to_owned()));
}

#[derive(Clone, Debug)]
enum Action {
    /// A controller reads the slices.
    Read(usize),
    /// A controller computes writes for one Server from what it read last.
    Plan(usize, usize, Option<u8>),
    /// A controller carries its writes out.
    Write(usize),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let one = prop_oneof![
        (0..2usize).prop_map(Action::Read),
        (0..2usize, 0..130usize, proptest::option::of(0..3u8))
            .prop_map(|(controller, n, phase)| Action::Plan(controller, n, phase)),
        (0..2usize).prop_map(Action::Write),
    ];
    proptest::collection::vec(one, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Two controllers write in any order, from slices that they read at any time before: no Server ever has two endpoints, and
    /// no slice too many. Once they have read the slices again, each Server is shown as was decided last.
    #[test]
    fn two_controllers_never_give_a_server_two_endpoints(prefill in 90..105usize, actions in actions()) {
        let mut api = FakeApi::default();
        let mut last: BTreeMap<usize, DesiredEndpoint> = BTreeMap::new();
        let prefilled: Vec<_> = (200..200 + prefill).map(|n| desired(n, 1, Some(Held))).collect();
        api.settle(&prefilled);
        let mut read = [api.list(), api.list()];
        let mut pending: [Vec<SliceWrite>; 2] = [Vec::new(), Vec::new()];
        let mut version = 1;
        for action in actions {
            match action {
                Action::Read(controller) => read[controller] = api.list(),
                Action::Plan(controller, n, phase) => {
                    version += 1;
                    let phase = phase.map(|p| [Held, Draining, Serving][usize::from(p)]);
                    let desired = desired(n, version, phase);
                    last.insert(n, desired.clone());
                    pending[controller] = next_writes("ns", &read[controller], &[desired]).writes;
                }
                Action::Write(controller) => {
                    for write in pending[controller].drain(..) {
                        if api.apply(write).is_err() { break; }
                        api.check();
                    }
                }
            }
        }
        let last: Vec<DesiredEndpoint> = last.into_values().collect();
        api.settle(&last);
        for desired in &last {
            let (found, expected) = (api.endpoint(&desired.server.uid), desired.build());
            prop_assert_eq!(found.is_some(), expected.is_some());
            if let (Some(found), Some(expected)) = (found, expected) {
                prop_assert!(endpoint::is_same(&found, &expected));
            }
        }
        let expected = prefill + last.iter().filter(|desired| desired.endpoint.is_some()).count();
        prop_assert_eq!(api.count(), expected);
    }
}
