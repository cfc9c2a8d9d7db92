//! Each phase of the plan by itself.

use berth_core::{
    api::{Server, State},
    conditions::{self, PROGRESSING, STALLED},
};
use serde_json::{Value, json};

use super::fleets::{World, at, condition, disturbed, fleet, ledger, lines, names, server, set, stall, world};
use crate::set::{
    drift_repair::{DriftMemory, DriftView},
    machines::NoMachines,
    plan::{Effect, SetLimits},
    status::news,
};

#[test]
fn an_interval_delays_ready_servers_and_no_others() {
    let old = set("1", "c", json!({}));
    let spec = json!({"updateStrategy": {"maxUnavailable": 4, "intervalSeconds": 30}});
    let mut new = set("2", "c", spec);
    let mut servers = fleet(&old, &["Ready", "Ready", "Deploying", "Ready"]);
    let first = world(&servers).enter(&mut new);
    assert_eq!(names(&first.update), ["web-2", "web-0"], "one that is not Ready waits for nothing");
    assert_eq!(new.status.as_ref().unwrap().last_disturbed_at.as_ref().unwrap().0, at(0));
    assert_eq!(first.requeue_at, Some(at(30)));

    // The process dies before it touches anything. Whether it did the next one cannot know: it waits, and stamps anew.
    let again = World { seconds: 7, ..world(&servers) }.enter(&mut new);
    assert_eq!((names(&again.update), again.requeue_at), (vec!["web-2".into()], Some(at(30))));
    let again = World { seconds: 30, ..world(&servers) }.enter(&mut new);
    assert_eq!(names(&again.update), ["web-2", "web-0"]);
    assert_eq!(
        (new.status.as_ref().unwrap().last_disturbed_at.as_ref().unwrap().0, again.requeue_at),
        (at(30), Some(at(60)))
    );

    servers[0] = server(&new, 0, "Initializing");
    servers[2] = server(&new, 2, "Ready");
    let early = World { seconds: 59, ..world(&servers) }.enter(&mut new);
    assert_eq!((names(&early.update), early.requeue_at), (vec![], Some(at(60))));
    servers[1].status.as_mut().unwrap().observed_generation = Some(0);
    let unobserved = World { seconds: 59, ..world(&servers) }.plan(&new);
    assert!(unobserved.update.is_empty(), "a newer generation does not make a serving Server free to disturb");
    servers[1] = server(&old, 1, "Deploying");
    let unready = World { seconds: 59, ..world(&servers) }.plan(&new);
    assert_eq!(names(&unready.update), ["web-1"]);
    servers[1] = server(&old, 1, "Ready");
    let due = World { seconds: 60, ..world(&servers) }.enter(&mut new);
    assert_eq!(names(&due.update), ["web-1"]);
    assert_eq!(disturbed(&new), ["web-0/Environment", "web-1/Environment"]);
}

#[test]
fn without_an_interval_only_the_budget_limits_a_roll_out() {
    let old = set("1", "c", json!({}));
    let mut new = set("2", "c", json!({"updateStrategy": {"maxUnavailable": 3}}));
    let servers = fleet(&old, &["Ready"; 4]);
    let plan = world(&servers).enter(&mut new);
    assert_eq!((names(&plan.update), plan.requeue_at), (vec!["web-0".into(), "web-1".into(), "web-2".into()], None));
}

#[test]
fn a_paused_roll_out_begins_nothing_and_a_partition_keeps_its_servers() {
    let old = set("1", "c", json!({}));
    let servers = fleet(&old, &["Ready", "Deploying", "Ready", "Ready"]);
    for (strategy, replaces) in [("InPlace", false), ("Replace", true)] {
        let update = |paused: bool, partition: i32| {
            let strategy = json!({"type": strategy, "maxUnavailable": 4, "maxSurge": 2, "partition": partition});
            set("2", if replaces { "d" } else { "c" }, json!({"paused": paused, "updateStrategy": strategy}))
        };
        let paused = world(&servers).plan(&update(true, 0));
        assert!(paused.has_no_action() && paused.ledgers.disturbed.to_status().is_empty(), "{strategy}");
        let held = world(&servers).plan(&update(false, 3));
        let begun = [names(&held.update), names(&held.replace)].concat();
        assert_eq!(begun, ["web-1"], "{strategy}: three of four keep what they have");
        assert!(world(&servers).plan(&update(false, 4)).has_no_action(), "{strategy}");
    }
}

