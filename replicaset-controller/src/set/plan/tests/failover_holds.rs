//! Which Servers failover leaves alone, and that it says which and why.

use std::collections::BTreeSet;

use berth_core::{api::Server, conditions};
use serde_json::json;

use super::failover::{ANNOTATION, DISABLED, NOW, at, change, fleet, found, held, plan_in, plan_with, server, set};
use crate::set::{
    drift_repair::DriftView,
    finding::{MachineAnswers, MachineFinding},
    machines::NoMachines,
    plan::{Plan, PlanInput, SetLimits, plan},
    status::{news, status},
    zone::{DomainCounts, FailureDomain, FailureDomains},
};

fn answers(finding: &MachineFinding, ago: i64, names: &[&str]) -> MachineAnswers {
    names.iter().map(|name| ((*name).to_owned(), found(finding.clone(), ago))).collect()
}

/// The reason for which each Server is held.
fn holds(plan: &Plan<'_>) -> Vec<(String, &'static str)> {
    plan.failover.held.iter().map(|hold| (hold.server.clone(), hold.reason)).collect()
}

#[test]
fn a_machine_that_answers_is_neither_rebooted_nor_given_up() {
    for policy in [
        json!({}),
        json!({"reboot": {"cooldownSeconds": 600}}),
        json!({"retain": {"max": 1, "expirySeconds": 60}}),
        json!({"action": "Shrink"}),
        json!({"action": "AskHuman"}),
    ] {
        for entered in [[].as_slice(), &["web-2/Failover"]] {
            let (set, servers) = (set(policy.clone()), fleet(&[(2, 100)]));
            let plan = plan_with(&set, &servers, entered, &answers(&MachineFinding::Answers, 10, &["web-2"]));
            assert!(plan.plan.has_no_action() && plan.ledger.is_empty(), "{policy}: {plan:?}");
            let (reason, message) = held(&plan);
            assert_eq!(reason, "MachineAnswers");
            assert!(message.starts_with("web-2: monitor-controller cannot reach the machine, but"), "{message}");
            assert_eq!((plan.requeue_at, plan.plan.ask.len()), (Some(at(NOW + 20)), 0));
            // It is asked again, and the set says the same meanwhile.
            let late = plan_with(&set, &servers, &[], &answers(&MachineFinding::Answers, 30, &["web-2"]));
            assert_eq!((late.plan.ask.as_slice(), &late.blocker), (["web-2".to_owned()].as_slice(), &plan.blocker));
            assert!(late.plan.has_no_action() && !late.plan.awaits_answer);
        }
    }
}

#[test]
fn a_server_that_is_held_because_it_answers_takes_no_turn() {
    let set = set(json!({"maxInFlight": 1}));
    let servers = fleet(&[(2, 200), (3, 100)]);
    let plan = plan_with(&set, &servers, &[], &answers(&MachineFinding::Answers, 0, &["web-2"]));
    assert_eq!((plan.plan.replace.as_slice(), plan.ledger.len()), (["web-3".to_owned()].as_slice(), 1));
    assert_eq!(held(&plan).0, "MachineAnswers");
}

#[test]
fn nothing_is_done_before_it_was_found_out_a_moment_ago_that_the_machine_does_not_answer() {
    let servers = fleet(&[(1, 100), (2, 101), (3, 102)]);
    let reboot = json!({"reboot": {"cooldownSeconds": 600}});
    for policy in [json!({}), reboot, json!({"action": "Shrink"})] {
        let plan = plan_in(&set(policy.clone()), &servers, &[], &MachineAnswers::new(), &FailureDomains::new());
        assert!(plan.plan.has_no_action() && plan.ledger.is_empty() && plan.plan.awaits_answer, "{plan:?}");
        assert_eq!(plan.plan.ask, ["web-3", "web-2"], "as many are asked as may be acted on");
        let old = answers(&MachineFinding::Silent, 11, &["web-2", "web-3"]);
        let old = plan_with(&set(policy), &servers, &[], &old);
        assert!(old.plan.has_no_action() && old.plan.awaits_answer, "{old:?}");
        assert_eq!(old.plan.ask, ["web-3", "web-2"]);
    }
    let entered = ["web-3/Failover", "web-2/Failover"];
    let begun =
        plan_with(&set(json!({})), &servers, &entered, &answers(&MachineFinding::Gone, 11, &["web-2", "web-3"]));
    assert!(begun.plan.has_no_action(), "also what was begun before a restart is asked about anew: {begun:?}");
    assert_eq!((begun.ledger.len(), begun.plan.ask.len()), (2, 2));
}

