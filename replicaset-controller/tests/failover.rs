//! The table of failover: who is rebooted, replaced, kept, given up or asked about, and who is left alone.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use berth_core::api::{Server, VMReplicaSet};
use k8s_openapi::jiff::Timestamp;
use replicaset_controller::set::failover::{ANNOTATION, DISABLED, Plan, Silent, plan};
use serde_json::{Value, json};

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The set's status shows the brake on, or off since so many seconds.
fn with_brake(mut set: VMReplicaSet, off_for: Option<i64>) -> VMReplicaSet {
    let (status, age) = off_for.map_or(("True", 500), |age| ("False", age));
    let condition = json!({"type": "FailoverHeld", "status": status, "reason": "r", "message": "", "lastTransitionTime": at(NOW - age).to_string()});
    set.status = serde_json::from_value(json!({"conditions": [condition]})).unwrap();
    set
}

/// Ten Servers; a lost one has 60 s, and two may be replaced at once.
#[expect(clippy::needless_pass_by_value, reason = "made for the call")]
fn set(policy: Value) -> VMReplicaSet {
    let labels = json!({"app": "web"});
    let mut failover = json!({"waitSeconds": 60, "action": "Replace", "maxInFlight": 2});
    for (key, value) in policy.as_object().unwrap() {
        failover[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "VMReplicaSet", "metadata": {"name": "web", "uid": "u"},
        "spec": {
            "replicas": 10, "selector": {"matchLabels": labels}, "failover": failover,
            "template": {"metadata": {"labels": labels}, "spec": {"machine": {"className": "local"}}},
        },
    }))
    .unwrap()
}

fn server(n: usize, state: &str, age: i64) -> Server {
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server",
        "metadata": {"name": format!("web-{n}"), "uid": format!("u{n}"), "generation": 1},
        "spec": {"machine": {"className": "local"}},
        "status": {"state": state, "stateSince": at(NOW - age).to_string(), "observedGeneration": 1},
    }))
    .unwrap()
}

/// Ten Servers, of which these have been lost for so long.
fn fleet(lost: &[(usize, i64)]) -> Vec<Server> {
    let age = |n: usize| lost.iter().find(|(lost, _)| *lost == n).map(|(_, age)| *age);
    (0..10).map(|n| age(n).map_or_else(|| server(n, "Ready", 5000), |age| server(n, "Unknown", age))).collect()
}

fn change(server: &mut Server, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::to_value(&*server).unwrap();
    change(&mut value);
    *server = serde_json::from_value(value).unwrap();
}

fn plan_of(set: &VMReplicaSet, servers: &[Server], ledger: &[&str]) -> Plan {
    let ledger: Vec<String> = ledger.iter().map(|line| (*line).to_owned()).collect();
    plan(set, &servers.iter().collect::<Vec<_>>(), &ledger, &Silent::new(), at(NOW))
}

fn held(plan: &Plan) -> (&str, &str) {
    plan.held.as_ref().map(|held| (held.reason, held.message.as_str())).unwrap()
}

#[test]
fn nothing_is_done_before_the_wait_is_over_and_it_wakes_for_that() {
    let waiting = plan_of(&set(json!({})), &fleet(&[(3, 59), (4, 20)]), &[]);
    assert!(waiting.is_done() && waiting.held.is_none() && waiting.ledger.is_empty());
    assert_eq!((waiting.lost, waiting.wake), (vec!["web-3".to_owned(), "web-4".to_owned()], Some(at(NOW + 1))));
    let due = plan_of(&set(json!({})), &fleet(&[(3, 60), (4, 20)]), &[]);
    assert_eq!((due.replace, due.ledger), (vec!["web-3".to_owned()], vec!["web-3/failover".to_owned()]));
    assert_eq!(due.wake, Some(at(NOW + 40)));
}

#[test]
fn without_a_policy_nothing_is_done() {
    let mut set = set(json!({}));
    set.spec.failover = None;
    let plan = plan_of(&set, &fleet(&[(3, 5000)]), &["web-1/app"]);
    assert!(plan.is_done() && plan.held.is_none() && plan.wake.is_none());
    assert_eq!((plan.ledger, plan.lost), (vec!["web-1/app".to_owned()], vec!["web-3".to_owned()]));
}

#[test]
fn the_longest_lost_go_first_and_no_more_than_may_be_in_flight() {
    let servers = fleet(&[(1, 70), (2, 90), (3, 80)]);
    let plan = plan_of(&set(json!({})), &servers, &[]);
    assert_eq!(plan.ledger, ["web-2/failover", "web-3/failover"]);
    let mut replaced = plan.replace.clone();
    replaced.sort();
    assert_eq!(replaced, ["web-2", "web-3"]);
    // Planned again after a crash, it is the same two.
    let again = plan_of(&set(json!({})), &servers, &["web-2/failover", "web-3/failover"]);
    assert_eq!((again.ledger, again.replace.len()), (plan.ledger, 2));
}