#[test]
fn too_many_failed_servers_hold_the_roll_out_until_repair_or_a_new_template() {
    let old = set("1", "c", json!({}));
    let spec = json!({"updateStrategy": {"maxUnavailable": 4, "maxFailed": 1}});
    let mut new = set("2", "c", spec.clone());
    let mut servers = fleet(&old, &["Ready"; 4]);
    for n in [0, 1] {
        servers[n] = server(&new, n.try_into().unwrap(), "Initializing");
    }
    stall(&mut servers[0], "no such version");
    // With the old template it is no failure of the new one.
    stall(&mut servers[2], "of old");
    assert!(!world(&servers).plan(&new).update.is_empty(), "one may fail");

    stall(&mut servers[1], "no disk");
    let before = new.status.clone();
    let held = world(&servers).enter(&mut new);
    assert!(held.has_no_action());
    assert_eq!(condition(&new, PROGRESSING), ("False".into(), "TooManyFailed".into()));
    let waiting = new.status.as_ref().unwrap().waiting_for.clone().unwrap();
    assert!(waiting.contains("web-0, web-1; web-0: no such version") && waiting.contains("at most 1"), "{waiting}");
    let told = news(before.as_ref(), new.status.as_ref().unwrap());
    assert!(told.iter().any(|(reason, _)| reason == "TooManyFailed"), "{told:?}");
    let before = new.status.clone();
    world(&servers).enter(&mut new);
    assert!(news(before.as_ref(), new.status.as_ref().unwrap()).is_empty(), "once");

    let newer = set("3", "c", spec);
    assert_eq!(world(&servers).plan(&newer).update.len(), 4, "another template may mend them");
    servers[1] = server(&new, 1, "Ready");
    assert_eq!(names(&world(&servers).plan(&new).update), ["web-2", "web-3"], "it goes on");
    servers[1].status.as_mut().unwrap().observed_generation = Some(0);
    stall(&mut servers[1], "of before it was touched");
    assert!(!world(&servers).plan(&new).update.is_empty(), "what is not decided yet is no failure");
}

/// What is created and what goes, for a set of four on old machines of which some are Ready and so many new ones.
fn replaced(surge: &Value, unavailable: &Value, old: &[&str], young: &[&str]) -> (usize, Vec<String>) {
    let before = set("1", "c", json!({}));
    let strategy = json!({"type": "Replace", "maxSurge": surge, "maxUnavailable": unavailable});
    let now = set("1", "d", json!({"updateStrategy": strategy}));
    let mut servers = fleet(&before, old);
    servers.extend(young.iter().zip(100..).map(|(state, ordinal)| server(&now, ordinal, state)));
    let plan = world(&servers).plan(&now);
    (plan.create.len(), names(&plan.replace))
}

#[test]
fn machines_are_replaced_with_the_arithmetic_of_a_deployment() {
    let four = ["Ready"; 4];
    for (surge, unavailable, old, young, create, retire) in [
        // A surge is rounded up, what may be unavailable down.
        (json!("30%"), json!(0), &four[..], &[][..], 2, &[][..]),
        (json!("0%"), json!("30%"), &four, &[], 0, &["web-0"]),
        (json!(1), json!(1), &four, &[], 1, &["web-0"]),
        // Only what serves makes room, and what does not serve yet takes room away.
        (json!(1), json!(0), &four, &["Deploying"], 0, &[]),
        (json!(1), json!(0), &four, &["Ready"], 0, &["web-0"]),
        (json!(0), json!(1), &four[..3], &["Deploying"], 0, &[]),
        (json!(0), json!(1), &four[..3], &[], 1, &[]),
        (json!(4), json!(0), &four, &["Ready"; 4], 0, &["web-0", "web-1", "web-2", "web-3"]),
        // Those that are not Ready go first, but no more than the budget, should they come back.
        (json!(0), json!(2), &["Ready", "Unknown", "Unknown", "Unknown"], &[], 0, &["web-1", "web-2"]),
        (json!(0), json!(1), &["Ready", "Ready", "Deploying", "Ready"], &[], 0, &["web-2"]),
    ] {
        let case = format!("surge {surge}, unavailable {unavailable}, {old:?}, {young:?}");
        assert_eq!(
            replaced(&surge, &unavailable, old, young),
            (create, retire.iter().map(|s| (*s).into()).collect()),
            "{case}"
        );
    }
}