#[test]
fn a_set_says_what_it_said_until_the_answer() {
    let mut set = set(json!({}));
    let servers = fleet(&[(2, 100)]);
    let servers: Vec<&Server> = servers.iter().collect();
    let none = (MachineAnswers::new(), answers(&MachineFinding::Answers, 0, &["web-2"]));
    let says = |set: &_, answers: &MachineAnswers| {
        let domains = FailureDomains::new();
        let plan = plan_of(set, &servers, answers, &domains, None);
        status(set, &servers, &plan, at(NOW))
    };
    let held = says(&set, &none.1);
    assert!(held.waiting_for.as_ref().is_some_and(|what| what.starts_with("a person: web-2: ")), "{held:?}");
    assert_eq!(news(None, &held).into_iter().map(|(reason, _)| reason).collect::<Vec<_>>(), ["MachineAnswers"]);
    set.status = Some(held.clone());
    assert_eq!(says(&set, &none.0), held, "a copy that has just started takes nothing back");
    assert_eq!(says(&set, &none.1), held);
}

#[test]
fn nothing_is_given_up_while_the_provider_is_unresponsive() {
    let servers = fleet(&[(1, 100), (2, 101)]);
    let unresponsive = answers(&MachineFinding::ProviderUnresponsive("timed out".to_owned()), 0, &["web-2"]);
    for policy in [json!({}), json!({"reboot": {"cooldownSeconds": 600}})] {
        let plan = plan_with(&set(policy), &servers, &[], &unresponsive);
        let rebooted = plan.plan.reboot.iter().map(|(name, _)| name.clone());
        assert_eq!(rebooted.chain(plan.plan.replace.clone()).collect::<Vec<_>>(), ["web-1"]);
        let (reason, message) = held(&plan);
        assert_eq!(reason, "ProviderUnresponsive");
        assert!(message.starts_with("web-2: ") && message.ends_with("timed out"), "{message}");
    }
}

fn plan_of<'a>(
    set: &berth_core::api::VMReplicaSet,
    servers: &[&'a Server],
    answers: &MachineAnswers,
    domains: &FailureDomains,
    no_machines: Option<&NoMachines>,
) -> Plan<'a> {
    plan(PlanInput {
        set,
        servers,
        now: at(NOW),
        limits: SetLimits { creating: 50, replicas: 1000, zone_brake: 40 },
        foreign_names: &BTreeSet::new(),
        no_machines,
        drift: &DriftView::default(),
        answers,
        domains,
    })
}

#[test]
fn every_server_that_is_held_is_named_with_the_reason() {
    let mut servers = fleet(&[(1, 104), (2, 103), (3, 102), (4, 101)]);
    change(&mut servers[1], |v| v["metadata"]["annotations"] = json!({ANNOTATION: DISABLED}));
    let servers: Vec<&Server> = servers.iter().collect();
    let mut answers = answers(&MachineFinding::Stopped, 0, &["web-3", "web-4"]);
    answers.insert("web-2".to_owned(), found(MachineFinding::Answers, 0));
    let set = set(json!({"maxInFlight": 1}));
    let domains = FailureDomains::new();
    let plan = plan_of(&set, &servers, &answers, &domains, None);
    assert_eq!(plan.failover.replace, ["web-3"]);
    let mut reasons = holds(&plan);
    reasons.sort();
    let expected = [("web-1", "FailoverDisabled"), ("web-2", "MachineAnswers"), ("web-4", "MaxInFlight")];
    assert_eq!(reasons, expected.map(|(name, reason)| (name.to_owned(), reason)));
    let said: String = plan.blockers.iter().map(|blocker| blocker.message.as_str()).collect();
    for part in
        ["web-1: unreachable, and kept because of its annotation", "web-4: unreachable, and its turn comes after"]
    {
        assert!(said.contains(part), "{said}");
    }
    // Servers that nobody could take the place of.
    let problem = NoMachines { reason: "ClassNotFound", message: "no such class".into(), is_temporary: false, room: 0 };
    let kept = plan_of(&set, &servers, &answers, &domains, Some(&problem));
    assert!(kept.failover.has_no_action() && holds(&kept).contains(&("web-3".to_owned(), "NoMachines")), "{kept:?}");
}