#[test]
fn a_replacement_is_in_flight_until_somebody_has_taken_the_place() {
    let ledger = ["web-2/failover", "web-3/failover"];
    // web-2 and web-3 are gone; nothing stands in their places yet, then one is being made, then one is Ready.
    let mut servers: Vec<Server> = fleet(&[(1, 70)]);
    servers.retain(|s| !["web-2", "web-3"].contains(&s.metadata.name.as_deref().unwrap()));
    let waiting = plan_of(&set(json!({})), &servers, &ledger);
    assert_eq!((waiting.ledger.len(), waiting.is_done()), (2, true));
    servers.push(server(10, "Initializing", 5));
    assert_eq!(plan_of(&set(json!({})), &servers, &ledger).ledger.len(), 2);
    servers.pop();
    servers.push(server(10, "Ready", 5));
    let one = plan_of(&set(json!({})), &servers, &ledger);
    assert_eq!((one.ledger.len(), one.replace), (2, vec!["web-1".to_owned()]));
    servers.push(server(11, "Ready", 5));
    assert_eq!(plan_of(&set(json!({})), &servers, &ledger).ledger, ["web-1/failover"]);
}

#[test]
fn a_machine_that_comes_back_before_its_turn_is_kept() {
    let mut servers = fleet(&[(2, 90)]);
    servers[2] = server(2, "Initializing", 1);
    let plan = plan_of(&set(json!({})), &servers, &["web-2/failover", "web-7/app"]);
    assert!(plan.is_done(), "{plan:?}");
    assert_eq!(plan.ledger, ["web-7/app"]);
}

#[test]
fn a_person_outranks_it() {
    let forced = |server: &mut Server| {
        change(server, |v| {
            v["spec"]["force"] = json!({"state": "Unknown", "reason": "mine"});
            v["status"]["force"] = json!({"id": "x", "active": true});
        });
    };
    let opted_out = |server: &mut Server| {
        change(server, |v| v["metadata"]["annotations"] = json!({ANNOTATION: DISABLED}));
    };
    let offline = |server: &mut Server| change(server, |v| v["spec"]["offline"] = true.into());
    for (n, hand) in [forced as fn(&mut Server), opted_out, offline].into_iter().enumerate() {
        let mut servers = fleet(&[(2, 5000)]);
        hand(&mut servers[2]);
        let plan = plan_of(&set(json!({})), &servers, &[]);
        assert!(plan.is_done() && plan.ledger.is_empty() && plan.wake.is_none(), "case {n}: {plan:?}");
    }
    // What a person said once and took back counts no more.
    let mut servers = fleet(&[(2, 5000)]);
    forced(&mut servers[2]);
    change(&mut servers[2], |v| v["status"]["force"]["active"] = false.into());
    assert_eq!(plan_of(&set(json!({})), &servers, &[]).replace, ["web-2"]);
}

#[test]
fn the_brake_holds_everything_and_says_who_is_sick() {
    let lost: Vec<(usize, i64)> = (0..5).map(|n| (n, 100)).collect();
    let all = json!({"reboot": {"cooldownSeconds": 600}});
    for policy in [json!({}), all, json!({"action": "Shrink"})] {
        let plan = plan_of(&set(policy), &fleet(&lost), &["web-0/failover"]);
        assert!(plan.is_done(), "{plan:?}");
        let (reason, message) = held(&plan);
        assert_eq!(reason, "TooManyUnknown");
        assert!(message.starts_with("5 of 10 Servers cannot be reached, more than the 4"), "{message}");
        assert!(message.contains("web-0, web-1, web-2, web-3, web-4"), "{message}");
    }
    // Four of ten are 40 %.
    assert!(plan_of(&set(json!({})), &fleet(&lost[..4]), &[]).held.is_none());
    for (limit, braked) in [(json!(4), true), (json!(5), false), (json!("50%"), false), (json!("0%"), true)] {
        let plan = plan_of(&set(json!({"unhealthyLessThanOrEqualTo": limit})), &fleet(&lost), &[]);
        assert_eq!(plan.held.is_some(), braked, "{limit}");
    }
    // A set of one may lose one.
    let mut one = set(json!({}));
    one.spec.replicas = 1;
    assert_eq!(plan_of(&one, &[server(0, "Unknown", 100)], &[]).replace, ["web-0"]);
    // Those that others have to see to count too.
    let mut servers = fleet(&lost);
    change(&mut servers[0], |v| v["metadata"]["annotations"] = json!({ANNOTATION: DISABLED}));
    assert!(plan_of(&set(json!({})), &servers, &[]).held.is_some());
}

