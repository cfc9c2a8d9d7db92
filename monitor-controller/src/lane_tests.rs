use serde_json::{Value, json};

use super::*;

fn server(epoch: i64, phase: &str, tasks: &Value) -> Server {
    serde_json::from_value(json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "Server", "metadata": {"name": "web-0", "namespace": "ns", "uid": "u"},
        "spec": {"machine": {"className": "c"}, "healthCheck": {"tcpSocket": {"port": 80}}},
        "status": {"state": "Deploying", "epoch": epoch, "firstTaskID": 1, "tasks": tasks, "machine": {
            "phase": phase, "address": "10.0.0.1", "ssh": {"port": 22, "user": "b", "hostKey": "k", "root": "r"}}}
    }))
    .unwrap()
}

fn check(id: i64) -> Value {
    json!([{"id": id, "kind": "CheckHealth", "step": 1, "executor": "monitor-controller", "phase": "Pending"}])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn ask(period: Duration, at_once: bool) -> Change {
    Change::Ask { period, at_once }
}

const TEN: Duration = Duration::from_secs(10);

#[test]
fn the_same_declaration_changes_nothing() {
    let server = server(1, "Running", &json!([]));
    let mut entry = Entry::new(&server);
    let both = vec![(Kind::Reachability, ask(TEN, false)), (Kind::Health, ask(TEN, false))];
    assert_eq!(entry.follow(&server), both);
    assert_eq!(entry.follow(&server), vec![]);
}

#[test]
fn who_waits_for_health_is_probed_at_once_and_every_second() {
    let mut entry = Entry::new(&server(1, "Running", &json!([])));
    entry.follow(&server(1, "Running", &json!([])));
    assert_eq!(entry.follow(&server(1, "Running", &check(1))), vec![(Kind::Health, ask(URGENT, true))]);
    assert_eq!(entry.follow(&server(1, "Running", &json!([]))), vec![(Kind::Health, ask(TEN, false))]);
}

#[test]
fn what_was_found_before_the_question_came_up_does_not_answer_it() {
    let mut entry = Entry::new(&server(1, "Running", &check(1)));
    let observe = |entry: &mut Entry| {
        let (_, generation) = entry.lane(Kind::Health).question().unwrap();
        assert!(entry.lane(Kind::Health).is_current(generation));
        entry.observe(Kind::Health, &Finding::Good, at(0));
        generation
    };
    entry.follow(&server(1, "Running", &check(1)));
    let first = observe(&mut entry);
    assert!(entry.observed(at(0)).health.is_some());
    for another in [server(1, "Running", &check(2)), server(2, "Running", &check(2))] {
        entry.follow(&another);
        assert_eq!(entry.observed(at(0)).health, None);
        assert!(!entry.lane(Kind::Health).is_current(first), "an answer that was under way does not count");
        observe(&mut entry);
    }
    entry.follow(&server(2, "Running", &json!([])));
    assert!(entry.observed(at(0)).health.is_some(), "the end of the question does not take the answer back");
}

#[test]
fn a_machine_that_is_gone_is_not_probed() {
    let mut entry = Entry::new(&server(1, "Running", &json!([])));
    entry.follow(&server(1, "Running", &json!([])));
    assert_eq!(
        entry.follow(&server(1, "Gone", &json!([]))),
        vec![(Kind::Reachability, Change::Stop), (Kind::Health, Change::Stop)]
    );
    assert!(entry.is_idle());
    assert_eq!(entry.follow(&server(2, "Gone", &json!([]))), vec![]);
}

#[test]
fn only_news_are_news() {
    let mut entry = Entry::new(&server(1, "Running", &json!([])));
    entry.follow(&server(1, "Running", &json!([])));
    let bad = Finding::Bad("refused".into());
    let news: Vec<bool> = [(0, &Finding::Good), (10, &Finding::Good), (20, &bad), (30, &bad), (50, &bad), (60, &bad)]
        .into_iter()
        .map(|(second, finding)| entry.observe(Kind::Reachability, finding, at(second)))
        .collect();
    assert_eq!(news, [true, false, true, false, true, false], "reachable, failing, unreachable");
    assert_eq!(entry.look_again(Kind::Reachability, at(60)), None);
}

#[test]
fn the_probe_that_proves_the_machine_lost_comes_in_time() {
    let mut entry = Entry::new(&server(1, "Running", &json!([])));
    entry.follow(&server(1, "Running", &json!([])));
    entry.observe(Kind::Reachability, &Finding::Bad("refused".into()), at(0));
    assert_eq!(entry.look_again(Kind::Reachability, at(25)), Some(Duration::from_secs(5) + MARGIN));
    assert_eq!(entry.look_again(Kind::Health, at(25)), None);
}