#[test]
fn a_set_with_several_reasons_to_be_stalled_says_all_of_them() {
    let servers = fleet(&[(1, 100), (2, 101)]);
    let asks = plan_with(
        &set(json!({"action": "AskHuman"})),
        &servers,
        &[],
        &answers(&MachineFinding::Answers, 0, &["web-2"]),
    );
    let (reason, message) = held(&asks);
    assert_eq!(reason, "AskHuman");
    assert!(
        message.starts_with("web-1 cannot be reached") && message.contains("; web-2: monitor-controller"),
        "{message}"
    );
}

/// Of the class of all Servers here, without a zone.
fn domain(active: usize, unreachable: usize) -> FailureDomains {
    let domain = FailureDomain::of(&server(0, "Ready", 1));
    FailureDomains::from([(domain, DomainCounts { active, unreachable })])
}

#[test]
fn a_set_of_one_is_held_while_many_others_are_unreachable_too() {
    for policy in
        [json!({}), json!({"reboot": {"cooldownSeconds": 600}}), json!({"unhealthyLessThanOrEqualTo": "100%"})]
    {
        let mut one = set(policy);
        one.spec.replicas = 1;
        let servers = [server(0, "Unknown", 100)];
        let stopped = answers(&MachineFinding::Stopped, 0, &["web-0"]);
        let single = plan_in(&one, &servers, &[], &stopped, &domain(20, 1));
        assert!(!single.plan.has_no_action() && single.plan.brake.is_none(), "{single:?}");
        let all = plan_in(&one, &servers, &["web-0/Failover"], &stopped, &domain(20, 20));
        assert!(all.plan.has_no_action() && all.plan.ask.is_empty(), "{all:?}");
        let (reason, message) = held(&all);
        assert_eq!(reason, "TooManyUnknownInZone");
        assert!(message.contains("class local") && message.contains("here web-0; look at the network"), "{message}");
        assert_eq!(all.plan.brake.as_ref().map(|brake| brake.message.as_str()), Some(message));
        // The message is the same whatever happens elsewhere.
        let nearly_all = plan_in(&one, &servers, &["web-0/Failover"], &stopped, &domain(20, 19));
        assert_eq!(nearly_all.blocker, all.blocker);

        // Released, it waits anew.
        let refs: Vec<&Server> = servers.iter().collect();
        one.status = Some(status(&one, &refs, &plan_of(&one, &refs, &stopped, &domain(20, 20), None), at(NOW)));
        let brake = conditions::get(&one.status.as_ref().unwrap().conditions, "FailoverHeld").unwrap();
        assert_eq!((brake.status.as_str(), brake.reason.as_str()), ("True", "TooManyUnknownInZone"));
        assert_eq!(news(None, one.status.as_ref().unwrap()).len(), 1, "one Event, although two conditions say so");
        let released = plan_in(&one, &servers, &[], &stopped, &domain(20, 1));
        assert!(released.plan.has_no_action(), "{released:?}");
        assert_eq!(released.requeue_at, Some(at(NOW + 60)));
    }
}

#[test]
fn the_last_server_stays_the_last_while_it_is_asked_about_again() {
    let mut one = set(json!({"action": "Shrink"}));
    one.spec.replicas = 1;
    let servers = [server(0, "Unknown", 100)];
    let servers: Vec<&Server> = servers.iter().collect();
    let says = |set: &_, ago| {
        let domains = FailureDomains::new();
        let plan = plan_of(set, &servers, &answers(&MachineFinding::Gone, ago, &["web-0"]), &domains, None);
        (status(set, &servers, &plan, at(NOW)), plan.failover.ask)
    };
    let (held, _) = says(&one, 0);
    assert!(held.waiting_for.as_ref().is_some_and(|what| what.contains("the last Server of a set")), "{held:?}");
    one.status = Some(held.clone());
    assert_eq!(says(&one, 0), (held.clone(), Vec::new()));
    assert_eq!(says(&one, 11), (held, vec!["web-0".to_owned()]), "nothing is written meanwhile");
}