#[test]
fn whoever_is_still_lost_when_the_brake_lets_go_waits_anew() {
    let lost = [(1, 5000), (2, 5000), (3, 5000)];
    let begun = ["web-1/failover"];
    for (off_for, wake) in [(None, 60), (Some(0), 60), (Some(59), 1)] {
        let set = with_brake(set(json!({})), off_for);
        for ledger in [[].as_slice(), &begun] {
            let plan = plan_of(&set, &fleet(&lost), ledger);
            assert!(plan.is_done() && plan.held.is_none() && plan.brake.is_none(), "{off_for:?}: {plan:?}");
            assert_eq!(plan.wake, Some(at(NOW + wake)));
            assert_eq!(plan.ledger, ledger, "what was begun stays begun");
        }
    }
    let over = with_brake(set(json!({})), Some(60));
    assert_eq!(plan_of(&over, &fleet(&lost), &[]).replace, ["web-1", "web-2"]);
    assert_eq!(plan_of(&over, &fleet(&lost), &begun).replace, ["web-1", "web-2"]);
    let shrinking = json!({"action": "Shrink"});
    let shrunk = |off_for| plan_of(&with_brake(set(shrinking.clone()), off_for), &fleet(&lost), &begun).shrink;
    assert_eq!((shrunk(None), shrunk(Some(60))), (0, 2));
    // Lost after the brake has let go, it waits from then.
    let later = plan_of(&with_brake(set(json!({})), Some(50)), &fleet(&[(1, 20)]), &[]);
    assert_eq!(later.wake, Some(at(NOW + 40)));
    // One that was rebooted before is waited for as well.
    let reboot = json!({"reboot": {"cooldownSeconds": 600}});
    let mut servers = fleet(&[(1, 5000)]);
    change(&mut servers[1], |v| {
        v["spec"]["reboot"] = json!({"id": "x", "reason": "failover", "at": at(NOW - 300).to_string()});
    });
    assert_eq!(plan_of(&set(reboot.clone()), &servers, &[]).replace, ["web-1"]);
    let plan = plan_of(&with_brake(set(reboot), Some(50)), &servers, &[]);
    assert!(plan.is_done() && plan.wake == Some(at(NOW + 10)), "{plan:?}");
}

#[test]
fn the_brake_is_on_before_the_first_turn_has_come_and_holds_on() {
    let lost: Vec<(usize, i64)> = (0..5).map(|n| (n, 20)).collect();
    let early = plan_of(&set(json!({})), &fleet(&lost), &[]);
    assert!(early.brake.is_some_and(|why| why.starts_with("5 of 10")) && early.held.is_none());
    let lost: Vec<(usize, i64)> = (0..5).map(|n| (n, 100)).collect();
    let on = plan_of(&with_brake(set(json!({})), None), &fleet(&lost), &[]);
    assert_eq!(held(&on).0, "TooManyUnknown");
}

#[test]
fn a_machine_is_rebooted_once_and_waited_for_before_it_is_replaced() {
    let set = set(json!({"reboot": {"cooldownSeconds": 600}}));
    let mut servers = fleet(&[(2, 100)]);
    let first = plan_of(&set, &servers, &[]);
    assert_eq!(first.reboot, [("web-2".to_owned(), format!("lost-{}", NOW - 100))]);
    assert!(first.replace.is_empty() && first.ledger.is_empty());
    let asked = |servers: &mut [Server], ago: i64| {
        change(&mut servers[2], |v| v["spec"]["reboot"] = json!({"id": "x", "at": at(NOW - ago).to_string()}));
    };
    asked(&mut servers, 30);
    let rebooted = plan_of(&set, &servers, &[]);
    assert!(rebooted.is_done(), "{rebooted:?}");
    assert_eq!(rebooted.wake, Some(at(NOW + 30)));
    asked(&mut servers, 60);
    assert_eq!(plan_of(&set, &servers, &[]).replace, ["web-2"]);
    // Rebooted before this loss, and not long ago: once is enough.
    asked(&mut servers, 500);
    assert_eq!(plan_of(&set, &servers, &[]).replace, ["web-2"]);
    asked(&mut servers, 701);
    assert_eq!(plan_of(&set, &servers, &[]).reboot.len(), 1, "the cool-down is over");
}

#[test]
fn reboots_count_as_in_flight() {
    let set = set(json!({"reboot": {"cooldownSeconds": 600}}));
    let mut servers = fleet(&[(1, 100), (2, 101), (3, 102)]);
    let plan = plan_of(&set, &servers, &[]);
    assert_eq!(plan.reboot.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["web-3", "web-2"]);
    for n in [2, 3] {
        change(&mut servers[n], |v| v["spec"]["reboot"] = json!({"id": "x", "at": at(NOW - 1).to_string()}));
    }
    assert!(plan_of(&set, &servers, &[]).is_done());
}

