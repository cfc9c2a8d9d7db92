use berth_core::{
    api::{CheckVerdict, Server, State},
    conditions::{self, RECONCILING, STALLED},
};
use serde_json::{Value, json};

use crate::{
    content::{Contents, SeenContent},
    replica_set::newest_app,
    rollout,
    story::{Story, reasons, testing_v1},
    testing::{ready_set, server},
};

/// Two Servers with the new version, three restarted ones, and then these steps.
fn story(then: &[Value]) -> Story {
    let mut steps = vec![json!({"servers": 2}), json!({"baseline": {"servers": 3}})];
    steps.extend_from_slice(then);
    Story::new(json!({"steps": steps}))
}

/// Names of the Servers that were restarted in the present attempt.
fn restarted(story: &Story) -> Vec<&str> {
    let progress = story.deployment.status.as_ref().unwrap().rollout.as_ref();
    let is_it = |server: &&Server| super::is_restarted(server, progress);
    story.servers.iter().filter(is_it).map(Server::name).collect()
}

fn mark(story: &Story) -> Option<String> {
    story.status().rollout.unwrap().baseline.map(|known| known.mark)
}

/// What each Server declares; with a star those that were restarted for any comparison.
fn code(story: &Story) -> String {
    let of = |server: &Server| {
        let app = server.spec.app.as_ref().unwrap();
        format!("{}{}", app.effective_revision(), if app.baseline.is_some() { "*" } else { "" })
    };
    story.servers.iter().map(of).collect::<Vec<_>>().join(" ")
}

fn reconciling(story: &Story) -> String {
    conditions::get_true(&story.status().conditions, RECONCILING).unwrap().reason.clone()
}

fn promote(story: &mut Story, id: &str) {
    story.request("Promote", id);
    story.settle(&[]);
}

#[test]
fn so_many_stable_servers_are_restarted_which_the_roll_out_would_update_last() {
    let mut story = story(&[json!({"pause": {}})]);
    assert_eq!(story.settle(&[]), 2);
    assert_eq!(code(&story), "v1* v1* v1* v1 v1 v1 v1 v1 v2 v2");
    assert!(story.waiting_for().starts_with("a person: step 3 of 3 is a pause"), "{}", story.waiting_for());
    assert_eq!(story.initial(), "v1");
    let app = story.servers[0].spec.app.clone().unwrap();
    assert!(app.is_declared_as(&newest_app(&testing_v1())), "it is the release that they have");
    assert_eq!(story.status().rollout.unwrap().baseline.unwrap().none, None);
}

#[test]
fn a_percentage_is_of_replicas_and_what_is_recorded_comes_before_what_is_done() {
    let mut story = Story::new(json!({"steps": [{"servers": 1}, {"baseline": {"servers": "25%"}}, {"pause": {}}]}));
    while story.deployment.status.as_ref().unwrap().rollout.as_ref().is_none_or(|known| known.baseline.is_none()) {
        assert!(!code(&story).contains('*'), "restarted before its mark is written");
        story.settle_once(&[]);
    }
    story.settle_once(&[]);
    assert_eq!((restarted(&story).len(), story.settle(&[])), (2, 1));
}

#[test]
fn it_says_how_far_it_is_and_whom_it_waits_for() {
    let mut story = story(&[json!({"pause": {}})]);
    story.deployment.spec.min_ready_seconds = 30;
    story.settle(&[]);
    story.later(30);
    story.settle(&[]);
    assert_eq!(reconciling(&story), "RestartingBaseline");
    let text = "step 2 of 3: 0 of 3 Servers with revision v1 were restarted as a baseline and are well; waits for ";
    assert!(story.waiting_for().starts_with(text), "{}", story.waiting_for());
    assert_eq!(story.status().rollout.unwrap().current_step, Some(2));
    story.later(30);
    story.settle(&[]);
    assert_eq!(reconciling(&story), "WaitingForPromotion");
}

#[test]
fn the_budget_is_one_and_a_hold_begins_no_restart() {
    let mut story = Story::new(json!({"steps": [{"servers": 1}, {"baseline": {"servers": 5}}, {"pause": {}}]}));
    story.deployment.spec.min_ready_seconds = 30;
    story.settle(&[]);
    story.later(30);
    story.settle(&[]);
    assert_eq!(restarted(&story).len(), 3, "maxUnavailable");
    story.deployment.spec.rollout.paused = true;
    story.later(30);
    story.settle(&[]);
    assert_eq!(restarted(&story).len(), 3);
    story.deployment.spec.rollout.paused = false;
    story.settle(&[]);
    assert_eq!(restarted(&story).len(), 5);
}

