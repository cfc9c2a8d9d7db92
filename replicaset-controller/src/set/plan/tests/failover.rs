//! Failover: which Servers are rebooted, replaced, retained or given up, when a person is asked, and which Servers are left alone.

use std::collections::BTreeSet;

use berth_core::{
    api::{Axis, Force, Server, VMReplicaSet},
    digest,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::fleets::{ledger, lines};
use crate::set::{
    drift_repair::DriftView,
    finding::{MachineAnswer, MachineAnswers, MachineFinding},
    plan::{Effect, FailoverPlan, PlanInput, SetLimits, plan},
    zone::FailureDomains,
};

/// Keeps failover off a Server.
pub(super) const ANNOTATION: &str = "berth.dev/failover";
pub(super) const DISABLED: &str = "disabled";

pub(super) const NOW: i64 = 1_000_000;

pub(super) fn at(second: i64) -> Timestamp {
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
pub(super) fn set(policy: Value) -> VMReplicaSet {
    let failover = json!({"waitSeconds": 60, "action": "Replace", "maxInFlight": 2});
    let mut spec = json!({"replicas": 10, "failover": failover});
    json_patch::merge(&mut spec["failover"], &policy);
    berth_testing::replica_set(json!({"spec": spec}))
}

pub(super) fn server(n: usize, state: &str, age: i64) -> Server {
    berth_testing::server(json!({
        "metadata": {"name": format!("web-{n}"), "uid": format!("u{n}"), "labels": {"app": "web"}},
        "status": {"state": state, "stateSince": at(NOW - age).to_string(), "observedGeneration": 1},
    }))
}

/// Ten Servers, of which these have been lost for so long.
pub(super) fn fleet(lost: &[(usize, i64)]) -> Vec<Server> {
    let age = |n: usize| lost.iter().find(|(lost, _)| *lost == n).map(|(_, age)| *age);
    (0..10).map(|n| age(n).map_or_else(|| server(n, "Ready", 5000), |age| server(n, "Unknown", age))).collect()
}

pub(super) fn change(server: &mut Server, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::to_value(&*server).unwrap();
    change(&mut value);
    *server = serde_json::from_value(value).unwrap();
}

/// What failover does: its part of the plan, the ledger in short form, its blocker, and when to plan again.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) plan: FailoverPlan,
    pub(super) ledger: Vec<String>,
    pub(super) blocker: Option<(&'static str, String)>,
    pub(super) requeue_at: Option<Timestamp>,
}

fn plan_of(set: &VMReplicaSet, servers: &[Server], entered: &[&str]) -> Outcome {
    plan_with(set, servers, entered, &MachineAnswers::new())
}

/// This was found out so many seconds ago; it is asked again after 30 s.
pub(super) fn found(finding: MachineFinding, ago: i64) -> MachineAnswer {
    MachineAnswer { finding, found_at: at(NOW - ago), ask_again_at: at(NOW - ago + 30) }
}

/// With these answers; all other machines were just found to be stopped.
pub(super) fn plan_with(set: &VMReplicaSet, servers: &[Server], entered: &[&str], answers: &MachineAnswers) -> Outcome {
    let stopped = servers.iter().map(|s| (s.name().to_owned(), found(MachineFinding::Stopped, 0)));
    let answers = stopped.chain(answers.clone()).collect();
    plan_in(set, servers, entered, &answers, &FailureDomains::new())
}

pub(super) fn plan_in(
    set: &VMReplicaSet,
    servers: &[Server],
    entered: &[&str],
    answers: &MachineAnswers,
    domains: &FailureDomains,
) -> Outcome {
    let mut set = set.clone();
    set.status.get_or_insert_default().disturbed = ledger(entered);
    let servers: Vec<&Server> = servers.iter().collect();
    let plan = plan(PlanInput {
        set: &set,
        servers: &servers,
        now: at(NOW),
        limits: SetLimits { creating: 50, replicas: 1000, zone_brake: 40 },
        foreign_names: &BTreeSet::new(),
        no_machines: None,
        drift: &DriftView::default(),
        answers,
        domains,
    });
    // Servers that are surplus after failover are retired by another phase.
    let own = plan.ledgers.disturbed.to_status().into_iter().filter(|entry| entry.axis != Axis::Retirement);
    Outcome {
        plan: plan.failover,
        ledger: lines(&own.collect::<Vec<_>>()),
        blocker: plan
            .blockers
            .into_iter()
            .find(|b| [Effect::Stalled, Effect::Delayed].contains(&b.effect))
            .map(|b| (b.reason, b.message)),
        requeue_at: plan.requeue_at,
    }
}

pub(super) fn held(outcome: &Outcome) -> (&'static str, &str) {
    outcome.blocker.as_ref().map(|(reason, message)| (*reason, message.as_str())).unwrap()
}

#[test]
fn a_server_is_given_up_only_after_its_wait() {
    let waiting = plan_of(&set(json!({})), &fleet(&[(3, 59), (4, 20)]), &[]);
    assert!(waiting.plan.has_no_action() && waiting.blocker.is_none() && waiting.ledger.is_empty());
    assert_eq!(waiting.requeue_at, Some(at(NOW + 1)));
    let due = plan_of(&set(json!({})), &fleet(&[(3, 60), (4, 20)]), &[]);
    assert_eq!((due.plan.replace, due.ledger), (vec!["web-3".to_owned()], vec!["web-3/Failover".to_owned()]));
    assert_eq!(due.requeue_at, Some(at(NOW + 40)));
}

#[test]
fn without_a_policy_failover_does_nothing() {
    let mut set = set(json!({}));
    set.spec.failover = None;
    let plan = plan_of(&set, &fleet(&[(3, 5000)]), &["web-1/App"]);
    assert!(plan.plan.has_no_action() && plan.blocker.is_none() && plan.requeue_at.is_none());
    assert_eq!(plan.ledger, ["web-1/App"]);
}

#[test]
fn the_longest_unreachable_go_first_within_max_in_flight() {
    let servers = fleet(&[(1, 70), (2, 90), (3, 80)]);
    let plan = plan_of(&set(json!({})), &servers, &[]);
    assert_eq!(plan.ledger, ["web-2/Failover", "web-3/Failover"]);
    let mut replaced = plan.plan.replace.clone();
    replaced.sort();
    assert_eq!(replaced, ["web-2", "web-3"]);
    // Planned again after a crash, it is the same two.
    let again = plan_of(&set(json!({})), &servers, &["web-2/Failover", "web-3/Failover"]);
    assert_eq!((again.ledger, again.plan.replace.len()), (plan.ledger, 2));
}

#[test]
fn a_replacement_is_in_flight_until_its_successor_is_ready() {
    let ledger = ["web-2/Failover", "web-3/Failover"];
    // web-2 and web-3 are gone; nothing stands in their places yet, then one is being made, then one is Ready.
    let mut servers: Vec<Server> = fleet(&[(1, 70)]);
    servers.retain(|s| !["web-2", "web-3"].contains(&s.name()));
    let waiting = plan_of(&set(json!({})), &servers, &ledger);
    assert_eq!((waiting.ledger.len(), waiting.plan.has_no_action()), (2, true));
    servers.push(server(10, "Initializing", 5));
    assert_eq!(plan_of(&set(json!({})), &servers, &ledger).ledger.len(), 2);
    servers.pop();
    servers.push(server(10, "Ready", 5));
    let one = plan_of(&set(json!({})), &servers, &ledger);
    assert_eq!((one.ledger.len(), one.plan.replace), (2, vec!["web-1".to_owned()]));
    servers.push(server(11, "Ready", 5));
    assert_eq!(plan_of(&set(json!({})), &servers, &ledger).ledger, ["web-1/Failover"]);
}

#[test]
fn a_server_that_is_back_before_its_turn_is_kept() {
    let mut servers = fleet(&[(2, 90)]);
    servers[2] = server(2, "Initializing", 1);
    let plan = plan_of(&set(json!({})), &servers, &["web-2/Failover", "web-7/App"]);
    assert!(plan.plan.has_no_action(), "{plan:?}");
    assert_eq!(plan.ledger, ["web-7/App"]);
}

#[test]
fn a_persons_decision_keeps_failover_off_a_server() {
    let forced = |server: &mut Server| {
        change(server, |v| {
            v["spec"]["force"] = json!({"state": "Unknown", "reason": "mine"});
            let force: Force = serde_json::from_value(v["spec"]["force"].clone()).unwrap();
            v["status"]["force"] = json!({"id": digest::short(&force), "active": true});
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
        assert!(plan.plan.has_no_action() && plan.ledger.is_empty() && plan.requeue_at.is_none(), "case {n}: {plan:?}");
    }
    // What a person said once and took back counts no more.
    let mut servers = fleet(&[(2, 5000)]);
    forced(&mut servers[2]);
    change(&mut servers[2], |v| v["status"]["force"]["active"] = false.into());
    assert_eq!(plan_of(&set(json!({})), &servers, &[]).plan.replace, ["web-2"]);
}

#[test]
fn the_brake_holds_everything_and_names_the_unreachable_servers() {
    let lost: Vec<(usize, i64)> = (0..5).map(|n| (n, 100)).collect();
    let all = json!({"reboot": {"cooldownSeconds": 600}});
    for policy in [json!({}), all, json!({"action": "Shrink"})] {
        let plan = plan_of(&set(policy), &fleet(&lost), &["web-0/Failover"]);
        assert!(plan.plan.has_no_action(), "{plan:?}");
        let (reason, message) = held(&plan);
        assert_eq!(reason, "TooManyUnknown");
        assert!(message.starts_with("5 of 10 Servers cannot be reached, more than the 4"), "{message}");
        assert!(message.contains("web-0, web-1, web-2, web-3, web-4"), "{message}");
    }
    // Four of ten are 40 %.
    assert!(plan_of(&set(json!({})), &fleet(&lost[..4]), &[]).blocker.is_none());
    for (limit, braked) in [(json!(4), true), (json!(5), false), (json!("50%"), false), (json!("0%"), true)] {
        let plan = plan_of(&set(json!({"unhealthyLessThanOrEqualTo": limit})), &fleet(&lost), &[]);
        assert_eq!(plan.blocker.is_some(), braked, "{limit}");
    }
    // A set of one may lose one.
    let mut one = set(json!({}));
    one.spec.replicas = 1;
    assert_eq!(plan_of(&one, &[server(0, "Unknown", 100)], &[]).plan.replace, ["web-0"]);
    // Those that others have to see to count too.
    let mut servers = fleet(&lost);
    change(&mut servers[0], |v| v["metadata"]["annotations"] = json!({ANNOTATION: DISABLED}));
    assert!(plan_of(&set(json!({})), &servers, &[]).blocker.is_some());
}

#[test]
fn servers_still_unreachable_when_the_brake_is_released_wait_anew() {
    let lost = [(1, 5000), (2, 5000), (3, 5000)];
    let begun = ["web-1/Failover"];
    for (off_for, wake) in [(None, 60), (Some(0), 60), (Some(59), 1)] {
        let set = with_brake(set(json!({})), off_for);
        for ledger in [[].as_slice(), &begun] {
            let plan = plan_of(&set, &fleet(&lost), ledger);
            assert!(
                plan.plan.has_no_action() && plan.blocker.is_none() && plan.plan.brake.is_none(),
                "{off_for:?}: {plan:?}"
            );
            assert_eq!(plan.requeue_at, Some(at(NOW + wake)));
            assert_eq!(plan.ledger, ledger, "what was begun stays begun");
        }
    }
    let over = with_brake(set(json!({})), Some(60));
    assert_eq!(plan_of(&over, &fleet(&lost), &[]).plan.replace, ["web-1", "web-2"]);
    assert_eq!(plan_of(&over, &fleet(&lost), &begun).plan.replace, ["web-1", "web-2"]);
    let shrinking = json!({"action": "Shrink"});
    let shrunk = |off_for| plan_of(&with_brake(set(shrinking.clone()), off_for), &fleet(&lost), &begun).plan.shrink;
    assert_eq!((shrunk(None), shrunk(Some(60))), (0, 2));
    // Lost after the brake has let go, it waits from then.
    let later = plan_of(&with_brake(set(json!({})), Some(50)), &fleet(&[(1, 20)]), &[]);
    assert_eq!(later.requeue_at, Some(at(NOW + 40)));
    // One that was rebooted before is waited for as well.
    let reboot = json!({"reboot": {"cooldownSeconds": 600}});
    let mut servers = fleet(&[(1, 5000)]);
    change(&mut servers[1], |v| {
        v["spec"]["reboot"] = json!({"id": "x", "reason": "failover", "at": at(NOW - 300).to_string()});
    });
    assert_eq!(plan_of(&set(reboot.clone()), &servers, &[]).plan.replace, ["web-1"]);
    let plan = plan_of(&with_brake(set(reboot), Some(50)), &servers, &[]);
    assert!(plan.plan.has_no_action() && plan.requeue_at == Some(at(NOW + 10)), "{plan:?}");
}

#[test]
fn the_brake_holds_before_any_server_is_due() {
    let lost: Vec<(usize, i64)> = (0..5).map(|n| (n, 20)).collect();
    let early = plan_of(&set(json!({})), &fleet(&lost), &[]);
    assert!(early.plan.brake.is_some_and(|brake| brake.message.starts_with("5 of 10")) && early.blocker.is_none());
    let lost: Vec<(usize, i64)> = (0..5).map(|n| (n, 100)).collect();
    let on = plan_of(&with_brake(set(json!({})), None), &fleet(&lost), &[]);
    assert_eq!(held(&on).0, "TooManyUnknown");
}

#[test]
fn a_machine_is_rebooted_once_and_waited_for_before_it_is_replaced() {
    let set = set(json!({"reboot": {"cooldownSeconds": 600}}));
    let mut servers = fleet(&[(2, 100)]);
    let first = plan_of(&set, &servers, &[]);
    assert_eq!(first.plan.reboot, [("web-2".to_owned(), format!("lost-{}", NOW - 100))]);
    assert!(first.plan.replace.is_empty() && first.ledger.is_empty());
    let asked = |servers: &mut [Server], ago: i64| {
        change(&mut servers[2], |v| v["spec"]["reboot"] = json!({"id": "x", "at": at(NOW - ago).to_string()}));
    };
    asked(&mut servers, 30);
    let rebooted = plan_of(&set, &servers, &[]);
    assert!(rebooted.plan.has_no_action(), "{rebooted:?}");
    assert_eq!(rebooted.requeue_at, Some(at(NOW + 30)));
    asked(&mut servers, 60);
    assert_eq!(plan_of(&set, &servers, &[]).plan.replace, ["web-2"]);
    // Rebooted before this loss, and not long ago: once is enough.
    asked(&mut servers, 500);
    assert_eq!(plan_of(&set, &servers, &[]).plan.replace, ["web-2"]);
    asked(&mut servers, 701);
    assert_eq!(plan_of(&set, &servers, &[]).plan.reboot.len(), 1, "the cool-down is over");
}

#[test]
fn reboots_count_as_in_flight() {
    let set = set(json!({"reboot": {"cooldownSeconds": 600}}));
    let mut servers = fleet(&[(1, 100), (2, 101), (3, 102)]);
    let plan = plan_of(&set, &servers, &[]);
    assert_eq!(plan.plan.reboot.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["web-3", "web-2"]);
    for n in [2, 3] {
        change(&mut servers[n], |v| v["spec"]["reboot"] = json!({"id": "x", "at": at(NOW - 1).to_string()}));
    }
    assert!(plan_of(&set, &servers, &[]).plan.has_no_action());
}

#[test]
fn failed_machines_are_retained_up_to_a_maximum_and_until_they_expire() {
    let set = set(json!({"retain": {"max": 1, "expirySeconds": 3600}}));
    let servers = fleet(&[(1, 100), (2, 101)]);
    let plan = plan_of(&set, &servers, &[]);
    assert_eq!(plan.plan.retain, [("web-1".to_owned(), at(NOW + 3600))]);
    assert_eq!(plan.plan.replace, ["web-2"]);
    let mut servers = fleet(&[(1, 100), (2, 101)]);
    let keep =
        |until: i64| move |v: &mut Value| v["spec"]["retain"] = json!({"until": at(until).to_string(), "reason": "x"});
    change(&mut servers[1], keep(NOW + 9));
    let plan = plan_of(&set, &servers, &["web-1/Failover"]);
    assert_eq!(
        (plan.plan.replace, plan.plan.expired.len(), plan.requeue_at),
        (vec!["web-2".to_owned()], 0, Some(at(NOW + 9)))
    );
    change(&mut servers[1], keep(NOW));
    assert_eq!(plan_of(&set, &servers, &[]).plan.expired, ["web-1"]);
    change(&mut servers[1], |v| v["metadata"]["deletionTimestamp"] = at(NOW).to_string().into());
    assert!(plan_of(&set, &servers, &[]).plan.expired.is_empty(), "it is going already");
}

#[test]
fn shrink_lowers_replicas_once_per_server_and_never_to_zero() {
    let mut set = set(json!({"action": "Shrink"}));
    let servers = fleet(&[(1, 100), (2, 101), (3, 102)]);
    let plan = plan_of(&set, &servers, &[]);
    assert_eq!((plan.plan.shrink, plan.ledger.len(), plan.plan.replace.len()), (2, 2, 0));
    // Lowered, and not yet retired: not lowered again.
    let ledger: Vec<&str> = plan.ledger.iter().map(String::as_str).collect();
    set.spec.replicas = 8;
    assert_eq!(plan_of(&set, &servers, &ledger).plan.shrink, 0);
    set.spec.replicas = 9;
    assert_eq!(plan_of(&set, &servers, &ledger).plan.shrink, 1, "lowered once of two times");
    set.spec.replicas = 1;
    let last = plan_of(&set, &[server(0, "Unknown", 100)], &[]);
    assert_eq!((last.plan.shrink, held(&last).0), (0, "LastServer"));
    // Retired, its entry ends at once: nobody takes the place.
    set.spec.replicas = 8;
    let rest: Vec<Server> = servers.into_iter().filter(|s| s.name() != "web-3").collect();
    let rest = plan_of(&set, &rest, &["web-3/Failover", "web-2/Failover"]);
    assert_eq!(rest.ledger.first().map(String::as_str), Some("web-2/Failover"), "{rest:?}");
}

#[test]
fn ask_human_names_the_command_that_answers() {
    let plan = plan_of(&set(json!({"action": "AskHuman"})), &fleet(&[(1, 90), (2, 600)]), &[]);
    assert!(plan.plan.has_no_action() && plan.ledger.is_empty());
    let (reason, message) = held(&plan);
    assert_eq!(reason, "AskHuman");
    assert!(message.starts_with("web-2, web-1 cannot be reached, the first since 1970-01-12T13:36:40Z"), "{message}");
    assert!(message.contains("kubectl delete server web-2"), "{message}");
}

/// Whom the set was to replace stands in the ledger. A person who wants to be asked then is asked about it, too.
#[test]
fn ask_human_asks_about_servers_that_were_to_be_replaced() {
    let mut servers = fleet(&[(2, 600)]);
    servers.pop();
    let plan = plan_of(&set(json!({"action": "AskHuman"})), &servers, &["web-2/Failover", "web-9/Failover"]);
    assert_eq!((plan.plan.has_no_action(), held(&plan).0), (true, "AskHuman"));
    assert_eq!(plan.ledger, ["web-9/Failover"], "what is gone is in flight until its successor is Ready");
}

#[test]
fn a_message_names_ten_servers_and_counts_the_rest() {
    let mut set = set(json!({"unhealthyLessThanOrEqualTo": 0}));
    set.spec.replicas = 12;
    let servers: Vec<Server> = (0..12).map(|n| server(n, "Unknown", 100)).collect();
    assert!(held(&plan_of(&set, &servers, &[])).1.contains("and 2 more"));
}
