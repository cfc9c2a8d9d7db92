//! What goes wrong with machines, with scripts on them, and with their provider really happens, and in the same way each time.
#![cfg(test)]

use berth_sim::{Outcome, Schedule, play};
use serde_json::{Value, json};

/// A run of two Servers with these events, given as seconds and what happens.
fn schedule(faults: &Value, events: &[(u64, Value)]) -> Schedule {
    let events: Vec<Value> = events
        .iter()
        .map(|(at, what)| {
            let mut event = what.clone();
            event["at_ms"] = json!(at * 1_000);
            event
        })
        .collect();
    let copies =
        json!({"replicaset-controller": 2, "deployment-controller": 1, "lb-controller": 1, "monitor-controller": 1});
    let schedule = json!({"seed": 7, "copies": copies, "replicas": 2, "faults": faults, "events": events});
    serde_json::from_value(schedule).unwrap()
}

/// Plays it twice: it has to end well, and in the same way. Returns what happened.
fn played(faults: &Value, events: &[(u64, Value)]) -> Outcome {
    played_schedule(&schedule(faults, events))
}

fn played_schedule(schedule: &Schedule) -> Outcome {
    let (one, other) = (play(schedule), play(schedule));
    assert_eq!(one.finding, None, "{}", one.log.join("\n"));
    let difference = one.log.iter().zip(&other.log).find(|(one, other)| one != other);
    assert!(difference.is_none() && one == other, "{difference:#?}");
    one
}

/// How often a line of the log contains all of these.
fn count(outcome: &Outcome, texts: &[&str]) -> usize {
    outcome.log.iter().filter(|line| texts.iter().all(|text| line.contains(text))).count()
}

fn code(revision: &str) -> Value {
    json!({"act": {"declareCode": {"revision": revision}}})
}

fn package(version: &str) -> Value {
    json!({"act": {"declarePackage": {"version": version}}})
}

fn machine(mishap: &Value) -> Value {
    json!({"machine": mishap})
}

#[test]
fn scripts_take_minutes_and_outlive_their_clients() {
    let scripts = json!({"script_time": {"secs": 20, "nanos": 0}, "slow_scripts": 0.3, "stubborn_scripts": 1.0,
                         "broken_connections": 0.5, "silent_ends": 0.5});
    let crash = |copy: u64| json!({"mishap": {"copyCrashes": {"copy": copy}}});
    let mut events = vec![(60, code("r1")), (300, package("1")), (600, code("r2")), (900, package("2"))];
    events.extend((0..12).map(|number| (310 + number * 60, crash(number))));
    events.sort_by_key(|(at, _)| *at);
    let outcome = played(&json!({"machines": scripts}), &events);
    assert!(count(&outcome, &["script on default/web-", "First change, its client waits"]) > 0);
    assert!(count(&outcome, &["script on default/web-", "broken pipe"]) > 0);
    assert!(count(&outcome, &["script on default/web-", "its client is gone"]) > 0);
    let silently = "change, its client is gone, and the network is silent about it";
    assert!(count(&outcome, &["script on default/web-", silently]) > 0, "{}", outcome.log.join("\n"));
    // Some take minutes, under a lock that is renewed.
    let longest =
        outcome.log.iter().filter_map(|line| seconds(line.split_once("Changes, takes ")?.1)).fold(0.0, f64::max);
    assert!(longest > 60.0, "{longest} s");
}

/// The sum of times like `20.5s and 1.2s`; those below a second do not matter.
fn seconds(times: &str) -> Option<f64> {
    let (before, during) = times.split_once(" and ")?;
    let whole = |time: &str| time.strip_suffix('s').and_then(|time| time.parse::<f64>().ok()).unwrap_or(0.0);
    Some(whole(before) + whole(during))
}

#[test]
fn artifacts_are_brought_ahead_while_everything_else_goes_on() {
    let scripts = json!({"script_time": {"secs": 20, "nanos": 0}, "slow_scripts": 0.3, "broken_connections": 0.3});
    let crash = json!({"mishap": {"copyCrashes": {"copy": 2}}});
    let events = [(60, code("r2")), (70, crash), (300, code("r4")), (310, package("1")), (320, code("r6"))];
    let mut schedule = schedule(&json!({"machines": scripts}), &events);
    schedule.fleets[0].stages_ahead = true;
    let outcome = played_schedule(&schedule);
    let staged = count(&outcome, &["deployment-controller/copy-", "script on default/web-", "Stages, takes"]);
    assert!(staged > 0, "{}", outcome.log.join("\n"));
    assert_eq!(count(&outcome, &["replicaset-controller/copy-", "Stages, takes"]), 0);
}

#[test]
fn connections_to_machines_fail_and_outputs_are_lost() {
    let connections = json!({"script_time": {"secs": 2, "nanos": 0}, "refused_connections": 0.3, "lost_outputs": 0.5});
    let events: Vec<_> = (1..=15).map(|number| (60 + 60 * number, code(&format!("r{number}")))).collect();
    let outcome = played(&json!({"machines": connections}), &events);
    for reason in ["connection refused", "no answer within 5s", "did not finish", "before the command's exit status"] {
        assert!(count(&outcome, &["web-", reason]) > 0, "{reason}: {}", outcome.log.join("\n"));
    }
    // What was tried is counted: each of the acts, and which tasks ran at that moment.
    let (table, sum) = (outcome.coverage.to_string(), outcome.coverage.clone());
    let of_acts = table.lines().find(|line| line.starts_with("act of a person")).unwrap();
    assert_eq!(of_acts.split_whitespace().nth(4), Some("15"), "{table}");
    assert!(table.contains("states seen: ") && sum.summary().contains("15 faults of 1 kinds"), "{table}");
}