#[test]
fn later_steps_take_the_others_first_and_in_the_end_no_mark_is_left() {
    let mut story = story(&[json!({"servers": 6}), json!({"pause": {}}), json!({"servers": 8}), json!({"pause": {}})]);
    assert_eq!(story.settle(&[]), 6);
    assert_eq!(code(&story), "v1* v1* v1* v1 v2 v2 v2 v2 v2 v2");
    promote(&mut story, "r1");
    assert_eq!(code(&story), "v1* v1* v2 v2 v2 v2 v2 v2 v2 v2");
    promote(&mut story, "r2");
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v2"));
    assert_eq!((code(&story), mark(&story)), (["v2"; 10].join(" "), None));
    let before = story.servers.clone();
    story.later(1_000);
    story.settle(&[]);
    assert_eq!(story.servers, before, "nothing starts again");
}

#[test]
fn a_sick_restarted_server_is_no_reason_to_update_it_before_others() {
    let mut story = story(&[json!({"pause": {}}), json!({"servers": 4}), json!({"pause": {}})]);
    story.settle(&[]);
    let app = story.servers[1].spec.app.clone();
    story.servers[1] = server("web-1", "v1", "Deploying", 90);
    story.servers[1].spec.app = app;
    promote(&mut story, "r1");
    assert_eq!(code(&story), "v1* v1* v1* v1 v1 v1 v2 v2 v2 v2");
}

#[test]
fn after_an_abort_nothing_is_restarted_again_also_when_the_stable_revision_is_declared_again() {
    let mut story = story(&[json!({"pause": {}})]);
    story.settle(&[]);
    story.request("Abort", "r1");
    story.settle(&[]);
    assert_eq!((code(&story).as_str(), mark(&story)), ("v1* v1* v1* v1 v1 v1 v1 v1 v1 v1", None));
    assert_eq!(story.reasons().1, "RolloutAborted");
    let before = story.servers.clone();
    story.deployment.spec.app = testing_v1().spec.app;
    story.settle(&[]);
    assert_eq!(story.servers, before, "the marks alone make no difference");
    assert_eq!(story.reasons(), reasons("Complete", "Progressing", "v1"));
    assert_eq!(story.initial(), "v1");
}

#[test]
fn what_was_restarted_in_another_attempt_does_not_count() {
    let mut story = story(&[json!({"pause": {}})]);
    story.settle(&[]);
    let first = mark(&story);
    story.request("Abort", "r1");
    story.settle(&[]);
    story.request("Retry", "r2");
    story.settle_once(&[]);
    assert_eq!(restarted(&story).len(), 0);
    story.settle(&[]);
    let second = mark(&story);
    assert!(first != second && restarted(&story).len() == 3, "{first:?} {second:?}");

    // The same version once more, after another one.
    story.deployment.spec.app.revision = Some("v3".into());
    story.settle_once(&[]);
    assert_eq!((restarted(&story).len(), mark(&story)), (0, None));
    story.deployment.spec.app.revision = Some("v2".into());
    story.later(1);
    story.settle(&[]);
    assert!(mark(&story) != second && mark(&story).is_some());
    assert_eq!(restarted(&story).len(), 3);
}

#[test]
fn one_that_is_gone_is_replaced_in_the_step_and_not_after_it() {
    let mut story = story(&[json!({"pause": {}})]);
    story.deployment.spec.min_ready_seconds = 30;
    story.settle(&[]);
    story.later(30);
    story.settle(&[]);
    assert_eq!(restarted(&story), ["web-0", "web-1", "web-2"]);
    story.servers.remove(0);
    story.later(30);
    story.settle(&[]);
    assert_eq!(restarted(&story), ["web-1", "web-2", "web-3"], "the others stay as they are");
    // The machine of another one is away.
    story.servers.iter_mut().filter(|known| known.name() == "web-1").for_each(|known| {
        known.status.as_mut().unwrap().state = Some(State::Unknown);
    });
    story.later(30);
    story.settle(&[]);
    assert_eq!(restarted(&story), ["web-1", "web-2", "web-3", "web-4"]);
    story.later(30);
    story.settle(&[]);
    assert!(story.waiting_for().contains("step 3 of 3"), "{}", story.waiting_for());
    story.servers.retain(|known| known.name() != "web-2");
    story.settle(&[]);
    assert_eq!(restarted(&story), ["web-1", "web-3", "web-4"]);
}

