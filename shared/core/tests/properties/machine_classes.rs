//! A class with `maxMachines` never has more machines than that, whoever asks and when.

use std::collections::BTreeSet;

use berth_core::{
    api::Server,
    machine_class::{MachineRoom, machine_room},
};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

const BEGIN: i64 = 1_767_225_600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(BEGIN + second).unwrap()
}

/// A Server: when it was created, how many seconds later it is stored, and a number that orders those of one second.
type Made = (i64, i64, u32);

fn server(index: usize, (created, _, order): Made) -> Server {
    let uid = format!("{order:010}-{index}");
    berth_testing::server(
        json!({"metadata": {"name": format!("s-{index}"), "uid": uid, "creationTimestamp": at(created)}}),
    )
}

proptest! {
    #[test]
    fn there_are_never_more_machines_than_allowed(
        made in prop::collection::vec((0i64..20, 0i64..3, any::<u32>()), 1..12),
        max in 0usize..6,
        asks in prop::collection::vec((0i64..40, any::<prop::sample::Index>(), any::<bool>()), 1..80),
    ) {
        let servers: Vec<Server> = made.iter().enumerate().map(|(i, made)| server(i, *made)).collect();
        let (mut machines, mut gone) = (BTreeSet::new(), BTreeSet::new());
        let mut asks = asks;
        asks.sort_by_key(|(second, ..)| *second);
        for (second, which, retires) in asks {
            let which = which.index(servers.len());
            let is_stored = |i: usize| made[i].0 + made[i].1 <= second && !gone.contains(&i);
            if !is_stored(which) {
                continue;
            }
            if retires {
                machines.remove(&which);
                gone.insert(which);
                continue;
            }
            let counting = (0..servers.len()).filter(|i| is_stored(*i)).map(|i| &servers[i]);
            if machine_room(&servers[which], counting, max, at(second)) == MachineRoom::Free {
                machines.insert(which);
            }
            prop_assert!(machines.len() <= max, "{machines:?} at {second}");
        }
    }

    #[test]
    fn the_oldest_get_the_machines(count in 1usize..12, max in 0usize..12) {
        let made: Vec<Made> = (0..count).map(|i| (i64::try_from(i).unwrap(), 0, 0)).collect();
        let servers: Vec<Server> = made.iter().enumerate().map(|(i, made)| server(i, *made)).collect();
        for (i, server) in servers.iter().enumerate() {
            let room = machine_room(server, servers.iter(), max, at(100));
            prop_assert_eq!(room, if i < max { MachineRoom::Free } else { MachineRoom::Full });
        }
        let soon = machine_room(&servers[0], servers.iter().take(1), 1, at(1));
        prop_assert_eq!(soon, MachineRoom::KnownAt(at(3)));
    }
}