#[test]
fn a_replaced_server_is_counted_once_and_not_updated() {
    let before = set("1", "c", json!({}));
    let mut now = set("2", "d", json!({"updateStrategy": {"type": "Replace", "maxUnavailable": 2, "maxSurge": 0}}));
    let mut servers = fleet(&before, &["Ready"; 4]);
    let first = world(&servers).enter(&mut now);
    assert_eq!(names(&first.replace), ["web-0", "web-1"]);
    assert_eq!((first.create.len(), first.update.len()), (0, 0));
    // Entered, but not yet gone: neither are others created for them, nor do more go.
    let again = world(&servers).enter(&mut now);
    assert_eq!((names(&again.replace), again.create.len()), (names(&first.replace), 0));
    servers.drain(..2);
    let next = world(&servers).enter(&mut now);
    assert_eq!((next.create, next.replace.len()), (vec!["web-0".to_owned(), "web-1".to_owned()], 0));
    let status = now.status.as_ref().unwrap();
    assert_eq!((status.disturbed.len(), status.updated_replicas, status.replicas), (0, 0, 2));
}

#[test]
fn replacement_without_any_headroom_stalls_the_set() {
    let before = set("1", "c", json!({}));
    let mut now = set("1", "d", json!({"updateStrategy": {"type": "Replace", "maxUnavailable": 0, "maxSurge": 0}}));
    let servers = fleet(&before, &["Ready"; 4]);
    assert!(world(&servers).enter(&mut now).has_no_action());
    assert_eq!(condition(&now, STALLED), ("True".into(), "NoHeadroomToReplace".into()));
}