#[test]
fn an_updated_server_that_is_gone_is_replaced_before_anything_else_is_restarted() {
    let mut story = story(&[json!({"pause": {}})]);
    story.deployment.spec.min_ready_seconds = 30;
    story.settle(&[]);
    story.later(30);
    story.settle_once(&[]);
    story.settle_once(&[]);
    let before = restarted(&story).len();
    assert!(before > 0);
    // The replacement has the stable version.
    story.servers.retain(|known| known.name() != "web-9");
    story.servers.push(server("web-10", "v1", "Initializing", 1));
    story.settle(&[]);
    assert_eq!((story.updated(), restarted(&story).len()), (2, before), "{}", code(&story));
}

#[test]
fn it_takes_what_is_there_and_with_nothing_it_ends_and_says_so() {
    let steps = json!([{"servers": 8}, {"baseline": {"servers": 5}}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps}));
    assert_eq!((story.settle(&[]), restarted(&story).len()), (8, 2));
    let steps = json!([{"servers": 10}, {"baseline": {"servers": 5}}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps}));
    assert_eq!(story.settle(&[]), 10);
    assert_eq!(story.status().rollout.unwrap().steps_done, 2);
    let none = story.status().rollout.unwrap().baseline.unwrap().none;
    assert_eq!(none.as_deref(), Some("no Server with revision v1 was left to be restarted"));
}

#[test]
fn a_new_content_alone_has_nothing_to_be_compared_with() {
    let mut story = story(&[json!({"pause": {}})]);
    let status = story.deployment.status.as_mut().unwrap();
    story.deployment.spec.app = status.stable_app.clone().unwrap();
    status.stable_app.as_mut().unwrap().content_digest = Some("a".into());
    let stable = status.stable_app.clone();
    story.deployment.spec.app.content_digest = Some("b".into());
    story.servers.iter_mut().for_each(|server| server.spec.app.clone_from(&stable));
    assert_eq!((story.settle(&[]), code(&story).contains('*')), (2, false));
    let none = story.status().rollout.unwrap().baseline.unwrap().none.unwrap();
    assert!(none.starts_with("only what ConfigMaps and Secrets contain is new"), "{none}");
}

#[test]
fn a_restart_that_fails_is_no_failure_of_the_new_version_and_waits_for_a_person() {
    let steps = json!([{"servers": 2}, {"baseline": {"servers": 1}}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps, "onFailure": "Rollback", "maxFailed": 0}));
    story.broken_restarts = vec!["web-0"];
    story.settle(&[]);
    story.later(1_000_000);
    story.settle(&[]);
    assert_eq!((restarted(&story), story.updated()), (vec!["web-0"], 2), "no other one is tried, and it is not late");
    let waits = story.waiting_for();
    assert!(waits.starts_with("a person: step 2 of 3: 0 of 1 Servers with revision v1 were restarted"), "{waits}");
    assert!(
        waits.contains("the start of web-0 failed: DeployApp failed: no space left. Repair or retry it"),
        "{waits}"
    );
    assert_eq!(reconciling(&story), "RestartingBaseline");
    assert!(conditions::get_true(&story.status().conditions, STALLED).is_none());
    promote(&mut story, "r1");
    assert!(story.waiting_for().starts_with("a person: step 3 of 3 is a pause"), "{}", story.waiting_for());
}

#[test]
fn as_many_restarts_may_fail_as_the_budget_allows() {
    let steps = json!([{"servers": 2}, {"baseline": {"servers": 5}}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps}));
    story.broken_restarts = vec!["web-0", "web-3"];
    story.settle(&[]);
    assert_eq!(restarted(&story).len(), 5);
    assert!(story.waiting_for().starts_with("a person: step 3 of 3 is a pause"), "{}", story.waiting_for());
}

#[test]
fn servers_that_the_partition_keeps_or_a_person_forces_are_not_restarted() {
    let steps = json!([{"servers": 2}, {"baseline": {"servers": 3}}, {"pause": {}}]);
    let mut story = Story::new(json!({"steps": steps, "partition": 4}));
    let force = json!({"state": "Ready", "reason": "x", "by": "ann"});
    story.servers[5].spec.force = serde_json::from_value(force).unwrap();
    story.settle(&[]);
    assert_eq!(code(&story), "v1 v1 v1 v1 v1* v1 v1* v1* v2 v2");
    promote(&mut story, "r1");
    assert_eq!(code(&story), "v1 v1 v1 v2 v2 v1 v2 v2 v2 v2", "the forced one is one of the four");
}