#[test]
fn copies_lose_their_ways_to_machines_and_to_the_provider() {
    let lost = |kind: &str, copy: u64| machine(&json!({kind: {"copy": copy, "seconds": 100}}));
    let mut events: Vec<(u64, Value)> = (0..3).map(|copy| (60, lost("copyLosesMachines", copy))).collect();
    events.push((61, code("r1")));
    events.extend((0..2).map(|copy| (200, lost("copyLosesProvider", copy))));
    events.push((201, json!({"act": {"scale": {"replicas": 8}}})));
    let outcome = played(&json!({}), &events);
    assert!(count(&outcome, &["deployment-controller/copy-", "no answer within 5s"]) > 0);
    // Which of the two copies has its turn with a new Server depends on the Server's UID.
    assert!(count(&outcome, &["the provider simulated did not answer", "copy-"]) > 0);
}

#[test]
fn machines_hang_reboot_vanish_and_are_changed_and_berth_repairs_them() {
    let on = |kind: &str, rest: Value| {
        let mut mishap = rest;
        mishap["machine"] = json!(0);
        machine(&json!({kind: mishap}))
    };
    let events = [
        (60, on("appDies", json!({"seconds": 60}))),
        (200, on("appIsSick", json!({"seconds": 60}))),
        (400, on("machineReboots", json!({}))),
        (600, on("diskIsFull", json!({"seconds": 60}))),
        (601, package("1")),
        // What has failed too often waits for a person.
        (700, json!({"act": "retryAll"})),
        (900, on("somebodyChanges", json!({"what": "otherVersion"}))),
        (1_900, on("somebodyChanges", json!({"what": "otherCode"}))),
        (2_900, on("machineIsRestored", json!({"disk": 0}))),
        (3_900, on("machineHangs", json!({"seconds": 300}))),
        (4_900, on("machineVanishes", json!({}))),
    ];
    let outcome = played(&json!({"machines": {"script_time": {"secs": 2, "nanos": 0}}}), &events);
    for text in ["status 500", "connection refused", "No space left on device", "by-hand instead of", "no answer"] {
        assert!(count(&outcome, &[text]) > 0, "{text}: {}", outcome.log.join("\n"));
    }
    // The one that hung and the one that vanished are replaced.
    assert_eq!(count(&outcome, &["replicaset-controller: DELETE", "/servers/web-"]), 2);
    // What somebody changed is found by a check; an old disk comes back with a reboot, after which everything is read back.
    let drifts = outcome.log.iter().filter(|line| line.contains("Drifted")).count();
    assert!(drifts >= 2, "{drifts} drifts were found: {}", outcome.log.join("\n"));
    let at = |line: &str| line.split(" ms").next().and_then(|ms| ms.parse::<u64>().ok()).unwrap_or(0) / 1000;
    let is_repaired = |line: &&String| (2_900..3_900).contains(&at(line)) && line.contains("First change");
    assert!(outcome.log.iter().any(|line| is_repaired(&line)), "{}", outcome.log.join("\n"));
}

#[test]
fn the_provider_is_gone_full_slow_and_wrong() {
    let events = [
        (5, machine(&json!("providerForgetsMachine"))),
        (60, machine(&json!({"providerIsGone": {"seconds": 200}}))),
        (61, json!({"act": {"scale": {"replicas": 5}}})),
        (300, machine(&json!({"providerIsFull": {"seconds": 60}}))),
        (301, json!({"act": {"scale": {"replicas": 6}}})),
        (600, machine(&json!({"providerIsSlow": {"seconds": 60, "late": 360}}))),
        (601, json!({"act": {"scale": {"replicas": 7}}})),
        (1_200, machine(&json!("providerForgetsAll"))),
        (1_800, machine(&json!({"providerListIsBehind": {"seconds": 900}}))),
        (2_400, json!({"act": {"scale": {"replicas": 2}}})),
    ];
    let outcome = played(&json!({}), &events);
    assert!(count(&outcome, &["the provider does not answer"]) > 0);
    assert!(count(&outcome, &["nobody gets another machine now"]) > 0);
    assert!(count(&outcome, &["the provider says that", "has no machine"]) > 0, "{}", outcome.log.join("\n"));
}

/// A machine comes back with an older disk before anybody sees that it was away: its application is gone, and only its health fails.
/// A person who is asked for help has it tried again, and that has to be enough.
#[test]
fn a_retry_repairs_a_machine_whose_application_is_gone() {
    let restored = machine(&json!({"machineIsRestored": {"machine": 0, "disk": 0, "seconds": 0}}));
    let outcome = played(&json!({}), &[(60, restored)]);
    assert_eq!(count(&outcome, &["a person gives up [] and retries ["]), 1, "{}", outcome.log.join("\n"));
}