#[test]
fn an_update_without_any_headroom_stalls_the_set() {
    let before = set("1", "c", json!({}));
    let none = |more: Value| {
        let mut spec = json!({"updateStrategy": {"maxUnavailable": 0}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let no_headroom = ("True".to_owned(), "NoHeadroom".to_owned());
    let mut now = set("2", "c", none(json!({})));
    let servers = fleet(&before, &["Ready"; 4]);
    assert!(world(&servers).enter(&mut now).has_no_action());
    assert_eq!(condition(&now, STALLED), no_headroom);
    let told = &news(None, now.status.as_ref().unwrap())[0].1;
    assert!(told.starts_with("4 Ready Servers") && told.contains("web-0") && told.contains("maxUnavailable"), "{told}");
    // Where another Server may come first, that does not help a change in place.
    let mut surging = set("2", "c", json!({"updateStrategy": {"type": "Replace", "maxUnavailable": 0, "maxSurge": 1}}));
    world(&servers).enter(&mut surging);
    assert_eq!(condition(&surging, STALLED), no_headroom);

    // What is not Ready, and what is not to be changed anyhow, needs no room.
    for (spec, states) in [
        (none(json!({})), ["Deploying"; 4]),
        (none(json!({"paused": true})), ["Ready"; 4]),
        (json!({"updateStrategy": {"maxUnavailable": 0, "partition": 4}}), ["Ready"; 4]),
        (json!({"updateStrategy": {"maxUnavailable": 1}}), ["Ready"; 4]),
    ] {
        let mut now = set("2", "c", spec.clone());
        let servers = fleet(&before, &states);
        world(&servers).enter(&mut now);
        assert_eq!(condition(&now, STALLED).0, "False", "{spec} {states:?}");
    }

    let mut paused = set("1", "c", none(json!({"paused": true})));
    let servers = fleet(&paused, &["Ready"; 4]);
    let drifted =
        World { drift: DriftView { drifted: ["web-2".to_owned()].into(), ..DriftView::default() }, ..world(&servers) };
    assert!(drifted.enter(&mut paused).has_no_action());
    assert_eq!(condition(&paused, STALLED), no_headroom);
    assert!(news(None, paused.status.as_ref().unwrap())[0].1.contains("(web-2)"));
}

#[test]
fn an_in_place_strategy_refuses_another_machine() {
    let before = set("1", "c", json!({}));
    let mut now = set("1", "d", json!({}));
    let servers = fleet(&before, &["Ready"; 4]);
    assert!(world(&servers).enter(&mut now).has_no_action());
    assert_eq!(condition(&now, STALLED), ("True".into(), "MachineChanged".into()));
    assert_eq!(now.status.unwrap().updated_replicas, 0);
}

#[test]
fn without_machines_servers_are_retired_but_not_created_or_replaced() {
    let problem = NoMachines {
        reason: "ClassNotFound",
        message: "there is no MachineClass".into(),
        is_temporary: false,
        room: 0,
    };
    let mut set_ = set("1", "c", json!({"replicas": 6}));
    let servers = fleet(&set_, &["Ready"; 4]);
    let without = World { no_machines: Some(problem.clone()), ..world(&servers) };
    assert!(without.enter(&mut set_).has_no_action());
    assert_eq!(condition(&set_, STALLED), ("True".into(), "ClassNotFound".into()));
    let told = news(None, set_.status.as_ref().unwrap());
    assert_eq!(told, [("ClassNotFound".to_owned(), "there is no MachineClass".to_owned())]);
    assert_eq!(world(&servers).plan(&set_).create, ["web-4", "web-5"], "as soon as there are some");

    let moved = set("1", "d", json!({"updateStrategy": {"type": "Replace", "maxUnavailable": 2}}));
    assert!(without.plan(&moved).has_no_action());
    let fewer = set("1", "c", json!({"replicas": 3}));
    assert_eq!(names(&without.plan(&fewer).retire), ["web-3"]);

    let temporary = NoMachines { is_temporary: true, ..problem };
    let slow = World { no_machines: Some(temporary), ..world(&servers) };
    assert!(slow.enter(&mut set_).has_no_action());
    assert_eq!(condition(&set_, STALLED).0, "False", "it may pass by itself");
    assert_eq!(set_.status.unwrap().waiting_for.as_deref(), Some("there is no MachineClass"));
}

#[test]
fn a_class_with_little_room_gets_as_many_servers_as_fit_and_the_set_says_why() {
    let problem = |room| NoMachines { reason: "TooManyMachines", message: "full".into(), is_temporary: false, room };
    for (room, pending, created) in [(0, 0, 0), (1, 0, 1), (2, 0, 2), (9, 0, 3), (1, 2, 1), (0, 2, 0), (2, 1, 2)] {
        let mut set = set("1", "c", json!({"replicas": 5}));
        let servers = fleet(&set, &["Ready"; 2]);
        let names: Vec<_> = (2..2 + pending).map(|n| json!({"server": format!("web-{n}")})).collect();
        set.status = Some(serde_json::from_value(json!({"creating": names})).unwrap());
        let plan = World { no_machines: Some(problem(room)), ..world(&servers) }.enter(&mut set);
        assert_eq!(plan.create.len(), created, "room {room}, pending {pending}");
        let entered = plan.ledgers.creating.len();
        assert_eq!(entered, created.max(pending), "names that were given stay given");
        assert_eq!(condition(&set, STALLED), ("True".into(), "TooManyMachines".into()));
    }
}

#[test]
fn the_ceiling_of_replicas_limits_creations_and_removes_no_server() {
    for (replicas, exist, expected) in [(8, 4, 2), (8, 6, 0), (8, 7, 0), (6, 4, 2)] {
        let mut set = set("1", "c", json!({"replicas": replicas}));
        let servers = fleet(&set, &vec!["Ready"; exist]);
        let low = World { limits: SetLimits { creating: 50, replicas: 6, zone_brake: 40 }, ..world(&servers) };
        let plan = low.enter(&mut set);
        assert_eq!((plan.create.len(), plan.retire.len()), (expected, 0), "{replicas}, {exist}");
        let blocker = plan.blockers.iter().find(|blocker| blocker.effect == Effect::Stalled);
        assert_eq!(blocker.is_some(), replicas > 6);
        if let Some(blocker) = blocker {
            assert!(blocker.message.contains('8') && blocker.message.contains('6'), "{}", blocker.message);
            assert_eq!(condition(&set, STALLED).1, "TooManyReplicas");
        }
    }
}

#[test]
fn drift_is_repaired_within_the_shared_budget() {
    let mut set = set("1", "c", json!({"updateStrategy": {"maxUnavailable": 2}}));
    let mut servers = fleet(&set, &["Ready"; 4]);
    set.status.as_mut().unwrap().disturbed = ledger(&["web-0/App"]);
    let drifted =
        |names: &[&str]| DriftView { drifted: names.iter().map(|&n| n.to_owned()).collect(), ..DriftView::default() };
    let all = drifted(&["web-0", "web-1", "web-2", "web-3"]);
    let first = World { drift: all.clone(), ..world(&servers) }.enter(&mut set);
    assert_eq!(names(&first.repair), ["web-1"], "one is out for its code");
    assert_eq!(disturbed(&set), ["web-0/App", "web-1/Drift"]);
    let again = World { drift: all, ..world(&servers) }.enter(&mut set);
    assert_eq!(names(&again.repair), ["web-1"], "it is reported again until it was");

    servers[1].status.as_mut().unwrap().state = Some(State::Initializing);
    let rest = drifted(&["web-0", "web-2", "web-3"]);
    let out = World { drift: rest.clone(), ..world(&servers) }.enter(&mut set);
    assert!(out.repair.is_empty());
    assert_eq!(disturbed(&set), ["web-0/App", "web-1/Drift"]);
    servers[1].status.as_mut().unwrap().state = Some(State::Ready);
    let back = World { drift: rest, ..world(&servers) }.enter(&mut set);
    assert_eq!(names(&back.repair), ["web-2"]);
    assert_eq!(disturbed(&set), ["web-0/App", "web-2/Drift"]);
}

#[test]
fn an_entry_of_another_copy_stays_until_repair_or_a_time_limit() {
    let mut set = set("1", "c", json!({}));
    let mut servers = fleet(&set, &["Ready"; 4]);
    set.status.as_mut().unwrap().disturbed = ledger(&["web-0/Drift", "web-1/Drift"]);
    let mut memory = DriftMemory::default();
    let mut observe = |servers: &[Server], seconds: i64| {
        let view = memory.observe(&set, &servers.iter().collect::<Vec<_>>(), at(seconds), |_| false);
        let requeue_at = memory.requeue_at(&view);
        let plan = World { drift: view, seconds, ..world(servers) }.plan(&set);
        (names(&plan.repair), lines(&plan.ledgers.disturbed.to_status()), requeue_at)
    };
    let both = vec!["web-0/Drift".to_owned(), "web-1/Drift".to_owned()];
    let reported = vec!["web-0".to_owned(), "web-1".to_owned()];
    assert_eq!(observe(&servers, 0), (reported, both.clone(), Some(at(120))));
    servers[0].status.as_mut().unwrap().state = Some(State::Initializing);
    assert_eq!(observe(&servers, 5).1, both);
    servers[0].status.as_mut().unwrap().state = Some(State::Ready);
    assert_eq!(observe(&servers, 9).1, ["web-1/Drift"], "it was repaired");
    assert_eq!(observe(&servers, 119).1, ["web-1/Drift"]);
    assert_eq!(observe(&servers, 120), (vec![], vec![], None), "nothing differed");
}

#[test]
fn the_status_says_which_approval_is_awaited_and_how_to_give_it() {
    let mut set = set("1", "c", json!({}));
    let mut servers = fleet(&set, &["Initializing"; 4]);
    let gate = |server: &mut Server, gate: &str| {
        let tasks = json!([{"id": 1, "kind": "Gate", "gate": gate, "step": 1, "phase": "Pending"}]);
        let status = server.status.as_mut().unwrap();
        (status.tasks, status.first_task_id) = (serde_json::from_value(tasks).unwrap(), Some(1));
    };
    servers[..3].iter_mut().for_each(|server| gate(server, "CreateMachine"));
    gate(&mut servers[3], "ReleaseTraffic");
    set.metadata.generation = Some(8);
    world(&servers).enter(&mut set);
    let expected = "3 Servers wait for an approval of CreateMachine: create an Approval with target: {kind: VMReplicaSet, \
                    name: web, generation: 3} and gate: CreateMachine (1 more wait at other gates)";
    let status = set.status.as_ref().unwrap();
    assert_eq!(status.waiting_for.as_deref(), Some(format!("a person: {expected}").as_str()));
    assert_eq!(condition(&set, PROGRESSING), ("False".into(), "WaitingForApproval".into()));
    let progress = conditions::get(&status.conditions, PROGRESSING).unwrap();
    assert_eq!(progress.message, expected);
}