#[test]
fn a_second_step_adds_to_the_first() {
    let mut story = story(&[json!({"servers": 4}), json!({"baseline": {"servers": 4}}), json!({"pause": {}})]);
    assert_eq!(story.settle(&[]), 4);
    assert_eq!(code(&story), "v1* v1* v1* v1* v1 v1 v2 v2 v2 v2");
}

#[test]
fn zones_have_their_turns_in_restarts_as_with_new_code() {
    let zone = |n: usize| if n.is_multiple_of(2) { "a" } else { "b" };
    let rollout = json!({"steps": [{"servers": 2}, {"baseline": {"servers": 6}}, {"pause": {}}, {"servers": 9}, {"pause": {}}],
        "spread": {"topologyKey": "zone", "bakeSeconds": 60}});
    let mut story = Story::new(rollout);
    for (n, server) in story.servers.iter_mut().enumerate() {
        server.metadata.labels.get_or_insert_default().insert("zone".into(), zone(n).into());
    }
    story.settle(&[]);
    assert_eq!(code(&story), "v1 v1* v1 v1* v1 v1* v1 v2 v1 v2", "the zone that was begun comes first");
    assert_eq!(reconciling(&story), "WaitingForZone");
    assert!(story.waiting_for().starts_with("zone b: bakes until "), "{}", story.waiting_for());
    story.later(59);
    story.settle(&[]);
    assert_eq!(restarted(&story).len(), 3);
    story.later(1);
    story.settle(&[]);
    assert_eq!(code(&story), "v1* v1* v1* v1* v1* v1* v1 v2 v1 v2");
    // Only restarted ones are left of zone b: they have their turn when nobody else is left anywhere.
    promote(&mut story, "r1");
    assert_eq!(code(&story), "v2 v1* v2 v1* v2 v1* v2 v2 v2 v2");
    story.later(60);
    story.settle(&[]);
    assert_eq!(code(&story), "v2 v1* v2 v2 v2 v2 v2 v2 v2 v2");
}

#[test]
fn what_a_vm_deployment_declares_is_no_mark() {
    let mut story = story(&[json!({"pause": {}})]);
    story.deployment.spec.app.baseline = Some("forged".into());
    assert_eq!(story.settle(&[]), 2);
    assert!(story.servers.iter().all(|known| known.spec.app.as_ref().unwrap().baseline.as_deref() != Some("forged")));
}

#[test]
fn the_analysis_goes_on_as_ever_after_it() {
    let check = json!({"name": "slo", "source": "main", "query": "up", "condition": "> 0"});
    let steps = json!([{"servers": 2}, {"baseline": {"servers": 3}}, {"analysis": {"checks": ["slo"]}}]);
    let mut story = Story::new(json!({"checks": [check], "steps": steps}));
    assert_eq!((story.settle(&[]), reconciling(&story).as_str()), (2, "Analysing"));
    story.later(60);
    story.look(&[("slo", CheckVerdict::Pass)]);
    assert_eq!((story.settle(&[]), code(&story)), (10, ["v2"; 10].join(" ")));
}

#[test]
fn nothing_is_restarted_before_the_servers_of_the_steps_before_are_there() {
    let mut story = story(&[json!({"pause": {}})]);
    story.settle(&[]);
    let servers: Vec<&Server> = story.servers.iter().collect();
    let set = ready_set(&story.deployment);
    let updates = rollout::next_updates(&story.deployment, &set, &servers, None, story.now);
    assert!(updates.is_empty(&set), "nothing is left to do");
}

#[test]
fn a_restart_waits_for_what_the_stable_version_refers_to() {
    let mut story = story(&[json!({"pause": {}})]);
    story.settle_once(&[]);
    story.settle_once(&[]);
    while story.status().rollout.unwrap().current_step == Some(1) {
        story.settle_once(&[]);
    }
    story.deployment.status = Some(story.status());
    let words = "needs key port of ConfigMap shop/conf";
    let missing = |story: &Story| {
        let servers: Vec<&Server> = story.servers.iter().collect();
        let seen = [SeenContent::Digest("a".into()), SeenContent::Missing(words.into())];
        let [newest, stable] = seen;
        let contents = Contents::new(&story.deployment, None, &servers, newest, stable);
        contents.missing(&story.deployment, &servers, story.now).map(str::to_owned)
    };
    assert_eq!((story.status().rollout.unwrap().current_step, missing(&story).as_deref()), (Some(2), Some(words)));
    story.settle(&[]);
    assert_eq!((story.status().rollout.unwrap().current_step, missing(&story)), (Some(3), None));
}