#[test]
fn failed_machines_are_kept_up_to_a_number_and_until_their_time_is_over() {
    let set = set(json!({"retain": {"max": 1, "expirySeconds": 3600}}));
    let servers = fleet(&[(1, 100), (2, 101)]);
    let plan = plan_of(&set, &servers, &[]);
    assert_eq!(plan.retain, [("web-1".to_owned(), at(NOW + 3600))]);
    assert_eq!(plan.replace, ["web-2"]);
    let mut servers = fleet(&[(1, 100), (2, 101)]);
    let keep =
        |until: i64| move |v: &mut Value| v["spec"]["retain"] = json!({"until": at(until).to_string(), "reason": "x"});
    change(&mut servers[1], keep(NOW + 9));
    let plan = plan_of(&set, &servers, &["web-1/failover"]);
    assert_eq!((plan.replace, plan.expired.len(), plan.wake), (vec!["web-2".to_owned()], 0, Some(at(NOW + 9))));
    change(&mut servers[1], keep(NOW));
    assert_eq!(plan_of(&set, &servers, &[]).expired, ["web-1"]);
    change(&mut servers[1], |v| v["metadata"]["deletionTimestamp"] = at(NOW).to_string().into());
    assert!(plan_of(&set, &servers, &[]).expired.is_empty(), "it is going already");
}

#[test]
fn shrinking_lowers_replicas_once_for_each_and_never_to_nothing() {
    let mut set = set(json!({"action": "Shrink"}));
    let servers = fleet(&[(1, 100), (2, 101), (3, 102)]);
    let plan = plan_of(&set, &servers, &[]);
    assert_eq!((plan.shrink, plan.ledger.len(), plan.replace.len()), (2, 2, 0));
    // Lowered, and not yet retired: not lowered again.
    let ledger: Vec<&str> = plan.ledger.iter().map(String::as_str).collect();
    set.spec.replicas = 8;
    assert_eq!(plan_of(&set, &servers, &ledger).shrink, 0);
    set.spec.replicas = 9;
    assert_eq!(plan_of(&set, &servers, &ledger).shrink, 1, "lowered once of two times");
    set.spec.replicas = 1;
    let last = plan_of(&set, &[server(0, "Unknown", 100)], &[]);
    assert_eq!((last.shrink, held(&last).0), (0, "LastServer"));
    // Retired, its entry ends at once: nobody takes the place.
    set.spec.replicas = 8;
    let rest: Vec<Server> = servers.into_iter().filter(|s| s.metadata.name.as_deref() != Some("web-3")).collect();
    let rest = plan_of(&set, &rest, &["web-3/failover", "web-2/failover"]);
    assert_eq!(rest.ledger.first().map(String::as_str), Some("web-2/failover"), "{rest:?}");
}

#[test]
fn a_person_is_asked_with_the_command_that_answers() {
    let plan = plan_of(&set(json!({"action": "AskHuman"})), &fleet(&[(1, 90), (2, 600)]), &[]);
    assert!(plan.is_done() && plan.ledger.is_empty());
    let (reason, message) = held(&plan);
    assert_eq!(reason, "AskHuman");
    assert!(message.starts_with("web-2, web-1 cannot be reached, the first for 10 min"), "{message}");
    assert!(message.contains("kubectl delete server web-2"), "{message}");
}

#[test]
fn many_names_are_counted() {
    let mut set = set(json!({"unhealthyLessThanOrEqualTo": 0}));
    set.spec.replicas = 12;
    let servers: Vec<Server> = (0..12).map(|n| server(n, "Unknown", 100)).collect();
    assert!(held(&plan_of(&set, &servers, &[])).1.contains("and 2 more"));
}

#[test]
fn nothing_is_destroyed_or_kept_before_the_provider_has_said_what_became_of_the_machine() {
    let (set, servers) = (set(json!({})), fleet(&[(1, 100), (2, 101)]));
    let silent = Silent::from([("web-2".to_owned(), "timed out".to_owned())]);
    let plan = plan(&set, &servers.iter().collect::<Vec<_>>(), &[], &silent, at(NOW));
    assert_eq!((plan.replace.as_slice(), plan.ledger.len()), (["web-1".to_owned()].as_slice(), 2));
    let (reason, message) = held(&plan);
    assert_eq!(reason, "ProviderSilent");
    assert!(message.starts_with("web-2: ") && message.ends_with("timed out"), "{message}");
}
